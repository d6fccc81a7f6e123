"""How much of a registration runs at once: so little that a query beside it hardly waits for it.

Dimensions: B clips, T frames, H W pixels, C colours.
"""

import time
from collections.abc import Callable, Iterator

import numpy as np
from torch import Tensor

from service.engine.runtimes.protocol import Runtime

QUERY_PART = 0.25  # of the time of one query that it may wait for a slice
LEAST_S = 0.005  # a slice that is sooner done holds up nobody
REPEATS = 2  # of each measurement; the shorter counts


def measured_slice(runtime: Runtime, most_clips: int) -> int:
    """Return the frames of a slice, measured on the device; for its thread alone.

    Args:
        runtime: On its device.
        most_clips: No slice has more.
    """
    shape = (runtime.config.frames, runtime.size, runtime.size, 3)
    clips_BTHWC = np.zeros((most_clips, *shape), np.uint8)

    def run(frames: int) -> Tensor:
        if frames < shape[0]:
            return runtime.trunk_frames(clips_BTHWC[0, :frames])
        return runtime.trunk(clips_BTHWC[: frames // shape[0]])

    within_s = max(LEAST_S, QUERY_PART * seconds_of(lambda: run(shape[0])))
    chosen = 0
    for frames in sizes(shape[0], most_clips, apart=runtime.frames_apart):
        if chosen and seconds_of(lambda: run(frames)) > within_s:  # noqa: B023  called at once
            break
        chosen = frames
    return chosen


def sizes(of_clip: int, most_clips: int, *, apart: bool) -> Iterator[int]:
    """Yield numbers of frames that slices may have, ascending; no slice ends within another clip.

    Args:
        of_clip: Frames of a clip.
        most_clips: The most.
        apart: Whether a clip's frames may go one by one.
    """
    if apart:
        yield from (frames for frames in range(1, of_clip) if of_clip % frames == 0)
    clips = 1
    while clips <= most_clips:
        yield clips * of_clip
        clips *= 2


def seconds_of(run: Callable[[], Tensor]) -> float:
    """Measure how long the device takes."""
    times = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        run().sum().item()  # waits for the device
        times.append(time.perf_counter() - begun)
    return min(times)
