"""Passes as CUDA graphs: one launch for a whole pass instead of one a kernel.

Dimensions: B clips, T frames, H W pixels, C colours, L tokens, D token width.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

BUCKET_FRAMES = (8, 16, 32, 64, 128, 256)
WARM_PASSES = 3  # before a capture: libraries choose their kernels and take their workspaces

log = logging.getLogger("kshot.engine")

Pass = Callable[..., Tensor]  # does something to each clip by itself, one row of each tensor


class Captured(NamedTuple):
    """A graph with the memory that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    given: tuple[Tensor, ...]
    made: Tensor


class CapturedPass:
    """A pass captured for each bucket; a smaller batch leaves zeros in the rest of its bucket.

    Args:
        run: From what is given of clips, [B, ...] each, on the device, to what is made of each.
        one: What is given of one clip, by type and shape, wherever it is; first [T, ...].
        device: The CUDA device.
        clips: Sizes to capture, in clips.

    Raises:
        torch.OutOfMemoryError: The largest size does not fit the device.
    """

    def __init__(
        self, run: Pass, one: Sequence[Tensor], device: torch.device, clips: Sequence[int]
    ) -> None:
        self.device = device
        self._frames = len(one[0])
        self._by_clips: dict[int, Captured] = {}
        pool = torch.cuda.graph_pool_handle()
        with torch.inference_mode(), torch.cuda.device(device):
            for size in sorted(clips, reverse=True):  # the largest first: the others reuse its pool
                self._by_clips[size] = capture(run, zeros(size, one, device), pool)

    @property
    def buckets(self) -> tuple[int, ...]:
        """Frames of each captured pass, ascending."""
        return tuple(sorted(clips * self._frames for clips in self._by_clips))

    @torch.inference_mode()
    def __call__(self, *given: Tensor) -> Tensor:
        """Run clips through the buckets that fit them."""
        most = max(self._by_clips)
        with torch.cuda.device(self.device):
            batches = zip(*(each.split(most) for each in given), strict=True)
            parts = [self._replay(batch) for batch in batches]
            return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _replay(self, given: Sequence[Tensor]) -> Tensor:
        clips = len(given[0])
        captured = self._by_clips[min(size for size in self._by_clips if size >= clips)]
        for held, each in zip(captured.given, given, strict=True):
            if each.device.type == "cpu":
                each = each.pin_memory()  # so that the upload waits for nobody
            held[:clips].copy_(each, non_blocking=True)
            if clips < len(held):
                held[clips:].zero_()  # addresses of an earlier batch may lead nowhere by now
        captured.graph.replay()
        return captured.made[:clips].clone()  # the next replay writes over it


def zeros(size: int, one: Sequence[Tensor], device: torch.device) -> tuple[Tensor, ...]:
    """Make room for what is given of so many clips."""
    return tuple(torch.zeros((size, *each.shape), dtype=each.dtype, device=device) for each in one)


def capture(run: Pass, given: tuple[Tensor, ...], pool: Any) -> Captured:  # noqa: ANN401  torch's handle has a private type
    """Capture one pass."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_PASSES):
            run(*given)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        made = run(*given)
    return Captured(graph, given, made)


def bucket_clips(frames: int, batch_frames: int) -> list[int]:
    """Turn the buckets, in frames, into clips of T frames; `batch_frames` is the most."""
    most_clips = max(1, batch_frames // frames)
    fitting = {min(max(1, bucket // frames), most_clips) for bucket in BUCKET_FRAMES}
    return sorted(fitting)


def captured_or_none(
    run: Pass, one: Sequence[Tensor], device: torch.device, batch_frames: int
) -> CapturedPass | None:
    """Capture a pass, or say in the log why it runs as it comes.

    Raises:
        torch.OutOfMemoryError: The largest bucket does not fit the device.
    """
    try:
        return CapturedPass(run, one, device, bucket_clips(len(one[0]), batch_frames))
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # an operation that cannot be captured
        log.warning("A pass runs without CUDA graphs: %s", error)
        return None
