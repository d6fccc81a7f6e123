"""Saliency points to where a score comes from, in every named method, and changes no score."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.assembly.recognizer import build_recognizer
from model.backbones.packaged.causal import CausalTower
from model.config.fusion import TrustFusion
from model.config.method import MethodConfig
from model.config.towers import CausalConfig
from model.episode import EncodedSupport, plain
from model.methods import METHODS, compact_method
from model.recognizer import Recognizer
from model.saliency import saliency
from model.views import query_view
from tests.model.tiny import TOWERS, clips, tiny_recognizer, tiny_text

SIDE = 4  # cells of a side of what the toy sees
LOOKED_AT = (2, 1)  # row and column of the one that its score depends on


class Doubling:
    """A block that sees each token by itself."""

    def run(self, tokens_BLD: Tensor, mask: Tensor | None = None, /) -> Tensor:  # noqa: ARG002
        return 2 * tokens_BLD


class OneCell(nn.Module):
    """A tower whose tokens are the colours of 4 x 4 cells, and whose feature is one of them."""

    size, width, features, prefix_tokens = 16, 3, 3, 0
    mean, std = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    reads_class_token, staged = False, False
    blocks = (Doubling(), Doubling())
    levels: Sequence[int] = (1, 1, 2, 2)
    level_widths: Sequence[int] = (3, 3, 3, 3)
    parts: Mapping[str, Sequence[str]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Linear(1, 1)  # says what the numbers are, and where

    def patches(self, pixels_BCHW: Tensor) -> Tensor:
        return F.avg_pool2d(pixels_BCHW, self.size // SIDE).flatten(2).transpose(1, 2)

    def norm(self, tokens_BLD: Tensor) -> Tensor:
        return tokens_BLD

    def head(self, tokens_BLD: Tensor) -> Tensor:
        row, column = LOOKED_AT
        return tokens_BLD[:, row * SIDE + column]

    def pooled(self, tokens_BLD: Tensor) -> Tensor:
        return self.head(tokens_BLD)

    def map(self, tokens_BLD: Tensor) -> Tensor:
        return tokens_BLD.transpose(1, 2).unflatten(2, (SIDE, SIDE))


@torch.inference_mode()
def supported(recognizer: Recognizer) -> EncodedSupport:
    recognizer.eval().requires_grad_(False)
    tokens = recognizer.trunk(clips(3, size=recognizer.size))
    return recognizer.encode_support(tokens, [0, 1, 1], tiny_text(recognizer, ("jump", "wave")))


@torch.inference_mode()
def logits(recognizer: Recognizer, frames: Tensor, support: EncodedSupport) -> list[float]:
    features = recognizer.encode_query(recognizer.trunk(frames), [support])
    return plain(recognizer.score(features, [support]))[0].logits_N


def test_a_score_that_depends_on_one_cell_is_seen_in_that_cell_alone() -> None:
    recognizer = build_recognizer(MethodConfig(backbone=TOWERS, fusion="video"), OneCell(), None)
    support = supported(recognizer)
    row, column = LOOKED_AT
    for seed in range(4):
        frames = clips(1, seed=seed + 10)
        won = int(np.argmax(logits(recognizer, frames, support)))
        grid_TSS = saliency(recognizer, frames[0], support, won)
        assert grid_TSS.shape == (8, SIDE, SIDE)
        assert grid_TSS[:, row, column].max() == 1
        grid_TSS[:, row, column] = 0
        assert not grid_TSS.any()


@pytest.mark.parametrize("preset", METHODS)
def test_every_method_tells_where_and_scores_as_before(preset: str) -> None:
    recognizer = tiny_recognizer(preset)
    support, frames = supported(recognizer), clips(1, seed=4)
    before = logits(recognizer, frames, support)
    with torch.inference_mode():  # as the service's device thread runs
        one, other = (saliency(recognizer, frames[0], support, label) for label in (0, 1))
    for grid_TSS in (one, other):
        assert (len(grid_TSS), grid_TSS.min(), grid_TSS.max()) == (8, 0, 1)
    assert not np.array_equal(one, other)
    assert logits(recognizer, frames, support) == before


def test_where_depends_on_how_much_the_text_counts() -> None:
    recognizer = tiny_recognizer("frozen", fusion=TrustFusion())
    support, frames = supported(recognizer), clips(1, seed=4)
    trust = support.classes.trust
    assert trust is not None
    grids = []
    for weight in (0.0, 50.0):
        told = replace(trust, weight_N=torch.full_like(trust.weight_N, weight))
        weighed = replace(support, classes=replace(support.classes, trust=told))
        grids.append(saliency(recognizer, frames[0], weighed, 0))
    assert not np.allclose(grids[0], grids[1], atol=0.05)


def test_a_network_that_sees_whole_clips_tells_where_in_its_last_map() -> None:
    torch.manual_seed(0)
    config = CausalConfig(size=64, maps=24, hidden=32)
    recognizer = build_recognizer(compact_method(config), CausalTower(config), None)
    support, frames = supported(recognizer), clips(1, seed=4, size=64)
    grid_TSS = saliency(recognizer, frames[0], support, 0)
    assert (grid_TSS.shape, grid_TSS.min(), grid_TSS.max()) == ((8, 2, 2), 0, 1)


def test_a_level_that_is_read_by_itself_counts_beside_what_goes_into_the_last_block() -> None:
    """SloshNet reads the level in front of the last block, too: the slope has both ways in it."""
    recognizer = tiny_recognizer("sloshnet_vit")
    support, frames = supported(recognizer), clips(1, seed=4)
    video, view = recognizer.video, query_view(recognizer.config.query_context, [()])
    *_, (last, _) = video.steps(view)
    assert last - 1 in video.levels
    read = saliency(recognizer, frames[0], support, 0)
    kept, real = [], video.keep

    def but_that_one(maps: dict[int, Tensor], level: int, tokens_BTLD: Tensor) -> None:
        kept.append(level)
        real(maps, level, tokens_BTLD.detach() if level == last - 1 else tokens_BTLD)

    video.keep = but_that_one  # type: ignore[method-assign]
    one_way = saliency(recognizer, frames[0], support, 0)
    assert kept.count(last - 1) == 2
    assert not np.allclose(read, one_way, atol=1e-4)
