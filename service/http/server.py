"""How the service listens: uvicorn, with requests parsed in C, and what it bounds around them.

Bodies are counted by `service.http.connection`; addresses, headers, trailers and the frames of
chunks are not bodies, and no parser bounds them.
"""

import asyncio
import contextlib
import math
import secrets
import signal
import socket
from collections.abc import Callable, Iterator
from http import HTTPStatus

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.errors import EngineError, MalformedRequestError, UploadTooSlowError
from service.http.problems import answer, blank
from service.settings import Settings

ANSWERED_S = 0.5  # for the answers of requests that are cut off when the service stops
HEAD_BYTES = 2**16  # of the first line and the headers of a request
HEAD_S = 10.0  # for them to come
LINGER_S = 0.5  # for requests that were on their way when the service was stopped
CHUNK_BYTES = 5  # around a chunk of one byte, the smallest


class Protocol(HttpToolsProtocol):
    """HTTP/1.1, where what cannot be parsed gets a problem, too.

    What stands around a body must come soon and be short.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first head."""
        super().connection_made(transport)
        self._in_head = True
        self._around_bytes = self._body_bytes = 0
        self._late: asyncio.TimerHandle | None = self.loop.call_later(HEAD_S, self._give_up)
        self._stopping = False

    def shutdown(self) -> None:
        """Close once nothing can be on its way any more: what is closed before it is read is lost.

        A proxy does not send it again elsewhere, since it may have been done.
        """
        self._stopping = True
        idle = self.cycle is None or self.cycle.response_complete
        self.loop.call_later(LINGER_S if idle else 0.0, super().shutdown)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._head_came()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what is not of a body, and hang up where it is too long."""
        if self._in_head and self._late is None:
            self._late = self.loop.call_later(HEAD_S, self._give_up)
        self._around_bytes += len(data)
        super().data_received(data)
        most = HEAD_BYTES + CHUNK_BYTES * self._body_bytes
        if self._around_bytes > most and not self.transport.is_closing():
            self._hang_up(
                400,
                MalformedRequestError.code,
                f"The first line and the headers of the request have more than {HEAD_BYTES} "
                "bytes; write shorter ones.",
            )

    def on_headers_complete(self) -> None:
        """Begin a body, which has rules of its own."""
        self._in_head = False
        self._head_came()
        super().on_headers_complete()
        if self._stopping and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Count apart what is of the body."""
        self._around_bytes -= len(body)
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Wait for the next head once it begins; uvicorn closes connections that are idle."""
        self._in_head = True
        self._around_bytes = self._body_bytes = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request, and hang up."""
        detail = f"{msg.rstrip('.')}; correct its first line and its headers."
        self._hang_up(400, MalformedRequestError.code, detail)

    def _head_came(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _give_up(self) -> None:
        self._late = None
        if self._around_bytes:
            detail = f"The headers of the request did not come within {HEAD_S:g} s; send it again."
            self._hang_up(408, UploadTooSlowError.code, detail)
        else:
            self.transport.close()

    def _hang_up(self, status: int, code: str, detail: str) -> None:
        """Refuse and close; where another answer is being written, close alone."""
        if self.cycle is None or self.cycle.response_complete:
            request_id = secrets.token_hex(8)
            response = answer(
                blank(status, code, detail, request_id),
                {"connection": "close", "x-request-id": request_id},
            )
            first = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode()
            headers = [*self.server_state.default_headers, *response.raw_headers]
            lines = [first, *(b": ".join(pair) for pair in headers), b"", b""]
            self.transport.write(b"\r\n".join(lines) + bytes(response.body))
        self.transport.close()


class Server(uvicorn.Server):
    """Uvicorn for which a stop asked for is no failure, and which stops with the device."""

    works: Callable[[], bool] = staticmethod(lambda: True)  # whether there is use in going on

    def heed_signals(self) -> None:
        """Stop at SIGTERM or SIGINT, from now on; in the loop that will serve."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stop)

    def at_stop(self) -> None:
        """Do what is to be done when a stop is asked for; `serve` says what."""

    def _stop(self) -> None:
        self.at_stop()
        self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Look, some times a second, whether to stop."""
        return await super().on_tick(counter) or not self.works()

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
        KshotError: A part of the service cannot start; EngineError: the device was lost.
    """
    server = server_of(app, settings)
    server.heed_signals()
    async with app.router.lifespan_context(app):
        server.at_stop = app.state.models.end_watches  # type: ignore[method-assign]
        server.works = lambda: math.isfinite(app.state.service.engine.silent_s)
        await server.serve([listening])
        if not server.works():
            raise EngineError("The device is lost; start the service again, on another one.")
