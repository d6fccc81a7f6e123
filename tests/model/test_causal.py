"""The causal network: it sees no later frame, nothing of a batch, and fits its slot and folder."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from model.assembly.recognizer import build_recognizer
from model.backbones.opening import towers
from model.backbones.packaged.causal import (
    AlongTime,
    CausalBlock,
    CausalTower,
    along_space,
    padded,
)
from model.checkpoint import load_recognizer, save_checkpoint
from model.config.blocks import TaskConfig
from model.config.method import METHOD_JSON
from model.config.towers import CausalBlockConfig, CausalConfig, CompactTextConfig
from model.errors import BackboneError, MethodError
from model.methods import compact_method
from model.recognizer import Recognizer
from tests.episodes import score_episode
from tests.model.tiny import clips, tiny_text

BLOCKS = tuple(
    CausalBlockConfig(inner=8, width=width, stride=stride, span=span, kernel=kernel)
    for width, stride, span, kernel in ((4, 2, 1, 5), (8, 2, 3, 3), (8, 1, 5, 3), (8, 1, 1, 5))
)
SMALL = CausalConfig(size=32, stem=4, blocks=BLOCKS, maps=24, hidden=32, features=16)
TEXT = CompactTextConfig(words=("a", "action", "jump", "of", "the", "video", "wave"), width=16)


def lively(config: CausalConfig = SMALL) -> CausalTower:
    """A tower whose blocks all do something, as trained ones do."""
    torch.manual_seed(0)
    tower = CausalTower(config).eval()
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return tower


def recognizer_of(config: CausalConfig = SMALL) -> Recognizer:
    _, text = towers(config)
    return build_recognizer(compact_method(config), lively(config), text)


@pytest.fixture(scope="module")
def tower() -> CausalTower:
    return lively()


def pixels(count: int, frames: int = 8, seed: int = 0) -> Tensor:
    return torch.randn(count, frames, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def test_each_frame_has_a_feature_in_a_clip_of_any_length(tower: CausalTower) -> None:
    for frames in (1, 2, 8):
        assert tower.clip(pixels(2, frames)).shape == (2, tower.instants(frames), 16)
    with pytest.raises(MethodError, match="frames is 0"):
        tower.instants(0)


@torch.inference_mode()
def test_a_frame_says_nothing_of_later_ones_and_something_of_earlier_ones(
    tower: CausalTower,
) -> None:
    clip = pixels(1)
    changed = clip.clone()
    changed[:, 4] = pixels(1, 1, seed=1)[:, 0]
    before, after = tower.clip(clip), tower.clip(changed)
    torch.testing.assert_close(after[:, :4], before[:, :4], atol=0, rtol=0)
    assert ((after - before)[0, 4:].abs().amax(-1) > 1e-3).all()


@torch.inference_mode()
def test_a_clip_does_not_depend_on_its_batch(tower: CausalTower) -> None:
    batch = pixels(5)
    torch.testing.assert_close(tower.clip(batch)[2:3], tower.clip(batch[2:3]), atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_what_a_clip_scores_does_not_depend_on_its_batch() -> None:
    recognizer = recognizer_of()
    tokens = recognizer.trunk(clips(6, size=32))
    assert tokens.shape[1:] == recognizer.video.token_shape() == (8, 1, 16)
    want = score_episode(recognizer, tokens[:3], [0, 1, 1], tokens[3:], None).logits_QN
    task = recognizer.encode_support(tokens[:3], [0, 1, 1], None)
    alone = recognizer.trunk(clips(6, size=32)[3:4])
    (score,) = recognizer.match(recognizer.encode_query(alone, [task]), [task])
    torch.testing.assert_close(torch.tensor(score.logits_N), want[0], atol=1e-4, rtol=1e-5)


@torch.inference_mode()
def test_half_precision_keeps_the_angles_of_features() -> None:
    half = lively().to(torch.bfloat16)
    single = lively()
    single.load_state_dict({name: value.float() for name, value in half.state_dict().items()})
    clip = pixels(4)
    got = half.clip(clip.bfloat16()).float()
    assert F.cosine_similarity(got, single.clip(clip), dim=-1).min() > 0.995


def test_a_block_that_gives_nothing_back_leaves_its_cells() -> None:
    cells = torch.randn(8, 8, 6, 6)
    block = CausalBlock(8, BLOCKS[2])
    with torch.no_grad():
        block.down.weight.zero_()
        assert block.down.bias is not None
        block.down.bias.zero_()
    torch.testing.assert_close(block(cells, 4), cells)


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_padding_keeps_size_over_stride(kernel: int, stride: int) -> None:
    cells = padded(torch.ones(1, 1, 8, 8), kernel, stride)
    convolved = F.conv2d(cells, torch.ones(1, 1, kernel, kernel), stride=stride)
    assert convolved.shape[-2:] == (8 // stride, 8 // stride)


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@torch.inference_mode()
def test_a_convolution_along_space_is_the_one_on_padded_cells(kernel: int, stride: int) -> None:
    layer, cells = torch.nn.Conv2d(4, 4, kernel, stride, groups=4), torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(
        along_space(layer, cells, stride), layer(padded(cells, kernel, stride))
    )


@pytest.mark.parametrize("spans", [(1, 3, 5, 1), (3, 1, 1, 1), (1, 1, 1, 1)])
@torch.inference_mode()
def test_frames_that_begin_apart_end_as_their_clip_does(spans: tuple[int, ...]) -> None:
    blocks = tuple(replace(block, span=span) for block, span in zip(BLOCKS, spans, strict=True))
    tower = lively(replace(SMALL, blocks=blocks))
    clip = pixels(2)
    begun = tower.begin(clip.flatten(0, 1)).unflatten(0, clip.shape[:2])
    torch.testing.assert_close(tower.finish(begun), tower.clip(clip), atol=1e-5, rtol=1e-5)


def test_time_is_mixed_as_written_by_hand() -> None:
    along = AlongTime(1, 3)
    with torch.no_grad():
        along.weight.copy_(torch.tensor([[1.0], [10.0], [100.0]]))
        along.bias.fill_(0.5)
    mixed = along(torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1, 1))
    assert mixed.flatten().tolist() == [1.5, 12.5, 123.5, 234.5]


def test_the_packaged_sizes_stay_under_20_megabytes_in_half_precision() -> None:
    count = sum(parameter.numel() for parameter in CausalTower(CausalConfig()).parameters())
    assert count == 1_412_408
    assert 2 * count < 20e6


def test_the_packaged_one_is_served_by_its_name_with_its_calibration() -> None:
    packaged = load_recognizer("causal")
    backbone = packaged.config.backbone
    assert isinstance(backbone, CausalConfig)
    assert (packaged.config.frames, backbone.size) == (8, 192)
    assert packaged.text is not None
    assert packaged.text.tower.unknown_words("riding a bike while juggling") == ()
    assert packaged.calibration.source == "jhmdb, train and val classes"
    with torch.inference_mode():
        tokens = packaged.trunk(clips(2, size=192))
    assert tokens.shape == (2, 8, 1, 384)


def test_a_folder_holds_its_weights(tmp_path: Path) -> None:
    made = recognizer_of()
    save_checkpoint(made, tmp_path, "", half=True)
    loaded = load_recognizer(str(tmp_path))
    assert loaded.config.backbone == SMALL
    with torch.inference_mode():
        one, two = (each.trunk(clips(2, size=32)) for each in (made, loaded))
    assert F.cosine_similarity(one, two, dim=-1).min() > 0.99
    with pytest.raises(BackboneError, match="A causal checkpoint holds its own backbone"):
        load_recognizer(str(tmp_path), weights=tmp_path / "weights.safetensors")


def test_it_has_a_text_tower_in_its_space_and_no_blocks_to_adapt() -> None:
    recognizer = recognizer_of(replace(SMALL, text=TEXT))
    text = tiny_text(recognizer, ("jump", "wave"))
    assert text is not None
    assert text.shape[-1] == 16
    adapted = replace(compact_method(SMALL), visual=TaskConfig(blocks=1))
    with pytest.raises(MethodError, match="A causal network sees a whole clip and stays frozen"):
        build_recognizer(adapted, lively(), None)


def test_a_size_that_stages_cannot_halve_is_refused() -> None:
    method = METHOD_JSON.dump_json(compact_method(SMALL)).replace(b'"size":32', b'"size":40')
    with pytest.raises(ValueError, match="multiple of 32"):
        METHOD_JSON.validate_json(method)
