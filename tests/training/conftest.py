"""Small real data for the training tests: videos, pictures, an index, a teacher's weights."""

import os
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from training.synthetic.actions import demo_actions
from training.synthetic.rendering import render_clip, write_clip

SHARED = Path(os.environ.get("KSHOT_SHARED", Path(__file__).parents[3] / "shared"))
TEACHER = "timm:test_vit"
TORN = (1, 5)  # labels of `base_classes` with a clip that cannot be read


@pytest.fixture(scope="session")
def teacher_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of timm's smallest ViT (160 px, patch 16, width 64, 6 blocks)."""
    torch.manual_seed(5)
    vit = timm.create_model("test_vit", pretrained=False)
    for parameter in vit.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    file = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    save_file(vit.state_dict(), file)
    return file


@pytest.fixture(scope="session")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of real clips with an index.csv: 2 classes each in train and test, 1 in val."""
    folder = tmp_path_factory.mktemp("indexed")
    splits = ("train", "train", "val", "test", "test")
    rows = ["path,label,split,source_group"]
    for number, (action, split) in enumerate(zip(demo_actions(5, 0), splits, strict=True)):
        for take in range(4):
            name = f"{split}_{number}_{take}.mp4"
            write_clip(folder / name, action, 10 * number + take, fps=8, seconds=1.0, size=96)
            rows.append(f"{name},{split} action {number},{split},g{number}{take // 2}")
    (folder / "index.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of six pictures, one of them wide."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, action in enumerate(demo_actions(6, 1)):
        frame = render_clip(action, np.random.default_rng(number), 1, 96)[0]
        Image.fromarray(frame[: 60 if number == 0 else 96]).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def base_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index.csv of short clips, enough to meta-train on: 4 train, 2 val and 2 test labels.

    Two clips cannot be read, and one of them is val's.
    """
    folder = tmp_path_factory.mktemp("base_classes")
    rows = ["path,label,split,source_group"]
    splits = ["train"] * 4 + ["val"] * 2 + ["test"] * 2
    for number, (action, split) in enumerate(zip(demo_actions(8, 0), splits, strict=True)):
        for take in range(4):
            name = f"{number}_{take}.mp4"
            write_clip(folder / name, action, 10 * number + take, fps=8, seconds=1.0, size=64)
            rows.append(f"{name},{action.label},{split},{name}")
        if number in TORN:
            (folder / f"{number}_torn.mp4").write_bytes((folder / name).read_bytes()[:300])
            rows.append(f"{number}_torn.mp4,{action.label},{split},torn")
    (folder / "index.csv").write_text("\n".join(rows) + "\n")
    return folder / "index.csv"
