"""Parameter counts of the papers, presets, frozen towers against their libraries."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer

from model.assembly.recognizer import build_recognizer
from model.backbones.clip import open_clip_towers, split_clip
from model.backbones.opening import check_file_is_told, hub_files, towers
from model.backbones.sources import backbone_of
from model.backbones.views.clip import ClipImageTower, ClipTextTower
from model.backbones.views.timm import TimmImageTower
from model.backbones.words import WordTokenizer
from model.checkpoint import load_recognizer
from model.config.blocks import OrderConfig, TaskConfig
from model.config.method import METHOD_JSON, MethodConfig
from model.config.towers import OpenClipConfig
from model.encoder import TextEncoder, VideoEncoder
from model.errors import BackboneError, KshotError, MethodError
from model.methods import METHODS
from model.views import Alone
from tests.episodes import score_episode
from tests.model.tiny import clips, tiny_method, tiny_recognizer

VIT_B = OpenClipConfig(name="ViT-B-16-quickgelu")


@pytest.fixture(scope="module")
def vit_b() -> tuple[ClipImageTower, ClipTextTower]:
    return meta_towers(VIT_B.name)


def meta_towers(name: str) -> tuple[ClipImageTower, ClipTextTower]:
    with torch.device("meta"):  # shapes alone, no memory
        return split_clip(open_clip.CLIP(**open_clip.get_model_config(name)), WordTokenizer([], 3))


def trainable(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


@pytest.mark.parametrize(("blocks", "want"), [(2, 2_373_120), (6, 7_107_072), (12, 14_208_000)])
def test_task_adapters_have_the_papers_size(
    vit_b: tuple[ClipImageTower, ClipTextTower], blocks: int, want: int
) -> None:
    method = MethodConfig(backbone=VIT_B, visual=TaskConfig(blocks=blocks))
    recognizer = build_recognizer(method, *vit_b)
    assert trainable(recognizer.video) == want
    assert trainable(recognizer) == want


def test_aim_has_the_papers_size(vit_b: tuple[ClipImageTower, ClipTextTower]) -> None:
    recognizer = build_recognizer(METHODS["aim"], *vit_b)
    assert trainable(recognizer) == 10_659_072  # adapters, embedding of frames, ln_post


@pytest.mark.parametrize(
    ("blocks", "want"), [(2, 263_424), (6, 790_272), (8, 1_053_696), (12, 1_580_544)]
)
def test_order_adapters_have_the_papers_size(
    vit_b: tuple[ClipImageTower, ClipTextTower], blocks: int, want: int
) -> None:
    method = MethodConfig(backbone=VIT_B, text=OrderConfig(blocks=blocks))
    recognizer = build_recognizer(method, *vit_b)
    assert recognizer.text is not None
    assert trainable(recognizer.text) == want
    assert trainable(recognizer) == want


def test_scene_and_temporal_presets_adapt_the_papers_blocks() -> None:
    placed = {
        name: (METHODS[name].visual.blocks, METHODS[name].text.blocks)
        for name in ("task_adapter_pp", "task_adapter_pp_temporal")
    }
    assert placed == {"task_adapter_pp": (2, 8), "task_adapter_pp_temporal": (6, 2)}


def random_vit() -> VisionTransformer:
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=0).eval()


@torch.inference_mode()
def test_timm_tower_computes_what_timm_computes() -> None:
    vit = random_vit()
    encoder = VideoEncoder(
        TimmImageTower(vit, (0.5,) * 3, (0.5,) * 3),
        [],
        frames=4,
    )
    pixels_BTCHW = torch.randn(2, 4, 3, 224, 224)
    features = encoder(encoder.trunk_of_pixels(pixels_BTCHW), Alone())
    want = vit(pixels_BTCHW.flatten(0, 1)).unflatten(0, (2, 4))
    torch.testing.assert_close(features, want, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_clip_towers_compute_what_open_clip_computes() -> None:
    torch.manual_seed(0)
    clip: Any = open_clip.create_model("ViT-B-32-quickgelu", precision="fp32").eval()
    ids = open_clip.get_tokenizer("ViT-B-32-quickgelu")(["a jump", "two waves of a hand", "sit"])
    pixels = torch.randn(4, 3, 224, 224)
    want_image, want_text = clip.encode_image(pixels), clip.encode_text(ids)
    image = ClipImageTower(clip.visual, (0.5,) * 3, (0.5,) * 3)
    encoder = VideoEncoder(image, [], frames=4)
    got = encoder(encoder.trunk_of_pixels(pixels[None]), Alone())
    torch.testing.assert_close(got[0], want_image, atol=1e-5, rtol=1e-4)
    del clip.visual
    text = TextEncoder(ClipTextTower(clip, WordTokenizer([], 3)), [])
    torch.testing.assert_close(text.stages(ids[None])[0], want_text, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_trunk_normalises_pixels_as_the_backbone_was_trained() -> None:
    recognizer = tiny_recognizer("frozen")
    frames_BTHWC = clips(1)
    pixels = (frames_BTHWC.permute(0, 1, 4, 2, 3) / 255 - 0.5) / 0.5
    torch.testing.assert_close(
        recognizer.trunk(frames_BTHWC), recognizer.video.trunk_of_pixels(pixels)
    )


@pytest.mark.parametrize(
    ("name", "tag"), [("ViT-B-32", "openai"), ("ViT-B-16", "dfn2b"), ("ViT-L-14", "metaclip_400m")]
)
@pytest.mark.parametrize("asked", [hub_files, towers])
def test_weights_that_need_quick_gelu_are_refused_without_it(
    name: str, tag: str, asked: Callable[[OpenClipConfig], object]
) -> None:
    with pytest.raises(BackboneError, match=f"{tag} of {name!r} need QuickGELU.*{name}-quickgelu"):
        asked(OpenClipConfig(name=name, pretrained=tag))


@pytest.mark.parametrize("source", ["open_clip:ViT-B-32", "open_clip:ViT-B-32@mine"])
def test_a_file_whose_activation_nothing_tells_is_asked_about(source: str, tmp_path: Path) -> None:
    file = tmp_path / "downloaded-from-openai.safetensors"
    remedy = "open_clip:ViT-B-32@TAG.*openai.*open_clip:ViT-B-32-quickgelu"
    with pytest.raises(BackboneError, match=remedy):
        load_recognizer(source, weights=file)


@pytest.mark.parametrize(
    "source", ["open_clip:ViT-B-32-quickgelu", "open_clip:ViT-B-32@laion2b_s34b_b79k", "timm:any"]
)
def test_a_file_whose_activation_is_told_is_opened(source: str, tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    check_file_is_told(backbone_of(source, file))


def test_clips_that_are_no_plain_vit_are_refused() -> None:
    with pytest.raises(BackboneError, match="ModifiedResNet is no ViT"):
        meta_towers("RN50")


def test_unknown_backbones_are_refused() -> None:
    with pytest.raises(BackboneError, match="no-such-model"):
        open_clip_towers(OpenClipConfig(name="no-such-model"))


@pytest.mark.parametrize("blocks", [0, 9])
def test_more_adapted_blocks_than_the_tower_has_are_refused(blocks: int) -> None:
    with pytest.raises(MethodError, match="choose 1 to 3"):
        tiny_recognizer(visual=TaskConfig(blocks=blocks))


def test_three_frames_are_too_few() -> None:
    with pytest.raises(MethodError, match="frames is 3"):
        tiny_recognizer(frames=3)


def test_only_adapters_receive_gradients() -> None:
    recognizer = tiny_recognizer()
    tokens = recognizer.trunk(clips(4))
    text = recognizer.encode_text(["jump", "wave"], [("a jump", "goes", "ends")] * 2)
    score_episode(recognizer, tokens[:3], [0, 1, 1], tokens[3:], text).logits_QN.sum().backward()
    with_gradient = {n for n, p in recognizer.named_parameters() if p.grad is not None}
    adapters = {n for n, _ in recognizer.named_parameters() if ".adapted." in n}
    assert with_gradient == adapters | {"video.temporal_embedding"}


def test_released_initialisation_leaves_the_task_adapter_random() -> None:
    fresh = tiny_recognizer(trained=False)
    assert not fresh.trained
    released = tiny_recognizer(trained=False, visual=TaskConfig(blocks=1, zero_init=False))
    (block,) = released.video.adapted
    zero = {
        name for name in ("time", "space", "task", "joint") if getattr(block, name).is_initial()
    }
    assert zero == {"time", "space", "joint"}


@torch.inference_mode()
def test_temporal_embedding_at_the_input_reaches_every_block() -> None:
    at_input = tiny_recognizer(temporal_embedding="input")
    above = tiny_recognizer()
    tokens = [r.trunk(clips(1)) for r in (at_input, above)]
    assert not torch.allclose(tokens[0], tokens[1], atol=1e-3)


@pytest.mark.parametrize("name", METHODS)
def test_presets_survive_a_round_trip_through_json(name: str) -> None:
    assert METHOD_JSON.validate_json(METHOD_JSON.dump_json(METHODS[name])) == METHODS[name]


def test_unknown_fields_of_a_method_are_refused() -> None:
    content = METHOD_JSON.dump_json(tiny_method()).replace(b'"frames"', b'"frame_count"')
    with pytest.raises(ValueError, match="frame_count"):
        METHOD_JSON.validate_json(content)


def test_towers_of_a_compact_config_are_random_but_of_the_asked_size() -> None:
    image, text = towers(tiny_method().backbone)
    assert (image.size, image.width, len(image.blocks)) == (16, 32, 3)
    assert text is not None
    assert text.features == image.features


def test_every_error_has_its_own_code() -> None:
    def below(error: type[KshotError]) -> list[type[KshotError]]:
        return [error, *(found for child in error.__subclasses__() for found in below(child))]

    codes = [error.code for error in below(KshotError) if error.__module__ == "model.errors"]
    assert len(codes) == len(set(codes))


def test_presets_differ_from_each_other() -> None:
    assert len(set(METHODS.values())) == len(METHODS)
    assert replace(METHODS["frozen"]) == METHODS["frozen"]
