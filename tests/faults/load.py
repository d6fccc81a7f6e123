"""Clients that ask one thing again and again while a test does something to the service."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

LONGEST_S = 60.0  # for a state that a test waits for, on a busy machine


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request: what came of it, and when it was to be sent, was sent, and was done."""

    what: str
    intended: float
    sent: float
    done: float

    @property
    def took_s(self) -> float:
        return self.done - self.intended


@dataclass
class Load:
    """What clients were answered so far."""

    outcomes: list[Outcome] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)

    def counts(self, since: float = 0.0, until: float = float("inf")) -> Counter[str]:
        """Count the outcomes of requests that were sent between two moments."""
        return Counter(one.what for one in self.between(since, until))

    def between(self, since: float = 0.0, until: float = float("inf")) -> list[Outcome]:
        return [one for one in [*self.outcomes] if since <= one.sent < until]

    def wait(self, more: int, what: str = "") -> None:
        """Wait for further outcomes of requests that are sent from now on."""
        since = time.monotonic()

        def there() -> bool:
            counts = self.counts(since)
            return (counts[what] if what else counts.total()) >= more or bool(self.errors)

        until(there, f"{more} more {what or 'answers'}: {self.counts(since)}")


@contextmanager
def asking(ask: Callable[[int], str], clients: int = 2, rate: float = 0.0) -> Iterator[Load]:
    """Have clients ask while the block runs; at its end each gets its last answer.

    Args:
        ask: Sends one request, told which client sends it, and says what came of it.
        clients: Each a thread, which asks when its last answer has come.
        rate: Requests a second of all together, as long as they keep up; 0 does not wait.
    """
    load, done = Load(), threading.Event()

    def run(client: int) -> None:
        begun, count = time.monotonic(), 0
        while not done.is_set() and not load.errors:
            intended = begun + (count * clients + client) / rate if rate else time.monotonic()
            if done.wait(max(0.0, intended - time.monotonic())):
                return
            count, sent = count + 1, time.monotonic()
            try:
                what = ask(client)
            except BaseException as error:
                load.errors.append(error)
                return
            load.outcomes.append(Outcome(what, intended, sent, time.monotonic()))

    threads = [threading.Thread(target=run, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        done.set()
        for thread in threads:
            thread.join(LONGEST_S)
    if load.errors:
        raise load.errors[0]


def until(claim: Callable[[], bool], what: str = "", within_s: float = LONGEST_S) -> None:
    """Wait for a state."""
    late = time.monotonic() + within_s
    while not claim():
        assert time.monotonic() < late, f"Waited {within_s:g} s for {what or claim}."
        time.sleep(0.02)
