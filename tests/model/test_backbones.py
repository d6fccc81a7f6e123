"""Towers that pool and place otherwise than CLIP: they compute what their libraries compute, and
adapted blocks work on them."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.assembly.recognizer import build_recognizer
from model.backbones.clip import split_clip, tokenizer_of
from model.backbones.timm import timm_vit_tower
from model.backbones.tokens import read_whole
from model.backbones.words import WordTokenizer
from model.checkpoint import load_recognizer
from model.config.blocks import AimConfig, TaskConfig, TedConfig
from model.config.method import MethodConfig, QueryContext
from model.config.towers import TimmConfig
from model.encoder import TextEncoder, VideoEncoder
from model.errors import BackboneError, MethodError
from model.recognizer import Recognizer
from model.views import Alone
from tests.episodes import score_episode
from tests.model.families import (
    SIGLIP_LIKE,
    random_clip,
    siglip_weights,
    tiny_dino,
    tiny_siglip_tower,
)
from tests.model.tiny import clips

HALF = (0.5, 0.5, 0.5)
FAMILIES = {"dinov3": tiny_dino, "siglip2": tiny_siglip_tower}
CLASSES = [0, 1, 1]


def recognizer_of(family: str, *, trained: bool = False, **method: object) -> Recognizer:
    config = replace(MethodConfig(backbone=TimmConfig(name=family), frames=4), **method)
    recognizer = build_recognizer(config, timm_vit_tower(FAMILIES[family](), HALF, HALF), None)
    if trained:
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in recognizer.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.2 * torch.randn_like(parameter))
    return recognizer


def episode(recognizer: Recognizer) -> Tensor:
    return recognizer.trunk(clips(6, frames=4, size=recognizer.size))


@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_a_tower_computes_what_its_library_computes(family: str) -> None:
    vit = FAMILIES[family]()
    encoder = VideoEncoder(timm_vit_tower(vit, HALF, HALF), [], frames=2)
    pixels_BTCHW = torch.randn(2, 2, 3, encoder.tower.size, encoder.tower.size)
    want = vit(pixels_BTCHW.flatten(0, 1)).unflatten(0, (2, 2))
    got = encoder(encoder.trunk_of_pixels(pixels_BTCHW), Alone())
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_places_matter_to_a_tower_that_turns_them() -> None:
    tower = timm_vit_tower(tiny_dino(), HALF, HALF)
    tokens_BLD = tower.norm(tower.patches(torch.randn(1, 3, 64, 64)))
    block = tower.blocks[0]
    query, key, _ = block.heads(block.norm_attention(tokens_BLD))
    turned, _ = block.placed(query, key)
    front = tower.prefix_tokens
    assert front == 5
    torch.testing.assert_close(turned[:, :, :front], query[:, :, :front])
    assert not torch.allclose(turned[:, :, front:], query[:, :, front:], atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("visual", [AimConfig(blocks=2), TaskConfig(blocks=2)])
@torch.inference_mode()
def test_untrained_adapters_compute_what_the_frozen_tower_computes(
    family: str, visual: AimConfig | TaskConfig
) -> None:
    frozen = recognizer_of(family)
    adapted = recognizer_of(family, visual=visual, query_context="support")
    scores = [
        score_episode(one, tokens[:3], CLASSES, tokens[3:], None).logits_QN
        for one in (frozen, adapted)
        for tokens in (episode(one),)
    ]
    torch.testing.assert_close(scores[1], scores[0], atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("context", ["support", "prototype"])
@torch.inference_mode()
def test_supports_then_each_query_alone_equal_one_masked_pass(
    family: str, context: QueryContext
) -> None:
    one = recognizer_of(family, trained=True, visual=TaskConfig(blocks=2), query_context=context)
    tokens = episode(one)
    want = score_episode(one, tokens[:3], CLASSES, tokens[3:], None).logits_QN
    task = one.encode_support(tokens[:3], CLASSES, None)
    for place in range(3):
        query = one.encode_query(tokens[3 + place : 4 + place], [task])
        (score,) = one.match(query, [task])
        torch.testing.assert_close(torch.tensor(score.logits_N), want[place], atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_reach_the_adapters_alone(family: str) -> None:
    one = recognizer_of(family, trained=True, visual=AimConfig(blocks=2))
    tokens = episode(one)
    score_episode(one, tokens[:3], CLASSES, tokens[3:], None).logits_QN.sum().backward()
    learning = {name for name, p in one.named_parameters() if p.grad is not None}
    assert learning == {name for name, p in one.named_parameters() if p.requires_grad}
    assert learning
    assert not any(name.startswith("video.tower.") for name in learning)


@pytest.mark.parametrize(("family", "count"), [("dinov3", 5), ("siglip2", 0)])
def test_ted_adapters_say_that_they_need_a_class_token_alone(family: str, count: int) -> None:
    with pytest.raises(MethodError, match=f"one token in front of the patches, not {count}"):
        recognizer_of(family, visual=TedConfig(blocks=1))


def test_a_share_of_the_patches_is_refused_where_places_are_turned() -> None:
    one = recognizer_of("dinov3", visual=AimConfig(blocks=2))
    with pytest.raises(MethodError, match=r"patches=1"):
        one.video(episode(one)[:, :, :9], Alone())


@pytest.mark.parametrize("name", ["kshot-tiny-siglip", "kshot-tiny-mobile"])
@torch.inference_mode()
def test_towers_of_timm_compute_what_open_clip_computes(name: str) -> None:
    clip = random_clip(name)
    ids = torch.randint(0, 32, (3, 64))
    pixels = torch.randn(2, 3, 160, 160)
    want_image, want_text = clip.encode_image(pixels), clip.encode_text(ids)
    image, text = split_clip(clip, WordTokenizer([], 3), HALF, HALF)
    assert image.features == text.features
    encoder = VideoEncoder(image, [], frames=2)
    got = encoder(encoder.trunk_of_pixels(pixels[None]), Alone())
    torch.testing.assert_close(got[0], want_image, atol=1e-5, rtol=1e-4)
    got = TextEncoder(text, []).stages(ids[None])
    torch.testing.assert_close(got[0], want_text, atol=1e-5, rtol=1e-4)


def test_a_clip_that_pools_its_patches_is_refused() -> None:
    with pytest.raises(BackboneError, match="no ViT pooled by its class token"):
        split_clip(random_clip("kshot-tiny-clipa"), WordTokenizer([], 3))


@torch.inference_mode()
def test_a_siglip_reads_labels_with_the_tokenizer_beside_its_weights(tmp_path: Path) -> None:
    one = load_recognizer(SIGLIP_LIKE, weights=siglip_weights(tmp_path))
    assert one.has_text
    assert one.size == 160
    ids = tokenizer_of("kshot-tiny-siglip", tmp_path)(["a person, jump", "wave"])
    assert ids.shape == (2, 64)
    assert ids[0, :5].tolist() == [2, 3, 6, 1, 0]
    text = one.encode_text(["jump", "wave"], [("a jump", "of", "end"), ("a wave", "of", "end")])
    assert not torch.allclose(text[0, 0], text[1, 0], atol=1e-4)


def test_threads_that_read_and_encode_texts_do_not_disturb_each_other(tmp_path: Path) -> None:
    siglip_weights(tmp_path)
    tokenizer, text = tokenizer_of("kshot-tiny-siglip", tmp_path), "a jump wave the action " * 8
    read = partial(read_whole, tokenizer, text, 64)
    with ThreadPoolExecutor(2) as threads:
        reading = threads.submit(lambda: {read() for _ in range(1000)})
        shapes = {tuple(tokenizer([text] * 8).shape) for _ in range(1000)}
        assert reading.result() == {read()}
    assert shapes == {(8, 64)}


def test_a_siglip_without_its_tokenizer_says_which_file_to_bring(tmp_path: Path) -> None:
    weights = siglip_weights(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    with pytest.raises(BackboneError, match=r"tokenizer_config\.json is not in .*; bring it"):
        load_recognizer(SIGLIP_LIKE, weights=weights)
