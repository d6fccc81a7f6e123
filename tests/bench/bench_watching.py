"""What keys, metrics and traces cost of the service's throughput, side by side in one run.

    python -m tests.bench.bench_watching
    python -m tests.bench.bench_watching --rounds 9 --requests 200

Three servers on one checkpoint, asked in turns: open; with a key; with a key and every request
traced to a receiver in a process of its own. Clips come as JPEG pictures in JSON. Metrics are
always counted; their figure is that of reading them once a second. The last line of stdout is JSON.
"""

import argparse
import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator

from deploy.local_service import ROOT
from tests.bench.bars import Bar, interleaved, machine, median_ratio, tell
from tests.bench.target import Target, target

BAR = 0.97
RECEIVER = """
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Posted(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
server = ThreadingHTTPServer(("127.0.0.1", 0), Posted)
print(server.server_port, flush=True)
server.serve_forever()
"""


@contextlib.contextmanager
def receiver() -> Iterator[str]:
    """Run what takes traces and forgets them; gives its URL."""
    command = [sys.executable, "-c", RECEIVER]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()


@contextlib.contextmanager
def scraped(server: Target, every_s: float = 1.0) -> Iterator[None]:
    """Read a server's metrics meanwhile, as Prometheus does."""
    ends = threading.Event()

    def read() -> None:
        while not ends.wait(every_s):
            server.client.get("/metrics").raise_for_status()

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()


def answers_s(server: Target, options: argparse.Namespace, *, watched: bool) -> float:
    """Ask a server as fast as it answers."""
    with scraped(server) if watched else contextlib.nullcontext():
        load = server.load(clients=options.clients, requests=options.requests)
    assert {sample.status for sample in load.samples} == {200}
    return load.answers_s


def main() -> None:
    """Measure, and tell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--requests", type=int, default=120, help="of each round")
    options = parser.parse_args()
    before = machine()
    with contextlib.ExitStack() as stack:
        traces = {"OTEL_EXPORTER_OTLP_ENDPOINT": stack.enter_context(receiver())}
        plain = stack.enter_context(target())
        locked = stack.enter_context(target(key=True))
        whole = stack.enter_context(target(traces, key=True))
        found = interleaved(
            options.rounds,
            {
                "open": lambda: answers_s(plain, options, watched=False),
                "key": lambda: answers_s(locked, options, watched=False),
                "metrics": lambda: answers_s(plain, options, watched=True),
                "key, metrics, traces": lambda: answers_s(whole, options, watched=True),
            },
        )
    bars = [
        Bar(f"answers a second: {name} / open", median_ratio(found[name], found["open"]), ">=", BAR)
        for name in found
        if name != "open"
    ]
    tell("watching", bars, before, answers_s=found)


if __name__ == "__main__":
    main()
