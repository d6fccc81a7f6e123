"""A hub for tests: files over real HTTP, as the real one tells of them, with faults on demand."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0" * 40


@dataclass(slots=True)
class FakeHub:
    """What the hub holds, and what it was asked for."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)  # "owner/name/file" to content
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)  # to status and code
    cut_after: int | None = None  # bytes after which a connection breaks, once
    damaged: bool = False  # whether the content differs from its hash
    ranges: list[str | None] = field(default_factory=list)  # of each GET

    @property
    def template(self) -> str:
        """What the client makes addresses of."""
        return self.url + "/{repo_id}/resolve/{revision}/{filename}"


@contextmanager
def serving_hub() -> Iterator[FakeHub]:
    """Run a hub in a thread."""
    hub = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            hub.ranges.append(self.headers.get("Range"))
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            name = self.path.strip("/").replace("/resolve/main/", "/")
            if name in hub.refused or name not in hub.files:
                status, code = hub.refused.get(name, (404, "EntryNotFound"))
                self.send_response(status)
                self.send_header("X-Error-Code", code)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            content = hub.files[name]
            start = int((self.headers.get("Range") or "bytes=0-")[6:].split("-")[0])
            self.send_response(206 if start else 200)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(content) - start))
            if start:
                last = len(content) - 1
                self.send_header("Content-Range", f"bytes {start}-{last}/{len(content)}")
            self.end_headers()
            if not body:
                return
            if hub.damaged:
                content = bytes(len(content))
            if hub.cut_after is not None:
                cut, hub.cut_after = hub.cut_after, None
                self.wfile.write(content[start : start + cut])
                self.close_connection = True
                self.connection.close()
                return
            self.wfile.write(content[start:])

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
