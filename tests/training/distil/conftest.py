"""A video teacher with random weights, and what it says of a few small sources."""

from pathlib import Path

import numpy as np
import pytest
import torch

from training.distil.targets import main
from training.distil.teacher import CLASSES, FEATURES, HIDDEN, LAYERS

LEFT_OUT = ("train action 0", "val action 2")


def random_weights(seed: int = 0) -> dict[str, np.ndarray]:
    """Random tensors with the teacher's names and kinds of shapes, of a narrow network."""
    noise = torch.Generator().manual_seed(seed)
    tensors: dict[str, np.ndarray] = {}

    def convolution(name: str, *shape: int) -> None:
        fan = float(np.prod(shape[1:]))
        weight = torch.randn(shape, generator=noise) * (2 / fan) ** 0.5
        tensors[f"{name}.weight"] = weight.numpy()
        tensors[f"{name}.bias"] = (0.1 * torch.randn(shape[0], generator=noise)).numpy()

    convolution("stem", 8, 3, 3, 3)
    widths = {0: 8, 1: 8, 2: 8, 3: 56, 4: 16}
    before = 8
    for stage, layers in LAYERS:
        for layer in range(layers):
            name, width = f"block{stage}_layer{layer}", widths[stage]
            convolution(f"{name}.expansion", 12, before, 1, 1)
            convolution(f"{name}.feature", 12, 1, 3, 3)
            if stage:
                convolution(f"{name}.feature_temporal", 12, 1, 3)
            convolution(f"{name}.projection", width, 12, 1, 1)
            tensors[f"{name}.rezero"] = np.float32(0.5)
            if before != width or layer == 0:
                convolution(f"{name}.skip", width, before, 1, 1)
            before = width
    convolution("head.project", FEATURES, before, 1, 1)
    convolution("classifier.hidden", HIDDEN, FEATURES, 1, 1)
    convolution("classifier.logits", CLASSES, HIDDEN, 1, 1)
    return tensors


@pytest.fixture(scope="session")
def video_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of such weights."""
    file = tmp_path_factory.mktemp("video_teacher") / "teacher.npz"
    np.savez(file, **random_weights())
    return file


def targets_of(teacher: Path, indexed: Path, pictures: Path, out: Path) -> list[str]:
    """The command line of small targets: 4 clips, 6 pictures, 4 synthetic actions, twice."""
    return [
        *("--video-teacher", str(teacher), "--clips", str(indexed / "index.csv")),
        *("--pictures", str(pictures), "--synthetic", "4", "--leave-out", *LEFT_OUT),
        *("--frames", "3", "--side", "32", "--draws", "2", "--out", str(out)),
    ]


@pytest.fixture(scope="session")
def targets(
    video_teacher: Path, indexed: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder of finished targets."""
    out = tmp_path_factory.mktemp("targets")
    assert main(targets_of(video_teacher, indexed, pictures, out)) == 0
    return out
