"""A batch on its way: how large it is, how cores share it, to the device and back as numbers.

Dimensions: B clips, T frames, H W pixels, C colours.
"""

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.episode import MatchScores, Scored, plain
from service.engine.runtimes.protocol import Runtime
from service.engine.work import Query

CPU = torch.device("cpu")


def lanes_of(runtime: Runtime) -> int:
    """Tell how many cores take their share of a batch each; ONNX Runtime has threads of its own."""
    alone = runtime.device.type != "cpu" or runtime.kind == "onnx"
    return 1 if alone else torch.get_num_threads()


def usual_batch_frames(device: torch.device) -> int:
    """Tell the most frames of one batch where nobody says: larger passes leave a core's caches."""
    return 256 if device.type == "cuda" else 16 * torch.get_num_threads()


def shares(count: int, lanes: int) -> list[slice]:
    """Part so many things in order among lanes, none with two more than another."""
    least, more = divmod(count, lanes)
    starts = [lane * least + min(lane, more) for lane in range(lanes + 1)]
    return [slice(*ends) for ends in itertools.pairwise(starts)]


def room_for(frames: int, buckets: Sequence[int]) -> int:
    """Tell the frames of the recorded passes that a batch goes through; its own without any."""
    if not buckets:
        return frames
    full, rest = divmod(frames, max(buckets))
    return full * max(buckets) + min((size for size in buckets if size >= rest > 0), default=0)


@dataclass(frozen=True, slots=True)
class SentBatch:
    """A batch on the device.

    Args:
        queries: The batch.
        started: When it was given to the device.
        scores: Waits until the device is done with it.
    """

    queries: list[Query]
    started: float
    scores: Callable[[], list[MatchScores]]


class Staging:
    """Puts the clips of a batch side by side, for a CUDA device in page-locked memory.

    A device reads page-locked memory by itself. Its buffers are used in turn: one is filled anew
    when its last batch has been read, which the device thread sees to.

    Args:
        pinned: Whether to use page-locked buffers.
        buffers: How many batches may be on the device at once.
    """

    def __init__(self, *, pinned: bool, buffers: int = 1) -> None:
        self.pinned = pinned
        self._buffers_BTHWC = deque([torch.empty(0, dtype=torch.uint8)] * buffers)

    def fill(self, clips: Sequence[np.ndarray]) -> Tensor:
        """Copy clips side by side.

        Args:
            clips: frames_THWC, uint8, all of one shape.

        Returns:
            frames_BTHWC; page-locked, it is good for as many calls as there are buffers.

        Raises:
            ValueError: Clips of several shapes.
        """
        if not self.pinned:  # kept memory is no faster here (tests/bench/figures/passes.md)
            return torch.from_numpy(np.stack(clips))
        shape = clips[0].shape
        buffer_BTHWC = self._buffers_BTHWC.popleft()
        if buffer_BTHWC.shape[1:] != shape or len(buffer_BTHWC) < len(clips):
            buffer_BTHWC = torch.empty((len(clips), *shape), dtype=torch.uint8, pin_memory=True)
        self._buffers_BTHWC.append(buffer_BTHWC)
        frames_BTHWC = buffer_BTHWC[: len(clips)]
        # By torch's threads: on a GPU's host a copy is most of what is left to do.
        for row_THWC, clip_THWC in zip(frames_BTHWC, clips, strict=True):
            row_THWC.copy_(torch.from_numpy(clip_THWC))
        return frames_BTHWC


def landing(scored: Sequence[Scored], device: torch.device) -> Callable[[], list[MatchScores]]:
    """Start to copy scores to the machine's memory.

    Returns:
        A call that waits until they are there and returns them as numbers.
    """
    if device.type != "cuda":
        return lambda: plain(scored)
    copies = [group.to(CPU, non_blocking=True) for group in scored]
    event = torch.cuda.Event(blocking=True)  # spinning would take a core from the decoders
    event.record(torch.cuda.current_stream(device))

    def landed() -> list[MatchScores]:
        event.synchronize()
        return plain(copies)

    return landed
