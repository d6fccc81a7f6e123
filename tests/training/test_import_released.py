"""Released weights become a checkpoint folder, or a sentence that says why not."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from model.assembly.recognizer import build_recognizer
from model.checkpoint import load_recognizer
from model.errors import CheckpointError
from model.matching.stages import align, stage_scores
from model.text import prompts
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


def as_released(golden: Golden) -> dict[str, Tensor]:
    """Name tensors as the released trainer does: of its two towers it wraps the visual one."""
    return {
        f"feature.module.{name.removeprefix('feature.')}"
        if name.startswith("feature.")
        else name: t
        for name, t in golden.state.items()
    }


def test_names_of_a_wrapped_visual_tower_are_read(golden: Golden) -> None:
    plain, wrapped = (golden.recognizer("joint", "joint") for _ in range(2))
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter)
    load_released(as_released(golden), wrapped)
    wanted = plain.state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in wrapped.state_dict().items())


def test_what_the_method_has_no_place_for_is_refused(golden: Golden) -> None:
    norm = {f"ca.ln_1.{name}": torch.rand(64) for name in ("weight", "bias")}
    recognizer = golden.recognizer("joint", "joint")
    with pytest.raises(CheckpointError, match=r"ca\.ln_1\.bias.*--align-norm"):
        load_released(as_released(golden) | norm, recognizer)
    with pytest.raises(CheckpointError, match=r"head\.weight"):
        load_released(as_released(golden) | {"head.weight": torch.rand(2)}, recognizer)


def test_the_layernorm_of_the_alignment_is_imported_and_acts(golden: Golden) -> None:
    image, text = golden.towers()
    plain = golden.recognizer("joint", "joint")
    config = replace(plain.config, align_norm=True)
    normed = build_recognizer(config, image, text)
    width = image.features
    norm = {f"ca.ln_1.{name}": torch.rand(width) for name in ("weight", "bias")}
    load_released(as_released(golden) | norm, normed)
    query_QTE = torch.rand(3, 8, width)
    aligned = align(query_QTE, "joint")
    later_QUE = query_QTE[:, 1:]
    weight, bias = norm["ca.ln_1.weight"], norm["ca.ln_1.bias"]
    wanted = F.layer_norm(aligned - later_QUE, (width,), weight, bias) + later_QUE
    text_NAE = torch.rand(2, 3, width)
    _, stages_QNA = normed.text_head(query_QTE, text_NAE)
    torch.testing.assert_close(stages_QNA, stage_scores(wanted, text_NAE, "frames"))
    assert not torch.allclose(stages_QNA, plain.text_head(query_QTE, text_NAE)[1], atol=1e-3)


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
    torch.save({"epoch": 9, "state": as_released(golden)}, tmp_path / "model.tar")
    monkeypatch.setattr(released, "towers", lambda *_, **__: golden.towers())
    monkeypatch.setattr("model.checkpoint.towers", lambda *_, **__: golden.towers())
    out = tmp_path / "imported"
    weights = tmp_path / "toy.safetensors"
    asked = ["--visual-blocks", "2", "--text-blocks", "1", "--out", str(out)]
    asked += ["--backbone-weights", str(weights)]
    assert main([str(tmp_path / "model.tar"), *asked]) == 0
    loaded = load_recognizer(str(out), weights=weights)
    assert loaded.trained
    texts = prompts("brush_hair", ("It begins.",), loaded.config.prompt)
    assert texts == ("A video of action about brush_hair: It begins.",)
    assert loaded.config.squash_side(224) == 257
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
