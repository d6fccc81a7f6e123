"""Networks that see whole clips: what their library computes, frozen, in slots and folders."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.assembly.recognizer import build_recognizer
from model.backbones.opening import towers
from model.backbones.video import transformers
from model.checkpoint import load_recognizer, save_checkpoint
from model.config.blocks import AimConfig
from model.config.matching import (
    FramePairMatcher,
    MatcherConfig,
    OtamMatcher,
    PrototypeMatcher,
    TrxMatcher,
)
from model.config.temporal import ConvolutionConfig
from model.config.towers import VideoConfig
from model.errors import BackboneError, CheckpointError, ExportError, MethodError
from model.export.writing import export
from model.methods import bare_method
from model.recognizer import Recognizer
from model.saliency import saliency
from tests.episodes import score_episode
from tests.model.families import VIDEO, save_published
from tests.model.tiny import clips

CLASSES = [0, 1, 1]
FAMILIES = sorted(VIDEO)

# The published shapes.
VIDEO_FULL: dict[str, VideoConfig] = {family: type(VIDEO[family])() for family in FAMILIES}


def recognizer_of(family: str, **changes: object) -> Recognizer:
    method = replace(bare_method(VIDEO[family]), **changes)
    torch.manual_seed(0)
    recognizer = build_recognizer(method, *towers(method.backbone, frames=method.frames))
    recognizer.fingerprint = family
    return recognizer


def tokens_of(recognizer: Recognizer, count: int = 6) -> Tensor:
    frames = recognizer.config.frames
    with torch.inference_mode():
        return recognizer.trunk(clips(count, frames=frames, size=recognizer.size))


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_clip_of_sixteen_frames_has_a_feature_for_every_two(family: str) -> None:
    recognizer = recognizer_of(family)
    assert recognizer.config.frames == 16
    tokens = tokens_of(recognizer, 2)
    assert tokens.shape[1:] == recognizer.video.token_shape() == (8, 1, 48)
    assert not recognizer.trained
    assert not recognizer.has_text


def test_an_instant_of_two_frames_tells_where_for_both(family: str) -> None:
    recognizer = recognizer_of(family).requires_grad_(False)
    support = recognizer.encode_support(tokens_of(recognizer, 3), CLASSES, None)
    shown = clips(1, frames=16, size=recognizer.size)[0]
    grid_TSS = saliency(recognizer, shown, support, 0)
    assert (len(grid_TSS), grid_TSS.min(), grid_TSS.max()) == (16, 0, 1)
    assert (grid_TSS[::2] == grid_TSS[1::2]).all()


@torch.inference_mode()
def test_published_weights_give_what_the_library_computes(family: str, tmp_path: Path) -> None:
    published = save_published(family, tmp_path)
    recognizer = load_bare(family, tmp_path)
    frames = clips(2, frames=16, size=32)
    pixels = recognizer.video.normalize(frames.permute(0, 1, 4, 2, 3).flatten(0, 1))
    pixels_BTCHW = pixels.unflatten(0, (2, 16))
    got = recognizer.video.trunk(frames)[:, :, 0]
    if family == "videomae":
        hidden = published.videomae(pixels_BTCHW).last_hidden_state
        want = published.fc_norm(hidden.unflatten(1, (8, -1)).mean(dim=2))
    else:
        hidden = published.get_vision_features(pixels_BTCHW)
        want = hidden.unflatten(1, (8, -1)).mean(dim=2)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)


def load_bare(family: str, folder: Path) -> Recognizer:
    """Load a small network as a checkpoint folder whose method.json says its shape."""
    weights = folder / "model.safetensors"
    config = replace(VIDEO[family], pretrained=False, file=weights.name)
    method = bare_method(config)
    made = build_recognizer(method, *towers(config, weights, frames=method.frames))
    save_checkpoint(made, folder / "saved", "")
    return load_recognizer(str(folder / "saved"), weights=weights)


def test_a_folder_loads_with_its_file_alone(family: str, tmp_path: Path) -> None:
    save_published(family, tmp_path)
    load_bare(family, tmp_path)
    with pytest.raises(CheckpointError, match=r"'model\.safetensors'.*KSHOT_BACKBONE_WEIGHTS"):
        load_recognizer(str(tmp_path / "saved"))
    save_published(family, tmp_path / "other", seed=1)
    with pytest.raises(CheckpointError, match="saved with backbone"):
        load_recognizer(str(tmp_path / "saved"), weights=tmp_path / "other" / "model.safetensors")


def test_a_file_of_another_network_is_refused(family: str, tmp_path: Path) -> None:
    (other,) = set(FAMILIES) - {family}
    save_published(other, tmp_path)
    with pytest.raises(BackboneError, match="does not fit the network") as raised:
        towers(VIDEO[family], tmp_path / "model.safetensors")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "matcher", [PrototypeMatcher(), FramePairMatcher(), OtamMatcher(), TrxMatcher(width=16)]
)
@torch.inference_mode()
def test_what_a_clip_scores_does_not_depend_on_its_batch(
    family: str, matcher: MatcherConfig
) -> None:
    recognizer = recognizer_of(family, matcher=matcher)
    tokens = tokens_of(recognizer)
    want = score_episode(recognizer, tokens[:3], CLASSES, tokens[3:], None).logits_QN
    task = recognizer.encode_support(tokens[:3], CLASSES, None)
    alone = tokens_of(recognizer)[3:4]
    (score,) = recognizer.match(recognizer.encode_query(alone, [task]), [task])
    torch.testing.assert_close(torch.tensor(score.logits_N), want[0], atol=1e-5, rtol=1e-5)


def test_the_order_of_frames_matters_to_it(family: str) -> None:
    recognizer = recognizer_of(family)
    frames = clips(1, frames=16, size=32)
    with torch.inference_mode():
        forwards, backwards = (recognizer.trunk(f).mean(1) for f in (frames, frames.flip(1)))
    assert not torch.allclose(forwards, backwards, atol=1e-4)


def test_what_stands_above_it_may_learn(family: str) -> None:
    recognizer = recognizer_of(family, temporal=ConvolutionConfig(), tune="adapters")
    tokens = tokens_of(recognizer).clone()
    score_episode(recognizer, tokens[:3], CLASSES, tokens[3:], None).logits_QN.sum().backward()
    learning = [name for name, p in recognizer.named_parameters() if p.grad is not None]
    assert learning
    assert all(name.startswith("video.temporal.") for name in learning)


@pytest.mark.parametrize("changes", [{"visual": AimConfig(blocks=1)}, {"tune": "all"}])
def test_it_has_no_blocks_to_adapt_and_is_not_tuned(
    family: str, changes: dict[str, object]
) -> None:
    with pytest.raises(MethodError, match=f"A {family} network sees a whole clip and stays froz"):
        recognizer_of(family, **changes)


def test_an_odd_number_of_frames_is_refused(family: str) -> None:
    with pytest.raises(MethodError, match="frames is 7; this network sees 2 frames at once"):
        recognizer_of(family, frames=7)


def test_export_is_refused_in_one_sentence(family: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="sees whole clips, and such networks are not exported"):
        export(recognizer_of(family), tmp_path)


def test_other_networks_of_the_library_are_refused() -> None:
    with pytest.raises(BackboneError, match=r"shape of transformers:some/network is not known"):
        load_recognizer("transformers:some/network")


def test_without_the_package_one_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(BackboneError, match=r"install kshot\[video\]"):
        transformers()


def test_published_shapes_are_those_of_the_library() -> None:
    library = transformers()
    for config, said in (
        (VIDEO_FULL["videomae"], library.VideoMAEConfig()),
        (VIDEO_FULL["vjepa2"], library.VJEPA2Config()),
    ):
        assert config.width == said.hidden_size
        assert config.depth == said.num_hidden_layers
        assert config.heads == said.num_attention_heads
        assert config.patch == said.patch_size
        assert config.tubelet == said.tubelet_size
        assert config.size == getattr(said, "image_size", None) or said.crop_size


def test_its_frames_never_go_apart(family: str) -> None:
    assert not recognizer_of(family).frames_apart
