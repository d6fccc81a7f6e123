"""How the service listens, with uvicorn and requests parsed in C, and how it logs."""

import asyncio
import contextlib
import json
import logging
import secrets
import signal
import socket
import sys
from collections.abc import Iterator
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from model.errors import KshotError
from service.errors import MalformedRequestError
from service.http.problems import answer, blank
from service.settings import Settings

ANSWERED_S = 0.5  # for the answers of requests that are cut off when the service stops


class Protocol(HttpToolsProtocol):
    """HTTP/1.1, where what cannot be parsed gets a problem, too."""

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request, and hang up."""
        request_id = secrets.token_hex(8)
        detail = f"{msg.rstrip('.')}; correct its first line and its headers."
        response = answer(
            blank(400, MalformedRequestError.code, detail, request_id),
            {"connection": "close", "x-request-id": request_id},
        )
        headers = [*self.server_state.default_headers, *response.raw_headers]
        lines = [b"HTTP/1.1 400 Bad Request", *(b": ".join(pair) for pair in headers), b"", b""]
        self.transport.write(b"\r\n".join(lines) + bytes(response.body))
        self.transport.close()


class Server(uvicorn.Server):
    """Uvicorn for which a stop asked for is no failure."""

    def heed_signals(self) -> None:
        """Stop at SIGTERM or SIGINT, from now on; in the loop that will serve."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stop)

    def _stop(self) -> None:
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let requests end within their grace; those that are cut off are still answered."""
        await super().shutdown(sockets)
        if left := set(self.server_state.tasks):
            await asyncio.wait(left, timeout=ANSWERED_S)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def server_of(app: FastAPI, settings: Settings) -> Server:
    """Make the server of an application whose lifespan is entered elsewhere.

    So a refusal to start is one sentence.
    """
    return Server(
        uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            http=Protocol,
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=settings.stop_grace_s,
        )
    )


async def serve(app: FastAPI, settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; running requests get their grace.

    Raises:
        KshotError: A part of the service cannot start.
    """
    server = server_of(app, settings)
    server.heed_signals()
    async with app.router.lifespan_context(app):
        await server.serve()


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
