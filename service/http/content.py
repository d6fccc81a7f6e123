"""What a body is said to be, and multipart bodies read into their parts: UTF-8 alone.

Clients name character sets in headers of requests and of parts. None but UTF-8 is read: Python
knows codecs that are no character sets, and codecs that make surrogates out of plain bytes.
"""

import re
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import NoReturn

from fastapi import Request
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData
from starlette.formparsers import MultiPartException, MultiPartParser, MultipartPart

from model.text import clean
from service.errors import MalformedRequestError, MediaTypeError, TooManyClipsError

MULTIPART = "multipart/form-data"
JSON = "application/json"
STREAMED = {"cache-control": "no-store", "x-accel-buffering": "no"}  # nginx would collect events
UTF8 = {"", "utf-8", "utf8", "us-ascii", "ascii"}  # ASCII is a part of it
AS_IT_IS = {"", "identity", "7bit", "8bit", "binary"}  # encodings that change no byte
OF_FILES = ("application/octet-stream", "video/", "image/")  # types of parts that are no text
NO_NAME = b'; filename=""'  # what makes a part a file
MAX_TEXT_PART_BYTES = 2**20
MAX_TEXT_PARTS = 1000
FILE_NAME_CHARS = 100


def content_type(request: Request) -> str:
    """Return the content type of the body.

    Raises:
        MediaTypeError: It is neither JSON nor multipart, or packed, or not in UTF-8.
    """
    header = request.headers.get("content-type", "")
    found = header.partition(";")[0].strip().lower()
    if found not in (JSON, MULTIPART):
        raise MediaTypeError(
            f"The content type {found[:80]!r} is not read here; send {MULTIPART} or {JSON}."
        )
    _check_charset("body", header)
    _check_encoding("body", "content-encoding", request.headers.get("content-encoding", ""))
    return found


@asynccontextmanager
async def form_of(request: Request, max_clips: int) -> AsyncIterator[FormData]:
    """Parse a multipart body, its files spooled to disk, and close them at the end.

    Raises:
        RequestError: The body, or a header of a part, cannot be read.
    """
    try:
        async with aclosing(request.stream()) as stream:
            form = await _Utf8Parser(
                request.headers,
                stream,
                max_files=max_clips,
                max_fields=MAX_TEXT_PARTS,
                max_part_size=MAX_TEXT_PART_BYTES,
            ).parse()
    except MultiPartException as error:
        _refuse(error.message, max_clips)
    try:
        yield form
    finally:
        await form.close()


class _Utf8Parser(MultiPartParser):
    """Reads names and texts as UTF-8, whatever a header says, and refuses what is not."""

    _ended = False

    async def parse(self) -> FormData:
        # of a body that breaks off the library would give all parts but the last
        form = await super().parse()
        if not self._ended:
            for file in self._files_to_close_on_error:
                file.close()
            raise MultiPartException("it breaks off before its last boundary")
        return form

    def on_end(self) -> None:
        self._ended = True

    def on_part_begin(self) -> None:
        super().on_part_begin()
        self._charset = "utf-8"  # what the request's header says is checked and needs no more

    def on_headers_finished(self) -> None:
        part = self._current_part
        for name, value in part.item_headers:
            text = _utf8(f"header {name.decode()[:40]!r} of a part", value)
            if name == b"content-type":
                _check_charset("part", text)
                if text.strip().lower().startswith(OF_FILES) and _is_nameless(part):
                    part.content_disposition = (part.content_disposition or b"") + NO_NAME
            elif name in (b"content-transfer-encoding", b"content-encoding"):
                _check_encoding("part", name.decode(), text)
        super().on_headers_finished()

    def on_part_end(self) -> None:
        if self._current_part.file is None:
            _utf8(f"field {self._current_part.field_name[:100]!r}", self._current_part.data)
        super().on_part_end()


def file_name(name: str | None) -> str | None:
    """Return the last part of a file's name, cleaned and cut; None where nothing is left."""
    return clean(re.split(r"[/\\]", name or "")[-1])[:FILE_NAME_CHARS] or None


def _is_nameless(part: MultipartPart) -> bool:
    """Tell whether a clip's part has no file name: clients made from the document may give none."""
    options = parse_options_header(part.content_disposition)[1]
    clip = options.get(b"name", b"").startswith((b"clip", b"support["))
    return clip and b"filename" not in options


def _utf8(what: str, raw: bytes | bytearray) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise MalformedRequestError(
            f"The {what} is not UTF-8 (byte {error.start}); write it in UTF-8."
        ) from None


def _check_charset(what: str, content_type: str) -> None:
    charset = parse_options_header(content_type)[1].get(b"charset", b"").decode("latin-1")
    if charset.strip().replace("_", "-").lower() not in UTF8:
        raise MediaTypeError(
            f"A {what} in the character set {charset[:40]!r} is not read here; send UTF-8."
        )


def _check_encoding(what: str, header: str, encoding: str) -> None:
    if encoding.strip().lower() not in AS_IT_IS:
        raise MediaTypeError(
            f"A {what} with {header} {encoding[:40]!r} is not unpacked here; send the bytes "
            "as they are."
        )


def _refuse(reason: str, max_clips: int) -> NoReturn:
    if reason.startswith("Too many files"):
        raise TooManyClipsError(f"The request has more than {max_clips} files; send fewer.")
    raise MalformedRequestError(
        f"The multipart body cannot be read: {reason.rstrip('.')}; let an HTTP client write it."
    )
