"""A small member of every family of backbones is served through HTTP, from a file of weights."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants

from deploy.local_service import free_port
from model.assembly.recognizer import build_recognizer
from model.backbones.opening import towers
from model.checkpoint import save_checkpoint
from model.errors import BackboneError
from model.methods import bare_method
from service.__main__ import main
from service.container import load_model
from service.settings import Settings
from tests.model.families import (
    CLIP_LIKE,
    SIGLIP_LIKE,
    VIDEO,
    clip_weights,
    kshot_tiny_dino,
    save_published,
    save_weights,
    siglip_weights,
)
from tests.serving import classify, moving_clip, register, serving

CLIPS = {"jump": [moving_clip(1)], "wave": [moving_clip(2)]}


def clip_like(folder: Path) -> tuple[str, Path]:
    return CLIP_LIKE, clip_weights(folder)


def siglip_like(folder: Path) -> tuple[str, Path]:
    return SIGLIP_LIKE, siglip_weights(folder)


def dino_like(folder: Path) -> tuple[str, Path]:
    torch.manual_seed(0)
    dino = timm.create_model(kshot_tiny_dino.__name__, pretrained=False)
    return f"timm:{kshot_tiny_dino.__name__}", save_weights(dino, folder / "dino.safetensors")


def video_like(family: str) -> Callable[[Path], tuple[str, Path]]:
    def make(folder: Path) -> tuple[str, Path]:
        save_published(family, folder)
        weights = folder / "model.safetensors"
        method = bare_method(VIDEO[family])
        made = build_recognizer(method, *towers(method.backbone, weights, frames=method.frames))
        save_checkpoint(made, folder / "saved", "")
        return str(folder / "saved"), weights

    return make


FAMILIES: dict[str, Callable[[Path], tuple[str, Path]]] = {
    "clip": clip_like,
    "siglip2": siglip_like,
    "dinov3": dino_like,
    "vjepa2": video_like("vjepa2"),
    "videomae": video_like("videomae"),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_answers_over_http(family: str, tmp_path: Path) -> None:
    checkpoint, weights = FAMILIES[family](tmp_path)
    settings = Settings(
        store=f"sqlite:{tmp_path / 'kshot.db'}",
        checkpoint=checkpoint,
        backbone_weights=weights,
        decode_workers=1,
        runtime="torch",
    )
    with serving(settings) as client:
        told = client.get("/info").json()
        task = register(client, CLIPS)
        answer = classify(client, task["id"], moving_clip(1))
    assert told["model"]["frames"] == (16 if family in VIDEO else 8)
    (result,) = answer["results"]
    has_text = result["ranking"][0]["text"] is not None
    assert has_text == (answer["text_reason"] is None)
    assert family != "clip" or has_text
    video = {ranked["label"]: ranked["video"] for ranked in result["ranking"]}
    assert max(video, key=video.__getitem__) == "jump"  # the very clip that was registered
    assert len(result["frames_s"]) == told["model"]["frames"]


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Let nobody listen where the hub should be; return the cache."""
    template = f"http://127.0.0.1:{free_port()}" + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setenv("KSHOT_CHECKPOINT", "clip")
    monkeypatch.setenv("KSHOT_MODEL_CACHE", str(tmp_path / "models"))
    monkeypatch.setenv("KSHOT_STORE", f"sqlite:{tmp_path / 'kshot.db'}")
    return tmp_path / "models"


def test_without_a_network_the_model_is_one_sentence(refused: Path) -> None:
    with pytest.raises(BackboneError) as raised:
        load_model(Settings.from_env())
    told = str(raised.value)
    assert "open_clip_model.safetensors of timm/vit_base_patch16_clip_224.openai" in told
    assert str(refused) in told
    assert "KSHOT_BACKBONE_WEIGHTS" in told


@pytest.fixture
def own_log(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a service log to what a test reads, and nobody after it: that is closed then."""
    root = logging.getLogger()
    level = root.level
    monkeypatch.setattr(root, "handlers", [])
    yield
    root.setLevel(level)


@pytest.mark.usefixtures("refused", "own_log")
def test_without_a_network_the_service_ends_with_that_sentence(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["service"])
    assert main() == 2
    logged = capfd.readouterr().err
    assert "KSHOT_BACKBONE_WEIGHTS" in logged.splitlines()[-1]
    assert "Traceback" not in logged
