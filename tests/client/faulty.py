"""A proxy before the real service that answers, or breaks off, as it is told to."""

import socket
import socketserver
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit

BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\n"
    b"Retry-After: 0\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
)
PROBLEM = (
    b'{"type":"urn:kshot:problem:server-full","title":"Server full","status":503,"detail":"Full.",'
    b'"instance":"1","code":"server-full","retryable":true}'
)
ANSWERED, CUT, LOST, BROKEN = "busy", "cut", "lost", "broken"


class Proxy(socketserver.ThreadingTCPServer):
    """Forwards each connection's one request.

    Args:
        url: Of the service.
        faults: What becomes of the first connections: `busy` answers 503, `cut` closes before the
            service has the request, `lost` lets the service answer and loses the answer, `broken`
            closes after the first event.
    """

    daemon_threads = True

    def __init__(self, url: str, faults: Sequence[str]) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        parsed = urlsplit(url)
        self.target = (str(parsed.hostname), int(parsed.port or 80))
        self.faults = list(faults)
        self.requests: list[bytes] = []  # as they came, with their bodies

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def heads(self, name: str) -> list[str]:
        """Give a header of each request; an empty string where it lacks it."""
        found = []
        for request in self.requests:
            lines = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
            headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines)}
            found.append(headers.get(name, ""))
        return found


class _Connection(socketserver.BaseRequestHandler):
    server: Proxy

    def handle(self) -> None:
        request = whole_request(self.request)
        if not request:
            return
        self.server.requests.append(request)
        fault = self.server.faults.pop(0) if self.server.faults else ""
        if fault == CUT:
            return
        if fault == ANSWERED:
            self.request.sendall(BUSY % (len(PROBLEM), PROBLEM))
            return
        head, _, body = request.partition(b"\r\n\r\n")
        with socket.create_connection(self.server.target) as to:
            to.sendall(head + b"\r\nConnection: close\r\n\r\n" + body)
            while piece := to.recv(2**16):
                if fault != LOST:
                    self.request.sendall(piece)
                if fault == BROKEN and b"data:" in piece:
                    return


def whole_request(connection: socket.socket) -> bytes:
    """Read one request, whose length its head tells."""
    read = b""
    while b"\r\n\r\n" not in read:
        piece = connection.recv(2**16)
        if not piece:
            return b""
        read += piece
    head, _, body = read.partition(b"\r\n\r\n")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    left = int(lengths[0].split(b":")[1]) - len(body) if lengths else 0
    while left > 0:
        piece = connection.recv(min(left, 2**16))
        if not piece:
            return b""
        read += piece
        left -= len(piece)
    return read


@contextmanager
def faulty(url: str, *faults: str) -> Iterator[Proxy]:
    """Run a proxy in a thread."""
    with Proxy(url, faults) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()
