"""Request ids and logs: one line a request, readable in a terminal and JSON elsewhere."""

import json
import logging
import re
import secrets
import sys
import time
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model.errors import KshotError

SAFE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
QUIET = frozenset({"/livez", "/readyz", "/v1/livez", "/v1/readyz"})

log = logging.getLogger("kshot.request")


class RequestLog:
    """Gives each request an id and writes its line: no label, no clip, no query string.

    Args:
        app: The application inside.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        scope["kshot.request_id"] = given if SAFE_ID.fullmatch(given) else secrets.token_hex(8)
        begun = time.monotonic()
        status = 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = scope["kshot.request_id"]
            await send(message)

        try:
            await self.app(scope, receive, noting)
        finally:
            self._write(scope, status, 1e3 * (time.monotonic() - begun))

    def _write(self, scope: Scope, status: int, ms: float) -> None:
        level = logging.DEBUG if scope["path"] in QUIET and status < 400 else logging.INFO
        route = getattr(scope.get("route"), "path", "-")
        fields = {
            "request_id": scope["kshot.request_id"],
            "method": scope["method"],
            "route": route,
            "status": status,
            "code": scope.get("kshot.code"),
            "bytes": scope.get("kshot.body_bytes", 0),
            "ms": round(ms, 1),
        }
        shown = {name: value for name, value in fields.items() if value is not None}
        log.log(level, "%s %s %s", scope["method"], route, status, extra={"fields": shown})


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one record."""
        line: dict[str, Any] = {
            "ts": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class ReadableLines(logging.Formatter):
    """Short lines for people."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one record."""
        fields: dict[str, Any] = getattr(record, "fields", {})
        extra = "  ".join(
            f"{name}={value}"
            for name, value in fields.items()
            if name not in ("method", "route", "status")
        )
        clock = self.formatTime(record, "%H:%M:%S")
        line = f"{clock} {record.levelname[:1]} {record.getMessage()}  {extra}".rstrip()
        if record.exc_info and not isinstance(record.exc_info[1], KshotError):
            line += "\n" + self.formatException(record.exc_info)
        return line


def start_logging(level: int = logging.INFO) -> None:
    """Send all logs to standard error, in the form that suits who reads it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(ReadableLines() if sys.stderr.isatty() else JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in ("httpx", "httpcore", "openai", "multipart", "python_multipart"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
