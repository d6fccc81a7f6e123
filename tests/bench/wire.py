"""HTTP/1.1 over one socket, as little of it as a load generator needs."""

import asyncio
from collections.abc import Mapping
from typing import NamedTuple


class Answer(NamedTuple):
    """Status and body."""

    status: int
    body: bytes


def request_bytes(
    method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> bytes:
    """Write a whole request, once for all the times that it is sent."""
    lines = [f"{method} {target} HTTP/1.1", "Host: bench", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Wire:
    """A connection that is opened when needed, and again when the server has closed it.

    Args:
        host: The server's.
        port: The server's.
        source: Address that it comes from; empty leaves it to the system.
    """

    def __init__(self, host: str, port: int, source: str = "") -> None:
        self.host = host
        self.port = port
        self.source = source
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> Answer:
        """Send a request and read its answer; a kept connection that proves dead is replaced.

        Raises:
            OSError: The connection broke.
        """
        kept = self._streams is not None
        try:
            return await self._ask(request)
        except (OSError, asyncio.IncompleteReadError) as error:
            self.close()
            if not kept:
                raise ConnectionError("The server closed the connection.") from error
        return await self._ask(request)

    def close(self) -> None:
        """Hang up, whatever is on its way."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _ask(self, request: bytes) -> Answer:
        if self._streams is None:
            self._streams = await asyncio.open_connection(
                self.host, self.port, local_addr=(self.source, 0) if self.source else None
            )
        reader, writer = self._streams
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        status, *lines = head.split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines if ": " in line)
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if headers.get("connection") == "close":
            self.close()
        return Answer(int(status.split()[1]), body)
