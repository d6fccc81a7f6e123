"""ResNets as backbones, and parts that read the maps of a tower's levels."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

from model.adapters.aim import ALL
from model.assembly.recognizer import build_recognizer
from model.backbones.maps.levels import level_places
from model.backbones.maps.resnet import ResNetTower
from model.backbones.opening import hub_files, towers
from model.backbones.timm import timm_tower
from model.checkpoint import load_recognizer, save_checkpoint
from model.config.blocks import AimConfig
from model.config.method import MethodConfig
from model.config.towers import TimmConfig
from model.encoder import VideoEncoder
from model.errors import BackboneError, MethodError
from model.recognizer import Recognizer
from model.views import Alone
from tests.model.families import save_weights
from tests.model.tiny import clips, tiny_recognizer

TINY = TimmConfig(name="test_resnet", pretrained=False)
FIFTY = TimmConfig(name="resnet50.tv_in1k")


def resnet_method(**changes: object) -> MethodConfig:
    return MethodConfig(backbone=TINY, frames=2, fusion="video", **changes)


@pytest.fixture(scope="module")
def tower() -> ResNetTower:
    torch.manual_seed(0)
    made = timm_tower(TINY)
    assert isinstance(made, ResNetTower)
    return made


class LastChannels(nn.Module):
    """A foreign part that reads levels: their means over places, side by side."""

    transductive = False

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.reads_levels, self.features = len(widths), sum(widths)
        self.seen: list[tuple[int, ...]] = []

    def is_initial(self) -> bool:
        return False

    def forward(self, maps: list[Tensor]) -> Tensor:
        self.seen = [tuple(one.shape) for one in maps]
        return torch.cat([one.mean(dim=(-2, -1)) for one in maps], dim=-1)


def reading(tower: ResNetTower, levels: int) -> VideoEncoder:
    part = LastChannels(tower.level_widths[-levels:])
    return VideoEncoder(tower, [], frames=2, temporal=part)


@torch.inference_mode()
def test_a_resnet_computes_what_timm_computes(tower: ResNetTower) -> None:
    encoder = VideoEncoder(tower, [], frames=2)
    pixels = torch.randn(2, 2, 3, 160, 160)
    tokens = encoder.trunk_of_pixels(pixels)
    assert tokens.shape == (2, *encoder.token_shape())
    want = tower.model(pixels.flatten(0, 1)).unflatten(0, (2, 2))
    torch.testing.assert_close(encoder(tokens, Alone()), want, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("levels", [1, 4])
def test_levels_of_a_resnet_are_the_maps_of_its_stages(tower: ResNetTower, levels: int) -> None:
    encoder = reading(tower, levels)
    pixels = torch.randn(1, 2, 3, 160, 160)
    tokens = encoder.trunk_of_pixels(pixels)
    assert len(encoder.plain_blocks) == 4 - levels
    assert tokens.shape == (1, *encoder.token_shape())
    features = encoder(tokens, Alone())
    maps = tower.model.forward_intermediates(pixels[0], indices=4, intermediates_only=True)
    maps = maps[-levels:]
    assert encoder.temporal is not None
    assert encoder.temporal.seen == [(1, 2, *one.shape[1:]) for one in maps]
    want = torch.cat([one.mean(dim=(-2, -1)) for one in maps], dim=-1)
    torch.testing.assert_close(features[0], want, atol=1e-5, rtol=1e-4)
    assert encoder.features == features.shape[-1]


@torch.inference_mode()
@pytest.mark.parametrize("preset", ["frozen", "aim"])
def test_levels_of_a_vit_are_hidden_states_of_a_quarter_of_its_blocks_each(preset: str) -> None:
    """Adapted blocks give their levels too."""
    recognizer = tiny_recognizer(preset)
    tower, adapted = recognizer.video.tower, [*recognizer.video.adapted]
    assert tuple(tower.levels) == level_places(3) == (1, 2, 3, 3)
    for block in adapted:
        block.reads = ALL
    part = LastChannels(tower.level_widths)
    encoder = VideoEncoder(tower, adapted, frames=8, temporal=part)
    plain = VideoEncoder(tower, adapted, frames=8)
    if adapted:
        encoder.temporal_embedding = plain.temporal_embedding = recognizer.video.temporal_embedding
    tokens, at_end = encoder.trunk(clips(2)), plain.trunk(clips(2))
    features = encoder(tokens, Alone())
    assert part.seen == [(2, 8, 32, 2, 2)] * 4
    for place, block in enumerate(adapted):
        at_end = block(at_end + plain.temporal_embedding * (not place), Alone().at(place))
    torch.testing.assert_close(features[..., -32:], at_end[:, :, 1:].mean(dim=2))


def test_twelve_blocks_have_levels_at_every_third() -> None:
    assert level_places(12) == (3, 6, 9, 12)


@torch.inference_mode()
def test_a_resnet_is_a_method_like_any_other(tmp_path: Path) -> None:
    torch.manual_seed(1)
    weights = save_weights(timm.create_model("test_resnet"), tmp_path / "resnet.safetensors")
    recognizer = load_recognizer("timm:test_resnet", weights=weights)
    assert not recognizer.trained
    frames = clips(3, size=160)
    task = recognizer.encode_support(recognizer.trunk(frames[:2]), [0, 1], None)
    query = recognizer.encode_query(recognizer.trunk(frames[2:]), [task])
    (found,) = recognizer.match(query, [task])
    assert found.video_N[0] != found.video_N[1]


@torch.inference_mode()
def test_a_tuned_resnet_keeps_the_statistics_of_its_batch_norms(tmp_path: Path) -> None:
    recognizer = build_recognizer(resnet_method(tune="all"), *towers(TINY), name="tuned")
    moved = recognizer.video.tower.model.bn1.running_mean.add_(1)
    save_checkpoint(recognizer, tmp_path, "card")
    again = load_recognizer(str(tmp_path)).video.tower.model.bn1.running_mean
    assert torch.equal(again, moved)


def test_adapters_that_wrap_attention_are_refused_on_a_resnet() -> None:
    with pytest.raises(MethodError, match="'aim' adapters wrap attention, and a ResNet has none"):
        build_recognizer(resnet_method(visual=AimConfig(blocks=1)), *towers(TINY))


def test_weights_of_another_resnet_are_refused(tmp_path: Path) -> None:
    weights = save_weights(timm.create_model("test_resnet"), tmp_path / "resnet.safetensors")
    with pytest.raises(BackboneError, match="does not fit the backbone"):
        timm_tower(TimmConfig(name="resnet10t", pretrained=False), weights)


def test_a_resnet_50_is_torchvisions() -> None:
    (file,) = hub_files(FIFTY)
    assert file.repository == "timm/resnet50.tv_in1k"
    with torch.device("meta"):
        tower = timm_tower(FIFTY)
    assert (tower.size, tower.features) == (224, 2048)
    assert tuple(tower.level_widths) == (256, 512, 1024, 2048)
    assert sum(p.numel() for p in tower.model.parameters()) == 23_508_032


def test_a_clip_that_sees_others_is_called_transductive(tower: ResNetTower) -> None:
    recognizer: Recognizer = build_recognizer(resnet_method(), tower, None)
    assert not recognizer.transductive
    encoder = reading(tower, 1)
    encoder.temporal.transductive = True  # type: ignore[union-attr]
    assert recognizer.with_encoders(encoder, None).transductive
