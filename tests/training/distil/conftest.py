"""A narrow video teacher with random weights."""

from pathlib import Path

import numpy as np
import pytest
import torch

from training.distil.teacher import CLASSES, FEATURES, HIDDEN, LAYERS


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
