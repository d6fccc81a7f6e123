"""The packaged compact towers are the libraries' networks: same names, same start, same values."""

import pytest
import torch
from open_clip.transformer import TextTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from model.backbones.packaged.compact import compact_image_tower, compact_text_tower
from model.config.towers import CompactConfig, CompactTextConfig
from model.encoder import TextEncoder

WORDS = ("clap", "jump", "a", "person")


def same(ours: nn.Module, theirs: nn.Module) -> bool:
    own, other = ours.state_dict(), theirs.state_dict()
    equal = own.keys() == other.keys()
    return equal and all(torch.equal(own[name], other[name]) for name in own)


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(1))


def test_the_image_tower_is_timms(pixels: Tensor) -> None:
    torch.manual_seed(0)
    tower = compact_image_tower(CompactConfig(size=48, patch=16, width=32, depth=2, heads=2))
    torch.manual_seed(0)
    vit = VisionTransformer(
        img_size=48, patch_size=16, embed_dim=32, depth=2, num_heads=2, num_classes=0
    ).eval()
    assert same(tower.model, vit)
    want_BD = vit(pixels)
    assert torch.equal(tower.model(pixels), want_BD)
    tokens_BLD = tower.norm(tower.patches(pixels))
    for block in tower.blocks:
        tokens_BLD = block.run(tokens_BLD)
    torch.testing.assert_close(tower.head(tokens_BLD), want_BD)


def test_the_text_tower_is_open_clips() -> None:
    config = CompactTextConfig(words=WORDS, width=16, layers=2, heads=2)
    torch.manual_seed(0)
    tower = compact_text_tower(config, 24)
    torch.manual_seed(0)
    theirs = TextTransformer(
        context_length=config.context,
        vocab_size=tower.tokenizer.size,
        width=16,
        heads=2,
        layers=2,
        output_dim=24,
    ).eval()
    assert same(tower.model, theirs)
    ids_BL = tower.tokenize(["a person jump", "clap"])
    got_BE = TextEncoder(tower, []).stages(ids_BL[None])[0]
    torch.testing.assert_close(got_BE, theirs(ids_BL), atol=1e-6, rtol=1e-5)
