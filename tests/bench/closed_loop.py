"""Callers of an engine that each wait for their answer before they ask again.

Dimensions: Q query clips, T frames, H W pixels, C colours.
"""

import asyncio
import time
from collections.abc import Sequence
from itertools import cycle, islice

import numpy as np

from model.episode import EncodedSupport
from service.engine.engine import Engine


async def drive(
    engine: Engine,
    clips_QTHWC: np.ndarray | Sequence[np.ndarray],
    supports: Sequence[EncodedSupport],
    in_flight: int,
) -> list[float]:
    """Classify clips one by one, so many at a time; returns the seconds that each took."""
    todo = zip(clips_QTHWC, islice(cycle(supports), len(clips_QTHWC)), strict=True)
    times: list[float] = []

    async def client() -> None:
        for clip_THWC, support in todo:
            begun = time.perf_counter()
            await engine.classify([clip_THWC], support)
            times.append(time.perf_counter() - begun)

    await asyncio.gather(*(client() for _ in range(in_flight)))
    return times
