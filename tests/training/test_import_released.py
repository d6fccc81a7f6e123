"""Released weights become a checkpoint folder, or a sentence that says why not."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.checkpoint import load_recognizer
from model.errors import CheckpointError
from tests.model.golden import Golden
from training.import_released import main
from training.meta import released
from training.meta.released import load_released, released_tensors

GOLDEN = Path(__file__).parents[1] / "golden" / "episode_3w2s.npz"


@pytest.fixture(scope="module")
def golden() -> Golden:
    return Golden(GOLDEN)


def test_adapters_below_the_adapted_blocks_are_left_out(golden: Golden) -> None:
    recognizer = golden.recognizer("joint", "joint")
    names = released_tensors(golden.state, recognizer)
    assert {name.split(".")[2] for name in names if name.startswith("video.adapted")} == {"0", "1"}
    torch.testing.assert_close(
        names["video.adapted.0.task.up.weight"],
        golden.state["feature.transformer.resblocks.1.task_adapter.D_fc2.weight"],
    )
    assert names["video.temporal_embedding"].shape == (8, 1, 64)


def test_parallel_prefix_is_dropped(golden: Golden) -> None:
    recognizer = golden.recognizer("joint", "joint")
    wrapped = {f"module.{name}": tensor for name, tensor in golden.state.items()}
    load_released(wrapped, recognizer)


def changed(golden: Golden, name: str, tensor: Tensor | None) -> dict[str, Tensor]:
    state = dict(golden.state)
    del state[name]
    return state if tensor is None else {**state, name: tensor}


def test_another_backbone_is_refused(golden: Golden) -> None:
    name = "feature.conv1.weight"
    state = changed(golden, name, golden.state[name] + 1)
    with pytest.raises(CheckpointError, match=r"conv1\.weight .* differs"):
        load_released(state, golden.recognizer("joint", "joint"))


def test_missing_adapters_are_named(golden: Golden) -> None:
    state = changed(golden, "feature.transformer.resblocks.2.s_adapter.D_fc1.bias", None)
    with pytest.raises(CheckpointError, match=r"adapted\.1\.space\.down\.bias"):
        load_released(state, golden.recognizer("joint", "joint"))


def test_unknown_adapters_are_named(golden: Golden) -> None:
    state = {**golden.state, "feature.transformer.resblocks.0.x_adapter.D_fc1.bias": torch.zeros(1)}
    with pytest.raises(CheckpointError, match="x_adapter"):
        load_released(state, golden.recognizer("joint", "joint"))


def test_the_command_writes_a_folder_that_loads(
    golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The toy CLIP stands in for open_clip's, which no hub gives here."""
    torch.save({"state_dict": golden.state}, tmp_path / "model.tar")
    monkeypatch.setattr(released, "towers", lambda *_, **__: golden.towers())
    monkeypatch.setattr("model.checkpoint.towers", lambda *_, **__: golden.towers())
    out = tmp_path / "imported"
    weights = tmp_path / "toy.safetensors"
    asked = ["--visual-blocks", "2", "--text-blocks", "1", "--out", str(out)]
    asked += ["--backbone-weights", str(weights)]
    assert main([str(tmp_path / "model.tar"), *asked]) == 0
    loaded = load_recognizer(str(out), weights=weights)
    assert loaded.trained
    want = golden.recognizer("joint", "joint").state_dict()
    for name, tensor in loaded.state_dict().items():
        torch.testing.assert_close(tensor, want[name])


def test_the_command_exits_2_with_a_sentence(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    golden: Golden,
) -> None:
    monkeypatch.setattr(released, "towers", lambda *_, **__: golden.towers())
    asked = ["--visual-blocks", "2", "--text-blocks", "1", "--out", str(tmp_path / "out")]
    asked += ["--backbone-weights", "toy.safetensors"]
    assert main([str(tmp_path / "absent.tar"), *asked]) == 2
    assert "absent.tar cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
