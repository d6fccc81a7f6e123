"""Keeps the decoders of a running service from decoding for as long as a test wants.

Headers are still read: only clips that were to be decoded wait.
"""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from model.media.sampling import Clip
from service.decoding.pool import ClipRequest, DecodePool
from service.decoding.turns import WorkClass


class Gate:
    """Lets clips through one by one, or answers them with an error."""

    def __init__(self) -> None:
        self.asked = 0
        self.error: Exception | None = None
        self._places = threading.Semaphore(0)

    def let(self, clips: int) -> None:
        """Let some more clips be decoded."""
        self._places.release(clips)

    async def passed(self) -> None:
        """Wait for a place."""
        self.asked += 1
        while self.error is not None or not self._places.acquire(blocking=False):
            if self.error is not None:
                raise self.error
            await asyncio.sleep(0.005)


@contextmanager
def decoding_held(pool: DecodePool) -> Iterator[Gate]:
    """Hold every clip that is to be decoded until the gate lets it, or the context ends."""
    gate, decode = Gate(), pool.decode

    async def gated(clip: ClipRequest, work: WorkClass = "classify", tenant: str = "") -> Clip:
        await gate.passed()
        return await decode(clip, work, tenant)

    pool.decode = gated  # type: ignore[method-assign]
    try:
        yield gate
    finally:
        gate.let(1000)
        pool.decode = decode  # type: ignore[method-assign]
