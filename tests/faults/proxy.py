"""A TCP proxy on this machine that slows down, swallows or breaks what passes through it."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

LINGER_NOT = struct.pack("ii", 1, 0)  # a close sends a reset
PIECE = 2**16


class Proxy:
    """Stands in front of a port; a test sets what happens to what passes.

    Args:
        to: Port of the server behind it.
    """

    def __init__(self, to: int) -> None:
        self.to = to
        self.port = 0
        self.mode: Literal["pass", "silent", "broken"] = "pass"
        self.delay_s = 0.0  # of each piece of an answer
        self.asked = 0  # pieces that clients sent
        self.broken = 0  # answers that were cut off
        self.open = set[asyncio.StreamWriter]()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one connection on, for as long as both sides want it."""
        self.open.add(writer)
        try:
            behind = await asyncio.open_connection("127.0.0.1", self.to)
        except OSError:
            self.open.discard(writer)
            _reset(writer)
            return
        self.open.add(behind[1])
        ways = self._there(reader, behind[1]), self._back(behind[0], writer)
        running = [asyncio.ensure_future(way) for way in ways]
        try:
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in running:
                way.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            for end in (behind[1], writer):
                self.open.discard(end)
                end.close()

    async def _there(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(PIECE):
            self.asked += 1
            if self.mode != "silent":
                writer.write(piece)

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(PIECE):
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            if self.mode == "broken":
                self.broken += 1
                writer.write(piece[: len(piece) // 2])
                with contextlib.suppress(OSError):
                    await writer.drain()
                _reset(writer)
                return
            if self.mode == "pass":
                writer.write(piece)


def _reset(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        raw: socket.socket = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
    writer.transport.abort()


@contextmanager
def proxy(to: int) -> Iterator[Proxy]:
    """Run a proxy in a thread of its own."""
    made, loop = Proxy(to), asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(made.serve, "127.0.0.1", 0))
    made.port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever, name="proxy")
    thread.start()

    async def end() -> None:
        server.close()
        await asyncio.sleep(0.01)  # for what was accepted by then
        while len(asyncio.all_tasks()) > 1:  # a task that is cancelled too soon closes nothing
            for writer in made.open:
                writer.close()
            await asyncio.sleep(0.01)

    try:
        yield made
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()
