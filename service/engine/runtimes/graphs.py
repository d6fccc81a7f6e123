"""The trunk as CUDA graphs: one launch for a whole pass instead of one a kernel.

Dimensions: B clips, T frames, H W pixels, C colours, L tokens, D token width.
"""

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from service.refusals import SettingsError

BUCKET_FRAMES = (8, 16, 32, 64, 128, 256)
WARM_PASSES = 3  # before a capture: libraries choose their kernels and take their workspaces

log = logging.getLogger("kshot.engine")

Trunk = Callable[[Tensor], Tensor]


class Captured(NamedTuple):
    """A graph with the memory that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    frames_BTHWC: Tensor
    tokens_BTLD: Tensor


class CapturedTrunk:
    """A trunk captured for each bucket; a smaller batch leaves old clips in the rest of its bucket.

    Args:
        trunk: frames_BTHWC, uint8 on the device, to tokens_BTLD; compiled or not.
        clip: Shape of one clip, (T, H, W, C).
        device: The CUDA device.
        clips: Sizes to capture, in clips.

    Raises:
        torch.OutOfMemoryError: The largest size does not fit the device.
    """

    def __init__(
        self, trunk: Trunk, clip: tuple[int, int, int, int], device: torch.device, clips: list[int]
    ) -> None:
        self.device = device
        self._frames = clip[0]
        self._by_clips: dict[int, Captured] = {}
        pool = torch.cuda.graph_pool_handle()
        with torch.inference_mode(), torch.cuda.device(device):
            for size in sorted(clips, reverse=True):  # the largest first: the others reuse its pool
                frames = torch.zeros((size, *clip), dtype=torch.uint8, device=device)
                self._by_clips[size] = capture(trunk, frames, pool)

    @property
    def buckets(self) -> tuple[int, ...]:
        """Frames of each captured pass, ascending."""
        return tuple(sorted(clips * self._frames for clips in self._by_clips))

    @torch.inference_mode()
    def __call__(self, frames_BTHWC: Tensor) -> Tensor:
        """Run clips through the buckets that fit them; returns tokens_BTLD."""
        with torch.cuda.device(self.device):
            parts = [self._replay(part) for part in frames_BTHWC.split(max(self._by_clips))]
            return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _replay(self, frames_BTHWC: Tensor) -> Tensor:
        clips = len(frames_BTHWC)
        captured = self._by_clips[min(size for size in self._by_clips if size >= clips)]
        if frames_BTHWC.device.type == "cpu":
            frames_BTHWC = frames_BTHWC.pin_memory()  # so that the upload waits for nobody
        captured.frames_BTHWC[:clips].copy_(frames_BTHWC, non_blocking=True)
        captured.graph.replay()
        return captured.tokens_BTLD[:clips].clone()  # the next replay writes over it


def capture(trunk: Trunk, frames_BTHWC: Tensor, pool: Any) -> Captured:  # noqa: ANN401  torch's handle has a private type
    """Capture one pass."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_PASSES):
            trunk(frames_BTHWC)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        tokens_BTLD = trunk(frames_BTHWC)
    return Captured(graph, frames_BTHWC, tokens_BTLD)


def compiled_trunk(trunk: Trunk, clip: tuple[int, int, int, int], device: torch.device) -> Trunk:
    """Compile a trunk: what stands between its matrix products becomes fewer kernels.

    Args:
        trunk: frames_BTHWC, uint8 on the device, to tokens_BTLD.
        clip: Shape of one clip, (T, H, W, C).
        device: The CUDA device.

    Raises:
        SettingsError: There is nothing to compile with.
    """
    compiled: Trunk = torch.compile(trunk)
    frames_BTHWC = torch.zeros((2, *clip), dtype=torch.uint8, device=device)
    torch._dynamo.mark_dynamic(frames_BTHWC, 0)  # one program for all buckets
    try:
        with torch.inference_mode(), torch.cuda.device(device):
            compiled(frames_BTHWC)
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
    trunk: Trunk, clip: tuple[int, int, int, int], device: torch.device, batch_frames: int
) -> CapturedTrunk | None:
    """Capture a trunk, or say in the log why it runs as it comes.

    Raises:
        torch.OutOfMemoryError: The largest bucket does not fit the device.
    """
    try:
        return CapturedTrunk(trunk, clip, device, bucket_clips(clip[0], batch_frames))
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # an operation that cannot be captured
        log.warning("The trunk runs without CUDA graphs: %s", error)
        return None
