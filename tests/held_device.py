"""Keeps the device thread of a running engine busy for as long as a test wants."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from service.engine.engine import Engine
from service.engine.work import Outcome, Step


@contextmanager
def device_held(engine: Engine) -> Iterator[threading.Event]:
    """Keep the device from everything else until the event is set, or the context ends."""
    held, free = threading.Event(), threading.Event()

    def run(_: int) -> Outcome:
        held.set()
        free.wait(20)
        return Outcome(None)

    loop = asyncio.new_event_loop()
    step = Step(kind="register", frames=1, done=loop.create_future(), run=run)
    engine._thread.put([step])
    assert held.wait(20)
    try:
        yield free
    finally:
        free.set()
        loop.close()
