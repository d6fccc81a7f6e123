"""A language model's endpoint: it is configured by the operator and may still answer anything.

An answer may be of any length, may never end, and may unpack to more than the memory. The client of
openai reads answers whole, so it gets a client of HTTP that stops reading. An answer may have any
shape, too: a page of a gateway, an error with status 200, a list where an object was to be. Each
has its sentence, which repeats nothing that the endpoint wrote.
"""

import json
import sys
from contextlib import aclosing
from typing import Any

import httpx2
import openai

from model.errors import DescriptionError

MOST_ANSWER_BYTES = 2**20  # after unpacking; a description has a few hundred
MOST_ERROR_BYTES = 2**14  # of which nothing but the status is used
_CUT = {
    "length": "it is cut short; allow the model more tokens",
    "content_filter": "the endpoint's filter took it away",
}
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


def content_of(raw: bytes | str) -> str:
    """Return the text of the first choice of a chat completion.

    Args:
        raw: The body of the endpoint's answer.

    Raises:
        DescriptionError: It holds no such text; the message says what is missing.
    """
    try:
        completion = json.loads(raw)
    except RecursionError as error:
        raise _refused("it nests too deeply to be read") from error
    except ValueError as error:  # no JSON, no UTF-8, or a number of more digits than Python reads
        long = f"limit ({sys.get_int_max_str_digits()} digits)" in str(error)
        raise _refused("it has a number of too many digits" if long else "it is no JSON") from error
    if not isinstance(completion, dict):
        raise _refused(f"it is {_kind(completion)} and no object")
    choices = completion.get("choices")
    if not isinstance(choices, list) or not choices:
        raise _refused("it has no choices" if not choices else f"choices is {_kind(choices)}")
    choice = choices[0]
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise _refused("its first choice has no message")
    finish_reason = choice.get("finish_reason")
    if isinstance(finish_reason, str) and finish_reason in _CUT:
        raise _refused(_CUT[finish_reason])
    if message.get("refusal"):
        raise _refused("the model refused")
    content = message.get("content")
    if not isinstance(content, str) or not content.strip():
        raise _refused("its message has no text")
    return content


def _refused(what: str) -> DescriptionError:
    return DescriptionError(f"The answer is of no use: {what}.")


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    return "null" if value is None else names.get(type(value), "a number")
