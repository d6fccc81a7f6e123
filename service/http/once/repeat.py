"""Requests with an Idempotency-Key, read and answered.

The header is that of draft-ietf-httpapi-idempotency-key-header-07.
"""

import hashlib
import json
import re
import zlib
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel

from service.container import Service
from service.errors import FieldFault
from service.http.routes.dependencies import OwnerDep, ServiceDep
from service.tasks.once.errors import IdempotencyKeyInvalidError
from service.tasks.once.once import Work

HEADER = "Idempotency-Key"
KEY = re.compile(r'("?)([\x21\x23-\x7e]{1,255})\1')  # the draft has quotes, most clients have none
HEADERS = ("location", "etag")  # of an answer, beside its content type
MEDIA_TYPE = "application/json"


class Repeat:
    """A request that its client may send again, under a key of its own.

    Args:
        service: Does it.
        name: A hash of tenant, route and key.
        usual: The status that the route answers with.
    """

    def __init__(self, service: Service, name: str, usual: int) -> None:
        self.service = service
        self.name = name
        self.usual = usual

    async def answer(
        self,
        *,
        fingerprint: str,
        seed: str,
        response: Response,
        make: Callable[[str], Awaitable[BaseModel]],
        find: Callable[[str], Awaitable[BaseModel | None]],
        task_id: str | None = None,
    ) -> Response:
        """Answer as the first time; do what is asked if this is that time.

        Args:
            fingerprint: Of what was sent.
            seed: What the ids of what is made come from; the id of a new task.
            response: Takes status and headers of the views.
            make: Does what is asked and shows it.
            find: Shows what was done by a seed, as it stands; None where nothing was.
            task_id: The task that is changed.
        """

        def packed(view: BaseModel) -> bytes:
            head = {
                "status": response.status_code or self.usual,
                "headers": {n: response.headers[n] for n in HEADERS if n in response.headers},
            }
            body = view.model_dump_json().encode()
            return zlib.compress(json.dumps(head).encode() + b"\n" + body)

        async def made(seed: str) -> bytes:
            return packed(await make(seed))

        async def found(seed: str) -> bytes | None:
            view = await find(seed)
            return None if view is None else packed(view)

        work = Work(self.name, fingerprint, seed, task_id, made, found)
        head, _, body = zlib.decompress(await self.service.once.answer(work)).partition(b"\n")
        about = json.loads(head)
        return Response(body, about["status"], about["headers"], MEDIA_TYPE)


async def repeat(request: Request, service: ServiceDep, owner: OwnerDep) -> Repeat | None:
    """Return by what key the client may send this request again; None where it has none.

    Raises:
        IdempotencyKeyInvalidError: It is no key.
    """
    sent = request.headers.getlist(HEADER)
    if not sent:
        return None
    found = KEY.fullmatch(sent[0].strip())
    if len(sent) > 1 or found is None:
        raise IdempotencyKeyInvalidError(
            f"{HEADER} is {', '.join(sent)[:40]!r}; send one of 1 to 255 visible ASCII characters, "
            "such as a UUID.",
            [FieldFault(HEADER, "no key")],
        )
    route = request.scope["route"]
    assert isinstance(route, APIRoute)
    named = [owner, route.operation_id, sorted(request.path_params.items()), found[2]]
    name = hashlib.sha256(json.dumps(named).encode()).hexdigest()
    return Repeat(service, name, route.status_code or 200)


RepeatDep = Annotated[Repeat | None, Depends(repeat)]
