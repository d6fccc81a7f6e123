"""Checkpoint folders load exactly or not at all."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from model.assembly.recognizer import build_recognizer
from model.backbones.opening import towers
from model.checkpoint import hash_tensors, load_recognizer, save_checkpoint
from model.config.blocks import TaskConfig
from model.config.method import METHOD_JSON, MethodConfig
from model.config.towers import TimmConfig
from model.errors import BackboneError, CheckpointError
from model.recognizer import Recognizer
from tests.model.tiny import LABELS, clips, tiny_recognizer, tiny_text

VIT = "vit_tiny_patch16_224"


def logits(recognizer: Recognizer) -> torch.Tensor:
    with torch.inference_mode():
        tokens = recognizer.trunk(clips(4))
        task = recognizer.encode_support(tokens[:3], [0, 1, 1], tiny_text(recognizer, LABELS[:2]))
        (score,) = recognizer.match(recognizer.encode_query(tokens[3:], [task]), [task])
    return torch.tensor(score.logits_N)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_checkpoint(tiny_recognizer(), tmp_path / "saved", "# Tiny\n")
    return tmp_path / "saved"


def edit_weights(folder: Path, change: dict[str, torch.Tensor | None]) -> None:
    with safe_open(folder / "weights.safetensors", framework="pt") as opened:
        metadata = opened.metadata()
    tensors = load_file(folder / "weights.safetensors")
    for name, tensor in change.items():
        if tensor is None:
            del tensors[name]
        else:
            tensors[name] = tensor
    metadata["tensors"] = hash_tensors(tensors)
    save_file(tensors, folder / "weights.safetensors", metadata)


def test_a_loaded_checkpoint_scores_as_the_saved_one(folder: Path) -> None:
    loaded = load_recognizer(str(folder))
    torch.testing.assert_close(logits(loaded), logits(tiny_recognizer()), atol=0, rtol=0)
    assert loaded.trained
    assert loaded.name == "saved"
    assert sorted(path.name for path in folder.iterdir()) == [
        "card.md",
        "method.json",
        "weights.safetensors",
    ]


def test_fingerprint_follows_weights_and_method(tmp_path: Path, folder: Path) -> None:
    again, other, method = tmp_path / "again", tmp_path / "other", tmp_path / "method"
    save_checkpoint(tiny_recognizer(), again, "another card")
    save_checkpoint(tiny_recognizer(seed=1), other, "")
    save_checkpoint(tiny_recognizer(align="temporal"), method, "")
    prints = [load_recognizer(str(f)).fingerprint for f in (folder, again, other, method)]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


def test_half_precision_halves_the_file_and_keeps_the_answer(tmp_path: Path, folder: Path) -> None:
    half = tmp_path / "half"
    save_checkpoint(tiny_recognizer(), half, "", half=True)
    sizes = [(f / "weights.safetensors").stat().st_size for f in (half, folder)]
    assert sizes[0] < 0.7 * sizes[1]
    torch.testing.assert_close(
        logits(load_recognizer(str(half))), logits(tiny_recognizer()), atol=0.3, rtol=0.05
    )


def test_a_checkpoint_of_half_precision_gives_bfloat16_the_weights_of_fp32(tmp_path: Path) -> None:
    save_checkpoint(tiny_recognizer(), tmp_path, "", half=True)
    for source in (str(tmp_path), "compact"):
        for name, weights in load_recognizer(source).video.named_parameters():
            assert torch.equal(weights.bfloat16().float(), weights), name


@pytest.mark.parametrize("missing", ["method.json", "weights.safetensors"])
def test_a_missing_file_is_named(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(CheckpointError, match=missing):
        load_recognizer(str(folder))


def test_a_missing_tensor_is_named(folder: Path) -> None:
    edit_weights(folder, {"video.adapted.0.time.up.bias": None})
    with pytest.raises(CheckpointError, match=r"lacks video\.adapted\.0\.time\.up\.bias"):
        load_recognizer(str(folder))


def test_an_extra_tensor_is_named(folder: Path) -> None:
    edit_weights(folder, {"video.extra": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"has video\.extra too much"):
        load_recognizer(str(folder))


def test_a_tensor_of_another_shape_is_named(folder: Path) -> None:
    edit_weights(folder, {"video.adapted.0.time.up.bias": torch.zeros(5)})
    with pytest.raises(CheckpointError, match=r"up\.bias has shape \(5,\)"):
        load_recognizer(str(folder))


def test_changed_values_are_noticed(folder: Path) -> None:
    file = folder / "weights.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="saved with tensors"):
        load_recognizer(str(folder))


def test_a_changed_method_is_noticed(folder: Path) -> None:
    method = json.loads((folder / "method.json").read_text())
    method["align"] = "temporal"
    (folder / "method.json").write_text(json.dumps(method))
    with pytest.raises(CheckpointError, match="saved with method"):
        load_recognizer(str(folder))


def test_an_unknown_field_of_the_method_is_named(folder: Path) -> None:
    method = json.loads((folder / "method.json").read_text())
    method["colour"] = "blue"
    (folder / "method.json").write_text(json.dumps(method))
    with pytest.raises(CheckpointError, match="colour"):
        load_recognizer(str(folder))


def test_weights_that_are_no_safetensors_are_refused(folder: Path) -> None:
    (folder / "weights.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(CheckpointError, match="no safetensors file"):
        load_recognizer(str(folder))


def vit_weights(file: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    vit = timm.create_model(VIT, pretrained=False)
    save_file({name: t.contiguous() for name, t in vit.state_dict().items()}, file)
    return file


def test_a_bare_backbone_loads_from_a_file_and_runs_untrained(tmp_path: Path) -> None:
    weights = vit_weights(tmp_path / "vit.safetensors", seed=0)
    recognizer = load_recognizer(f"timm:{VIT}", weights=weights)
    assert not recognizer.trained
    assert not recognizer.has_text
    again = load_recognizer(f"timm:{VIT}", weights=weights)
    assert again.fingerprint == recognizer.fingerprint
    other = vit_weights(tmp_path / "other.safetensors", seed=1)
    assert load_recognizer(f"timm:{VIT}", weights=other).fingerprint != recognizer.fingerprint


def test_adapters_refuse_another_backbone(tmp_path: Path) -> None:
    weights = vit_weights(tmp_path / "vit.safetensors", seed=0)
    other = vit_weights(tmp_path / "other.safetensors", seed=1)
    bare = load_recognizer(f"timm:{VIT}", weights=weights)
    method = MethodConfig(backbone=TimmConfig(name=VIT), visual=TaskConfig(blocks=1))
    save_checkpoint(build_recognizer(method, bare.video.tower, None), tmp_path / "saved", "")
    assert load_recognizer(str(tmp_path / "saved"), weights=weights).size == 224
    with pytest.raises(CheckpointError, match="saved with backbone"):
        load_recognizer(str(tmp_path / "saved"), weights=other)


def test_backbone_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    save_file({"cls_token": torch.zeros(1, 1, 192)}, tmp_path / "part.safetensors")
    with pytest.raises(BackboneError, match="does not fit"):
        load_recognizer(f"timm:{VIT}", weights=tmp_path / "part.safetensors")


@pytest.mark.parametrize("name", ["weights.npz", "weights.safetensors", "absent.safetensors"])
def test_files_that_are_no_weights_are_refused(tmp_path: Path, name: str) -> None:
    if not name.startswith("absent"):
        (tmp_path / name).write_bytes(b"not weights")
    with pytest.raises(BackboneError, match=name):
        load_recognizer(f"timm:{VIT}", weights=tmp_path / name)


def test_a_bare_clip_without_weights_is_refused() -> None:
    with pytest.raises(BackboneError, match="names no weights"):
        load_recognizer("open_clip:ViT-B-32-quickgelu")


def test_a_name_that_is_nothing_says_what_can_be_named() -> None:
    with pytest.raises(CheckpointError, match="`compact`"):
        load_recognizer("no/such/folder")


def test_saving_over_a_checkpoint_replaces_it(folder: Path) -> None:
    save_checkpoint(tiny_recognizer(seed=1), folder, "")
    torch.testing.assert_close(
        logits(load_recognizer(str(folder))), logits(tiny_recognizer(seed=1)), atol=0, rtol=0
    )


def test_method_json_is_the_config(folder: Path) -> None:
    config = METHOD_JSON.validate_json((folder / "method.json").read_bytes())
    assert config == tiny_recognizer().config
    assert replace(config) == load_recognizer(str(folder)).config
    assert towers(config.backbone)[0].size == 16
