"""Linear maps that became one give what they gave one by one, in every block that has them."""

from collections.abc import Callable
from functools import partial
from typing import Any, get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from open_clip.transformer import QuickGELU
from open_clip.transformer import VisionTransformer as ClipVit
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from model.adapters.aim import AimBlock
from model.backbones.clip import ClipImageTower
from model.backbones.timm import TimmImageTower
from model.build import build_recognizer
from model.config import QueryContext
from model.folding import in_turn, side_by_side
from model.recognizer import Recognizer
from model.slots import Backbone
from tests.model.tiny import clips, tiny_method, tiny_recognizer

HALF = (0.5, 0.5, 0.5)
CLASSES = [0, 0, 1, 2]
CONTEXTS: tuple[QueryContext, ...] = get_args(QueryContext)


@given(
    sizes=st.lists(st.integers(1, 9), min_size=4, max_size=4),
    biases=st.lists(st.booleans(), min_size=4, max_size=4),
    scale=st.floats(-2, 2),
    seed=st.integers(0, 99),
)
def test_maps_become_one(sizes: list[int], biases: list[bool], scale: float, seed: int) -> None:
    torch.manual_seed(seed)
    width, hidden, beside, out = sizes
    first, second = nn.Linear(width, hidden, biases[0]), nn.Linear(hidden, out, biases[1])
    down, up = nn.Linear(width, beside, biases[2]), nn.Linear(beside, out, biases[3])
    given_BI = torch.randn(5, width)
    torch.testing.assert_close(
        in_turn(first, second)(given_BI), second(first(given_BI)), atol=1e-5, rtol=1e-5
    )
    wide, summed = side_by_side((first, second), (down, up), scale)
    want = second(torch.tanh(first(given_BI))) + scale * up(torch.tanh(down(given_BI)))
    torch.testing.assert_close(summed(torch.tanh(wide(given_BI))), want, atol=1e-5, rtol=1e-5)


def timm_tower(**options: Any) -> TimmImageTower:  # noqa: ANN401  timm's own
    return TimmImageTower(
        VisionTransformer(
            img_size=16, patch_size=8, embed_dim=32, depth=3, num_heads=2, num_classes=0, **options
        ),
        HALF,
        HALF,
    )


def clip_tower(**options: Any) -> ClipImageTower:  # noqa: ANN401  open_clip's own
    return ClipImageTower(
        ClipVit(
            image_size=16,
            patch_size=8,
            width=32,
            layers=3,
            heads=2,
            mlp_ratio=4,
            output_dim=32,
            **options,
        ),
        HALF,
        HALF,
    )


# Towers, and whether the projection of attention and the adapter beside the MLP are taken in.
TOWERS: dict[str, tuple[Callable[[], Backbone], bool, bool]] = {
    "timm": (timm_tower, True, True),
    "timm, layer scale": (partial(timm_tower, init_values=0.5), False, False),
    "timm, normed attention": (partial(timm_tower, scale_attn_norm=True), False, True),
    "clip": (clip_tower, True, True),
    "clip, QuickGELU": (partial(clip_tower, act_layer=QuickGELU), True, False),
    "clip, layer scale": (partial(clip_tower, ls_init_value=0.5), False, False),
}


def trained(tower: Backbone, preset: str, context: QueryContext) -> Recognizer:
    """Build a method on a tower, with adapters as after training and weights that matter."""
    torch.manual_seed(0)
    recognizer = build_recognizer(
        tiny_method(preset, query_context=context, text=None), tower, None
    )
    with torch.no_grad():
        for parameter in recognizer.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))
            elif parameter.ndim > 1:
                parameter.mul_(2)
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return recognizer.eval()


@torch.inference_mode()
def features(recognizer: Recognizer) -> tuple[Tensor, Tensor]:
    """Encode an episode the two ways there are; `joint` has one."""
    frames = clips(7)
    support, query = recognizer.trunk(frames).split([4, 3])
    classes_S = torch.tensor(CLASSES)
    masked = torch.cat(recognizer.video.adapt_episode(support, classes_S, query))
    if recognizer.config.query_context == "joint":
        return masked, masked
    support_STE, context = recognizer.video.adapt_support(support, classes_S)
    query_QTE = recognizer.video.adapt_query(query, [context] * 3)
    return masked, torch.cat([support_STE, query_QTE])


@pytest.mark.parametrize("name", TOWERS)
@pytest.mark.parametrize("preset", ["aim", "task_adapter"])
def test_folded_blocks_give_the_same_features(name: str, preset: str) -> None:
    tower, heads, joint = TOWERS[name]
    recognizer = trained(tower(), preset, "none" if preset == "aim" else "support")
    want = features(recognizer)
    folded = recognizer.folded()
    for block in folded.video.adapted:
        assert isinstance(block, AimBlock)
        assert (block.takes_heads, block.joint_inside) == (heads, joint)
    for _ in range(2):
        torch.testing.assert_close(features(folded), want, atol=1e-4, rtol=1e-4)
        folded.video.fold()  # again: nothing is multiplied twice
    assert torch.equal(features(recognizer)[0], want[0])  # what was copied is as it was


@pytest.mark.parametrize("context", CONTEXTS)
def test_folding_keeps_what_clips_see_of_each_other(context: QueryContext) -> None:
    recognizer = tiny_recognizer(query_context=context).eval()
    folded = recognizer.folded()
    assert folded.trained
    torch.testing.assert_close(features(folded), features(recognizer), atol=1e-4, rtol=1e-4)
