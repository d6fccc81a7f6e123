"""How the service listens: uvicorn, with requests parsed in C."""

import asyncio
import contextlib
import secrets
import signal
import socket
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

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


async def serve(app: FastAPI, settings: Settings, listening: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT; running requests get their grace.

    Args:
        app: The application.
        settings: Of the process.
        listening: Where, as `service.preflight` bound it.

    Raises:
        KshotError: A part of the service cannot start.
    """
    server = server_of(app, settings)
    server.heed_signals()
    async with app.router.lifespan_context(app):
        await server.serve([listening])
