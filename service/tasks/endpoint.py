"""How much of a language model's endpoint is listened to: a configured address may answer anything.

An answer may be of any length, may never end, and may unpack to more than the memory. The client of
openai reads answers whole, so it gets a client of HTTP that stops reading.
"""

from contextlib import aclosing
from typing import Any

import httpx2
import openai

MOST_ANSWER_BYTES = 2**20  # after unpacking; a description has a few hundred
MOST_ERROR_BYTES = 2**14  # of which nothing but the status is used
_OF_THE_WIRE = {"content-encoding", "content-length", "transfer-encoding"}


class BriefClient(openai.DefaultAsyncHttpxClient):
    """An HTTP client that reads the beginning of each answer.

    `too_long` tells whether there was more. Redirects are not followed: the HTTP library would read
    their bodies to the end.
    """

    def __init__(self, **options: Any) -> None:  # noqa: ANN401
        super().__init__(follow_redirects=False, **options)

    async def send(
        self,
        request: httpx2.Request,
        *,
        stream: bool = False,  # noqa: ARG002
        **options: Any,  # noqa: ANN401
    ) -> httpx2.Response:
        """Send a request, and give its answer with a body of one byte over the limit at most."""
        answer = await super().send(request, stream=True, **options)
        most = MOST_ANSWER_BYTES if answer.is_success else MOST_ERROR_BYTES
        body = bytearray()
        try:
            async with aclosing(answer.aiter_bytes()) as pieces:  # each unpacked to 1 MiB at most
                async for piece in pieces:
                    body += piece
                    if len(body) > most:
                        break
        finally:
            await answer.aclose()
        return httpx2.Response(
            answer.status_code,
            headers=[each for each in answer.headers.multi_items() if each[0] not in _OF_THE_WIRE],
            content=bytes(body[: most + 1]),
            request=request,
            extensions=answer.extensions,
        )


def too_long(body: bytes) -> bool:
    """Tell whether an answer had more bytes than are read."""
    return len(body) > MOST_ANSWER_BYTES


def client_of(api_key: str | None, base_url: str | None) -> openai.AsyncOpenAI:
    """Make the client of an endpoint; one without a key, such as a local one, is sent a word."""
    return openai.AsyncOpenAI(
        api_key=api_key or "none", base_url=base_url, http_client=BriefClient()
    )
