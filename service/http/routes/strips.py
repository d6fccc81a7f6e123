"""Pictures of a clip side by side: as large as they are kept or smaller, and not sent twice."""

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Query, Request, Response, status

from model.media.keeping import strip_of
from service.http.openapi import Responses, problems
from service.http.routes.tags import at_hand

JPEG = "image/jpeg"
MADE_BY = 1  # count it up where `strip_of` makes other bytes of the same pictures
HEADERS = {"Cache-Control": "private, no-cache"}  # kept by who asks alone, and asked for by its tag
Width = Annotated[
    int | None,
    Query(
        ge=16,
        le=1024,
        description="Pixels of a side of each picture, where they are kept larger; else as kept.",
    ),
]
ANSWERS: Responses = {
    200: {
        "content": {JPEG: {"schema": {"type": "string", "format": "binary"}}},
        "headers": {"ETag": {"schema": {"type": "string"}, "description": "Of these pictures."}},
    },
    304: {"description": "The client has them: its If-None-Match names their ETag."},
    **problems(404, 409, 410, 422, 503),
}
IF_NONE_MATCH: dict[str, Any] = {
    "parameters": [
        {
            "name": "If-None-Match",
            "in": "header",
            "schema": {"type": "string"},
            "example": '"2f1c..."',
            "description": "The ETag of pictures that the client has.",
        }
    ]
}


async def strip_answer(pictures: Sequence[bytes], width: int | None, request: Request) -> Response:
    """Give pictures, or say that the client has them."""
    tag = f'"{await asyncio.to_thread(_tag, pictures, width)}"'
    headers = HEADERS | {"ETag": tag}
    if at_hand(request, tag):
        return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers=headers)
    strip = await asyncio.to_thread(strip_of, pictures, width)
    return Response(strip, headers=headers, media_type=JPEG)


def _tag(pictures: Sequence[bytes], width: int | None) -> str:
    """Name what `strip_of` makes of pictures; MADE_BY names how it does."""
    sha = hashlib.sha256(f"{MADE_BY} {width}".encode())
    for picture in pictures:
        sha.update(len(picture).to_bytes(8, "big") + picture)
    return sha.hexdigest()[:32]
