"""TED adapters and the adapter along time of M2-CLIP: released values, sizes, start."""

from pathlib import Path

import pytest
import torch

from model.adapters.ted import TedAdapter, TedBlock
from model.assembly.recognizer import build_recognizer
from model.config.blocks import TedConfig
from model.config.method import MethodConfig
from model.config.temporal import ConvolutionConfig
from model.errors import MethodError
from model.methods import METHODS
from model.temporal.convolution import TemporalConvolution
from model.views import Alone
from tests.model.golden_methods import Case, files_of
from tests.model.test_assembly import VIT_B, meta_towers, trainable
from tests.model.tiny import clips, tiny_recognizer

PARTS = {
    "enhance.down": "fc1",
    "enhance.along": "conv",
    "enhance.up": "fc2",
    "difference_down": "offset_adapter.fc1",
    "difference": "offset_adapter.conv",
    "difference_up": "offset_adapter.fc2",
}
ALONG = {"down": "fc1", "along": "conv", "up": "fc2"}


def released(prefix: str, parts: dict[str, str]) -> dict[str, str]:
    """Map our names onto the released ones."""
    return {
        f"{ours}.{kind}": f"{prefix}.{theirs}.{kind}"
        for ours, theirs in parts.items()
        for kind in ("weight", "bias")
    }


@pytest.fixture(params=files_of("m2clip_adapters"), ids=lambda file: file.stem)
def case(request: pytest.FixtureRequest) -> Case:
    file: Path = request.param
    return Case(file)


@torch.inference_mode()
def test_the_adapters_give_the_released_values(case: Case) -> None:
    """The text adapter of the file is not in kshot yet."""
    width, hidden = case.meta["width"], case.meta["ted_width"]
    ted = TedAdapter(width, (hidden + 0.5) / width)
    case.fill(ted, released("adapter", PARTS))
    inner, features = case.spec["t_adapter.fc1.weight"]
    along = TemporalConvolution(features, (inner + 0.5) / features)
    case.fill(along, released("t_adapter", ALONG))
    case.assert_all_used(but="text_adapter.")
    tokens, frames = case.inputs["tokens"], case.inputs["frames"]
    case.close(ted.spatial_difference(tokens[:, :, 1:]), "difference_branch")
    case.close(ted(tokens), "tokens_out")
    case.close(along(frames), "frames_out")


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_adapters_have_the_papers_size() -> None:
    assert parameters(TedAdapter(768, 0.5)) == 1_187_328
    assert parameters(TemporalConvolution(512, 0.5)) == 263_936


@pytest.mark.parametrize(("before", "want"), [(False, 14_247_936), (True, 28_495_872)])
def test_ted_in_twelve_blocks_has_the_papers_size(before: bool, want: int) -> None:
    visual = TedConfig(blocks=12, before_attention=before)
    method = MethodConfig(backbone=VIT_B, visual=visual, temporal=ConvolutionConfig())
    recognizer = build_recognizer(method, *meta_towers(VIT_B.name))
    assert trainable(recognizer.video.adapted) == want
    places = 8 * 768  # the embedding of frame places, which all adapted towers have
    assert trainable(recognizer) == want + 263_936 + places


def test_the_preset_is_ted_in_every_block_and_a_convolution_on_top() -> None:
    assert METHODS["ted"].visual == TedConfig(blocks=12, ratio=0.5)
    assert METHODS["ted"].temporal == ConvolutionConfig(ratio=0.5)


@torch.inference_mode()
@pytest.mark.parametrize("before", [False, True])
def test_adapters_start_as_the_identity_and_say_when_they_are_not(before: bool) -> None:
    fresh = tiny_recognizer(
        "ted", trained=False, visual=TedConfig(blocks=2, before_attention=before)
    )
    frozen = tiny_recognizer("ted", trained=False, visual=None, temporal=None)
    frozen.video.tower.load_state_dict(fresh.video.tower.state_dict())
    frames = clips(3)
    got, want = (one.video(one.trunk(frames), Alone()) for one in (fresh, frozen))
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
    assert fresh.video.is_initial()
    (block, _) = fresh.video.adapted
    assert isinstance(block, TedBlock)
    for name, parameter in block.named_parameters():
        if "up.weight" in name or "down" in name:
            continue  # behind a convolution that is zero, any value is the identity
        parameter.add_(0.1)
        assert not block.is_initial(), name
        assert not fresh.video.is_initial()
        parameter.sub_(0.1).zero_()
        assert block.is_initial(), name


@torch.inference_mode()
def test_a_change_of_a_patch_never_reaches_the_class_token_by_the_difference() -> None:
    torch.manual_seed(0)
    ted = TedAdapter(8, 0.5)
    for parameter in ted.parameters():
        parameter.normal_()
    tokens = torch.randn(2, 4, 1 + 9, 8)
    moved = tokens.clone()
    moved[:, 2, 5] += 1
    differing = (ted(moved) - ted(tokens)).abs().amax(dim=(0, 3)) > 1e-5
    assert not differing[:, 0].any()
    assert differing[2:4, 1:].all()  # the centre of a 3 by 3 grid, and the change after it
    assert differing[1].nonzero().flatten().tolist() == [5]  # by the convolution along time alone
    assert not differing[0].any()


@torch.inference_mode()
def test_clips_do_not_see_each_other() -> None:
    video = tiny_recognizer("ted").video
    tokens = video.trunk(clips(4))
    together = video(tokens, Alone())
    for place in range(4):
        alone = video(tokens[place : place + 1], Alone())
        torch.testing.assert_close(alone[0], together[place], atol=1e-5, rtol=1e-5)


def test_patches_that_are_no_square_grid_are_refused() -> None:
    with pytest.raises(MethodError, match="6 patches are none"):
        TedAdapter(8, 0.5)(torch.zeros(1, 2, 7, 8))
