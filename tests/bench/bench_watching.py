"""What keys, metrics and traces cost of the service's throughput, side by side in one run.

    python -m tests.bench.bench_watching
    python -m tests.bench.bench_watching --rounds 9 --requests 200

Three servers on one checkpoint, asked in turns: open; with a key; with a key and every request
traced to a receiver in this process. Clips come as JPEG pictures in JSON. Metrics are always
counted; their figure is that of reading them once a second. The last line of stdout is JSON.
"""

import argparse
import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from tests.bench.bars import Bar, interleaved, machine, median_ratio, tell
from tests.bench.target import Target, target
from tests.service.test_tracing import Receiver

BAR = 0.97


@contextlib.contextmanager
def receiving() -> Iterator[str]:
    """Take traces in this process, which has little else to do; gives the URL."""
    with Receiver() as receiver:
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{receiver.server_port}"
        receiver.shutdown()
        assert receiver.bodies, "no trace came"


@contextlib.contextmanager
def scraped(server: Target, every_s: float = 1.0) -> Iterator[None]:
    """Read a server's metrics meanwhile, as Prometheus does."""
    ends = threading.Event()

    def read() -> None:
        while not ends.wait(every_s):
            server.client.get("/metrics").raise_for_status()

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        try:
            yield
        finally:
            ends.set()
        reading.result()


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
        traces = {"OTEL_EXPORTER_OTLP_ENDPOINT": stack.enter_context(receiving())}
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
