"""Windows of long videos in the engine: they share their pictures, and score as clips."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from model.media.windows import WindowGrid
from model.recognizer import Recognizer
from service.engine.engine import Engine
from service.engine.runtimes.pytorch import TorchRuntime, plain_torch
from service.engine.window_work import Reel
from tests.model.test_causal import recognizer_of
from tests.model.tiny import clips, tiny_recognizer

CLASSES = [0, 0, 1, 1]
PIECES = ((0, 9), (9, 10), (10, 30))  # of pictures: the second completes no window


class Counted(TorchRuntime):
    """Notes how many pictures begin at once."""

    def __init__(self, runtime: TorchRuntime) -> None:
        super().__init__(runtime.recognizer, halves=runtime.halves)
        self.begun: list[int] = []

    def begin(self, frames_NHWC: np.ndarray | torch.Tensor) -> torch.Tensor:
        self.begun.append(len(frames_NHWC))
        return super().begin(frames_NHWC)


RUNTIMES: dict[str, Callable[[], TorchRuntime]] = {
    "frames apart": lambda: TorchRuntime(tiny_recognizer()),
    "whole clips": lambda: TorchRuntime(recognizer_of()),
    "whole clips, in traced halves": lambda: plain_torch(recognizer_of()),
}


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("kind", RUNTIMES)
async def test_windows_share_what_is_a_pictures_own_and_score_as_clips(
    kind: str, lanes: int
) -> None:
    device = Counted(RUNTIMES[kind]())
    frames, size = device.config.frames, device.size
    grid = WindowGrid.of(frames, 1.0, 0.25)
    supports, pictures = clips(4, frames=frames, size=size), stripes(PIECES[-1][1], size)
    engine = Engine(device, batch_frames=64, lanes=lanes)
    await engine.start()
    try:
        support = await engine.encode_support(supports.numpy(), CLASSES, None)
        device.begun.clear()
        reel, windows, got = Reel(support), 0, []
        for first, last in PIECES:
            complete = range(windows, windows)
            while grid.last_of(complete.stop) < last:
                complete = range(windows, complete.stop + 1)
            windows = complete.stop
            got += await engine.score_windows(
                reel,
                range(first, last),
                pictures[first:last],
                [grid.instants_of(window) for window in complete],
                grid.instants_of(windows)[0],
            )
        assert sum(device.begun) == len(pictures)
        assert min(reel.held) == grid.instants_of(windows)[0]
        assert windows > 5
        looked_at = [pictures[list(grid.instants_of(window))] for window in range(windows)]
        want = await engine.classify(looked_at, support)
    finally:
        await engine.close()
    near([each.logits_N for each in got], [each.scores.logits_N for each in want])


def near(got: Sequence[Sequence[float]], want: Sequence[Sequence[float]]) -> None:
    np.testing.assert_allclose(got, want, atol=1e-4)
    assert np.ptp(got, axis=0).max() > 1e-3, "windows differ"


def stripes(count: int, size: int) -> np.ndarray:
    """Pictures that differ."""
    return clips(count, frames=1, size=size, seed=3).numpy()[:, 0]


def test_a_recognizer_begins_and_finishes_as_its_runtime_does() -> None:
    for recognizer in (tiny_recognizer(), recognizer_of()):
        _begins_and_finishes(recognizer)


@torch.inference_mode()
def _begins_and_finishes(recognizer: Recognizer) -> None:
    frames = clips(2, frames=recognizer.config.frames, size=recognizer.size)
    begun = recognizer.begin(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
    torch.testing.assert_close(
        recognizer.finish(begun), recognizer.trunk(frames), atol=1e-5, rtol=1e-5
    )
