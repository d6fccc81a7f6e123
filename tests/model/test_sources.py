"""Names of models: the short ones, what they stand for, and one sentence for every other."""

import io
import logging
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from model.assembly.recognizer import build_recognizer
from model.backbones.opening import hub_files, towers
from model.backbones.sources import ALIASES, HubFile, backbone_of
from model.checkpoint import load_recognizer, save_checkpoint
from model.config.blocks import TaskConfig
from model.config.method import METHOD_JSON, MethodConfig
from model.config.towers import OpenClipConfig, TimmConfig
from model.convert_weights.__main__ import main as convert_weights
from model.errors import BackboneError, CheckpointError
from tests.model.families import CLIP_LIKE, clip_weights

VIT = "test_vit"
IMAGE_MILLIONS = {
    "clip": 86, "clip-large": 304, "siglip2": 93, "dinov3": 86, "vjepa2": 304, "videomae": 86,
}  # fmt: skip
CLIP = "timm/vit_base_patch16_clip_224.openai"


@pytest.mark.parametrize("alias", ALIASES)
def test_every_alias_names_weights_and_a_network_of_its_library(alias: str) -> None:
    config = backbone_of(alias, None)
    weights, *_ = hub_files(config)
    assert weights.name.endswith(".safetensors")
    with torch.device("meta"):
        image, _ = towers(config)
    assert round(sum(p.numel() for p in image.model.parameters()) / 1e6) == IMAGE_MILLIONS[alias]


def test_the_hub_files_of_clip_and_siglip2_are_those_of_the_libraries() -> None:
    assert hub_files(backbone_of("clip", None)) == (HubFile(CLIP, "open_clip_model.safetensors"),)
    assert [file.name for file in hub_files(backbone_of("siglip2", None))] == [
        "open_clip_model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


@pytest.mark.parametrize("name", ["ViT-B-16-SigLIP2", "ViT-SO400M-14-SigLIP-384"])
def test_a_tokenizer_lies_beside_the_weights_that_it_is_for(name: str) -> None:
    files = hub_files(OpenClipConfig(name=name, pretrained="webli"))
    assert {file.path(Path()).parent for file in files} == {Path("timm", name)}


def test_an_unknown_name_gets_the_list() -> None:
    with pytest.raises(CheckpointError) as raised:
        load_recognizer("clipp")
    for alias in ("compact", *ALIASES):
        assert f"`{alias}`" in str(raised.value)
    assert "'clipp'" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("open_clip:ViT-B-16@opanai", r"no weights 'opanai' of 'ViT-B-16'; choose of openai, "),
        ("open_clip:ViT-B-61@openai", r"open_clip has no model 'ViT-B-61'"),
        ("timm:vit_tiny_patch61_224", r"timm has no weights of 'vit_tiny_patch61_224'"),
        ("timm:test_vit_relposs", r"timm has no weights of 'test_vit_relposs'"),
    ],
)
def test_an_unknown_name_of_a_library_is_one_sentence(source: str, told: str) -> None:
    with pytest.raises(BackboneError, match=told) as raised:
        load_recognizer(source)
    assert "\n" not in str(raised.value)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    file = tmp_path / "vit-of-mine.safetensors"
    save_file(timm.create_model(VIT, pretrained=False).state_dict(), file)
    return file


def npz(arrays: dict[str, np.ndarray]) -> bytes:
    written = io.BytesIO()
    np.savez(written, **arrays)
    return written.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        npz({"weight": np.zeros(1000)})[:-100],
        npz({"weight": np.arange(9.0)}).replace(np.float64(8).tobytes(), np.float64(7).tobytes()),
        npz({"weight": np.array(["text"])}),
        b"",
    ],
    ids=["torn", "damaged", "text", "empty"],
)
def test_an_npz_that_cannot_be_read_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "vit.npz"
    file.write_bytes(content)
    with pytest.raises(BackboneError, match=r"vit\.npz cannot be read as safetensors or npz"):
        load_recognizer(f"timm:{VIT}", weights=file)


@pytest.fixture
def trained(tmp_path: Path, weights: Path) -> Path:
    """Make a folder of adapters over a backbone whose weights came from a file."""
    bare = load_recognizer(f"timm:{VIT}", weights=weights)
    method = MethodConfig(backbone=bare.config.backbone, visual=TaskConfig(blocks=1))
    save_checkpoint(build_recognizer(method, bare.video.tower, None), tmp_path / "trained", "")
    return tmp_path / "trained"


def test_method_json_names_the_weights_file(trained: Path, weights: Path) -> None:
    method = METHOD_JSON.validate_json((trained / "method.json").read_bytes())
    assert isinstance(method.backbone, TimmConfig)
    assert method.backbone.file == weights.name


def test_a_folder_without_its_backbones_file_says_which_and_how(trained: Path) -> None:
    told = set()
    for _ in range(2):
        with pytest.raises(CheckpointError) as raised:
            load_recognizer(str(trained))
        told.add(str(raised.value))
    (sentence,) = told
    assert "'vit-of-mine.safetensors'" in sentence
    assert "KSHOT_BACKBONE_WEIGHTS" in sentence


def test_the_name_of_a_file_does_not_change_what_a_bare_backbone_is(weights: Path) -> None:
    first = load_recognizer(f"timm:{VIT}", weights=weights).fingerprint
    renamed = weights.rename(weights.with_name("renamed.safetensors"))
    assert load_recognizer(f"timm:{VIT}", weights=renamed).fingerprint == first


def test_no_warning_says_that_there_are_no_weights(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert load_recognizer(CLIP_LIKE, weights=clip_weights(tmp_path)).has_text
    assert not caplog.messages


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".pth"])
def test_a_pickle_gets_the_command_that_converts_it(
    tmp_path: Path, weights: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pickle = tmp_path / f"vit{suffix}"
    torch.manual_seed(0)
    state = timm.create_model(VIT, pretrained=False).state_dict()
    torch.save({"state_dict": {f"module.{name}": t for name, t in state.items()}}, pickle)
    with pytest.raises(BackboneError) as raised:
        load_recognizer(f"timm:{VIT}", weights=pickle)
    asked = str(raised.value).split("`")[1].split()
    assert asked[:3] == ["python", "-m", "model.convert_weights"]
    assert convert_weights(asked[3:]) == 0
    assert str(len(state)) in capsys.readouterr().out
    converted = load_recognizer(f"timm:{VIT}", weights=pickle.with_suffix(".safetensors"))
    assert converted.fingerprint == load_recognizer(f"timm:{VIT}", weights=weights).fingerprint


def test_a_pickle_that_runs_code_is_not_converted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "touched",)

    torch.save({"state_dict": Evil()}, tmp_path / "evil.pt")
    assert convert_weights([str(tmp_path / "evil.pt"), str(tmp_path / "out.safetensors")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be read as weights alone" in line
    assert line.isprintable()
    assert not (tmp_path / "touched").exists()
    assert not (tmp_path / "out.safetensors").exists()


def test_a_pickle_that_is_not_there_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert_weights([str(tmp_path / "no.pt"), str(tmp_path / "out.safetensors")]) == 2
    assert "no.pt cannot be read (No such file or directory)" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"junk", b""])
def test_files_that_are_no_weights_are_not_converted(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.tar").write_bytes(content)
    assert convert_weights([str(tmp_path / "model.tar"), str(tmp_path / "out.safetensors")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "model.tar cannot be read as weights alone" in line
