"""The page: plain files of `service/page`, read once and given as they are."""

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, HTTPException, Request, Response, status

from service.http.routes.tags import at_hand

FOLDER = Path(__file__).resolve().parents[2] / "page"
INDEX = "index.html"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Nothing but our own files runs, and no string becomes markup (trusted types).
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "media-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ]
)
HEADERS = {
    "Cache-Control": "no-cache",  # kept, and asked for by its ETag: a new version is seen at once
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "Vary": "Accept-Encoding",
    "X-Content-Type-Options": "nosniff",
}
READ = ["GET", "HEAD"]

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file as it is sent."""

    content: bytes
    packed: bytes  # gzip
    kind: str
    tag: str


def read_file(path: Path) -> PageFile:
    """Read a file of the page."""
    content = path.read_bytes()
    packed = gzip.compress(content, mtime=0)
    tag = hashlib.sha256(content).hexdigest()[:32]
    return PageFile(content, packed, TYPES[path.suffix], f'"{tag}"')


FILES = {path.name: read_file(path) for path in FOLDER.iterdir() if path.suffix in TYPES}


@router.api_route("/", methods=READ)
async def index(request: Request) -> Response:
    """Give the page."""
    return _sent(FILES[INDEX], request)


@router.api_route("/page/{name}", methods=READ)
async def file(name: str, request: Request) -> Response:
    """Give a file that the page is made of."""
    if name == INDEX or (found := FILES.get(name)) is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND)
    return _sent(found, request)


def _sent(found: PageFile, request: Request) -> Response:
    headers = HEADERS | {"ETag": found.tag}
    if at_hand(request, found.tag):
        return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        packed = headers | {"Content-Encoding": "gzip"}
        return Response(found.packed, headers=packed, media_type=found.kind)
    return Response(found.content, headers=headers, media_type=found.kind)
