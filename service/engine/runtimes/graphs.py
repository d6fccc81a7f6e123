"""Passes as CUDA graphs: one launch for a whole pass instead of one a kernel.

Dimensions: B clips, T frames, H W pixels, C colours, L tokens, D token width.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from service.refusals import SettingsError

BUCKET_FRAMES = (8, 16, 32, 64, 128, 256)
WARM_PASSES = 3  # before a capture: libraries choose their kernels and take their workspaces

log = logging.getLogger("kshot.engine")

Pass = Callable[[Tensor], Tensor]  # does something to each clip by itself


class Captured(NamedTuple):
    """A graph with the memory that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    given: Tensor
    made: Tensor


class CapturedPass:
    """A pass captured for each bucket; a smaller batch leaves old clips in the rest of its bucket.

    Args:
        run: From clips on the device, [B, T, ...], to what is made of each.
        clip: One clip, as the pass takes it: [T, ...] of its type, wherever it is.
        device: The CUDA device.
        clips: Sizes to capture, in clips.

    Raises:
        torch.OutOfMemoryError: The largest size does not fit the device.
    """

    def __init__(self, run: Pass, clip: Tensor, device: torch.device, clips: Sequence[int]) -> None:
        self.device = device
        self._frames = len(clip)
        self._by_clips: dict[int, Captured] = {}
        pool = torch.cuda.graph_pool_handle()
        with torch.inference_mode(), torch.cuda.device(device):
            for size in sorted(clips, reverse=True):  # the largest first: the others reuse its pool
                given = torch.zeros((size, *clip.shape), dtype=clip.dtype, device=device)
                self._by_clips[size] = capture(run, given, pool)

    @property
    def buckets(self) -> tuple[int, ...]:
        """Frames of each captured pass, ascending."""
        return tuple(sorted(clips * self._frames for clips in self._by_clips))

    @torch.inference_mode()
    def __call__(self, given: Tensor) -> Tensor:
        """Run clips through the buckets that fit them."""
        with torch.cuda.device(self.device):
            parts = [self._replay(part) for part in given.split(max(self._by_clips))]
            return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _replay(self, given: Tensor) -> Tensor:
        clips = len(given)
        captured = self._by_clips[min(size for size in self._by_clips if size >= clips)]
        if given.device.type == "cpu":
            given = given.pin_memory()  # so that the upload waits for nobody
        captured.given[:clips].copy_(given, non_blocking=True)
        captured.graph.replay()
        return captured.made[:clips].clone()  # the next replay writes over it


def capture(run: Pass, given: Tensor, pool: Any) -> Captured:  # noqa: ANN401  torch's handle has a private type
    """Capture one pass."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_PASSES):
            run(given)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        made = run(given)
    return Captured(graph, given, made)


def compiled_pass(run: Pass, clip: Tensor, device: torch.device) -> Pass:
    """Compile a pass: what stands between its matrix products becomes fewer kernels.

    Args:
        run: As `CapturedPass` takes it.
        clip: Likewise.
        device: The CUDA device.

    Raises:
        SettingsError: There is nothing to compile with.
    """
    compiled: Pass = torch.compile(run)
    given = torch.zeros((2, *clip.shape), dtype=clip.dtype, device=device)
    torch._dynamo.mark_dynamic(given, 0)  # one program for all buckets
    try:
        with torch.inference_mode(), torch.cuda.device(device):
            compiled(given)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever the compiler's parts raise
        reason = str(error).strip().partition("\n")[0]
        raise SettingsError(
            f"KSHOT_COMPILE is set, but torch.compile fails here ({reason}); install triton and a "
            "C compiler, or unset it."
        ) from error
    return compiled


def bucket_clips(frames: int, batch_frames: int) -> list[int]:
    """Turn the buckets, in frames, into clips of T frames; `batch_frames` is the most."""
    most_clips = max(1, batch_frames // frames)
    fitting = {min(max(1, bucket // frames), most_clips) for bucket in BUCKET_FRAMES}
    return sorted(fitting)


def captured_or_none(
    run: Pass, clip: Tensor, device: torch.device, batch_frames: int
) -> CapturedPass | None:
    """Capture a pass, or say in the log why it runs as it comes.

    Raises:
        torch.OutOfMemoryError: The largest bucket does not fit the device.
    """
    try:
        return CapturedPass(run, clip, device, bucket_clips(len(clip), batch_frames))
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # an operation that cannot be captured
        log.warning("A pass runs without CUDA graphs: %s", error)
        return None
