"""SloshNet: released values, sizes, start, who sees whom, and what is served."""

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from timm.models.resnet import Bottleneck, ResNet
from torch import Tensor, nn

from model.assembly.recognizer import build_recognizer
from model.backbones.maps.resnet import ResNetTower
from model.backbones.timm import timm_tower
from model.checkpoint import load_recognizer, save_checkpoint
from model.config.matching import TrxMatcher
from model.config.method import MethodConfig
from model.config.temporal import SloshNetConfig
from model.config.towers import TimmConfig
from model.errors import MethodError
from model.matching.trx import Trx
from model.methods import METHODS, check_served
from model.recognizer import Recognizer
from model.temporal.sloshnet import LAST_SHARE, SloshNet, alignment
from tests.episodes import score_episode
from tests.model.golden_methods import Case, files_of
from tests.model.test_assembly import VIT_B, meta_towers
from tests.model.tiny import clips, tiny_recognizer

LONG = {
    "norm_attention": "ln_1",
    "norm_mlp": "ln_2",
    "attention.out_proj": "attn.out_proj",
    "widen": "mlp.c_fc",
    "narrow": "mlp.c_proj",
}
SHORT = {
    "project": "qkv",
    "query": "qconv",
    "key": "kconv",
    "inner": "mlp.fc1",
    "gate": "mlp.fc2",
}


def released(case: Case, *, as_released: bool) -> SloshNet:
    """Make the part with the weights and statistics of the file."""
    made = SloshNet(case.meta["channels"], released=as_released).eval()
    names = {"fusion.shares": "beta1", "terms": "gamma1"}
    names |= {f"fusion.edges.{step}": f"darts_model.alpha_normal.{step}" for step in range(3)}
    names |= {f"short_term.{a}.weight": f"cmm.{b}.weight" for a, b in SHORT.items()}
    block = "cstm.resblocks.0"
    for kind in ("weight", "bias"):
        names |= {f"long_term.{a}.{kind}": f"{block}.{b}.{kind}" for a, b in LONG.items()}
        names[f"long_term.attention.in_proj_{kind}"] = f"{block}.attn.in_proj_{kind}"
    for level in range(3):
        for step in range(3 - level):
            theirs = f"spatial_modulation.spatial_modulation.{level}.{step}"
            ours = f"align.{level}.{3 * step + 1}"
            names |= {f"{ours}.{k}": f"{theirs}.bn2.{k}" for k in ("weight", "bias")}
            names[f"align.{level}.{3 * step + 2}.weight"] = f"{theirs}.conv2.weight"
            norm = made.get_submodule(ours)
            for buffer in ("running_mean", "running_var"):
                getattr(norm, buffer).copy_(case.weight(f"{theirs}.bn2.{buffer}"))
    case.fill(made, names)
    case.assert_all_used()
    return made


@torch.inference_mode()
@pytest.mark.parametrize("file", files_of("sloshnet"), ids=lambda file: file.stem)
@pytest.mark.parametrize("kind", ["intended", "released"])
def test_maps_become_frames_as_released(file: Path, kind: str) -> None:
    case = Case(file)
    part = released(case, as_released=kind == "released")
    maps = [case.inputs[f"map{level}"] for level in range(1, 5)]
    sizes = maps[0].shape[:2]
    aligned = part.aligned(maps)
    for level, one in enumerate(aligned, 1):
        case.close(one.unflatten(0, sizes), f"aligned{level}")
    for place, state in enumerate(part.fusion.states(aligned)):
        case.close(state.unflatten(0, sizes), f"state{place}")
    fused = part.fusion(aligned).unflatten(0, sizes)
    case.close(fused, "fused")
    case.close(part.short_term(fused), "short_term")
    case.close(part.long_term(fused), f"long_term_{kind}")
    case.close(part(maps), f"frames_{kind}")


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_modules_on_a_resnet_50_have_the_papers_size() -> None:
    with torch.device("meta"):
        tower = timm_tower(TimmConfig(name="resnet50", pretrained=False))
        recognizer = build_recognizer(METHODS["sloshnet"], tower, None)
    part = recognizer.video.temporal
    assert isinstance(part, SloshNet)
    assert size(part.align) == 67_248_640
    assert size(part.short_term) == 20_973_824
    assert size(part.long_term) == 50_358_272
    assert isinstance(recognizer.matcher, Trx)
    unused = 2 * 1152  # a LayerNorm of values that the release makes and never uses
    assert size(recognizer.matcher) + unused == 4_725_504
    searched = size(part.fusion) + 2
    assert size(part) + size(recognizer.matcher) + unused == 143_306_240 + searched
    with torch.device("meta"):
        assert size(Trx(2048, 8, cardinalities=(2,))) + unused == 9_444_096
    assert all(parameter.requires_grad for parameter in recognizer.video.parameters())


def test_the_modules_on_a_vit_have_a_tenth_of_it() -> None:
    recognizer = build_recognizer(METHODS["sloshnet_vit"], meta_towers(VIT_B.name)[0], None)
    learning = sum(p.numel() for p in recognizer.parameters() if p.requires_grad)
    assert learning == 14_180_473
    assert recognizer.video.features == 768
    assert recognizer.video.levels == (3, 6, 9, 12)


def test_it_starts_as_the_paper_says() -> None:
    part = SloshNet((4, 8, 16, 32))
    first = (1 - LAST_SHARE) / 4
    torch.testing.assert_close(part.fusion.shares.softmax(0), torch.tensor([first] * 4 + [0.6]))
    assert part.terms.softmax(0).tolist() == [0.5, 0.5]
    assert max(float(edge.detach().abs().max()) for edge in part.fusion.edges) < 1e-2
    assert [tuple(edge.shape) for edge in part.fusion.edges] == [(1, 3), (2, 3), (3, 3)]
    assert part.long_term.norm_attention.eps == part.long_term.norm_mlp.eps == 1e-12


# Who sees whom


def frames_of(recognizer: Recognizer, count: int) -> Tensor:
    tokens = recognizer.trunk(clips(4))[:count]
    return recognizer.support_features(tokens)


@torch.inference_mode()
@pytest.mark.parametrize("preset", ["sloshnet", "sloshnet_vit"])
def test_a_clip_alone_and_among_others_is_the_same(preset: str) -> None:
    recognizer = tiny_recognizer(preset)
    assert not recognizer.transductive
    torch.testing.assert_close(
        frames_of(recognizer, 1)[0], frames_of(recognizer, 4)[0], atol=1e-5, rtol=1e-5
    )
    check_served(recognizer.config)


@torch.inference_mode()
def test_as_released_clips_see_each_other_and_that_is_not_served() -> None:
    recognizer = tiny_recognizer("sloshnet_vit", temporal=SloshNetConfig(released=True))
    assert recognizer.transductive
    alone, together = frames_of(recognizer, 1)[0], frames_of(recognizer, 4)[0]
    assert not torch.allclose(alone, together, atol=1e-3)
    with pytest.raises(MethodError, match="lets clips see each other; serve it with released"):
        check_served(recognizer.config)


# Gradients, checkpoints, other towers


def small_resnet(**changes: object) -> Recognizer:
    torch.manual_seed(0)
    resnet = ResNet(Bottleneck, (1, 1, 1, 1), channels=(8, 16, 32, 64), num_classes=0).eval()
    tower = ResNetTower(resnet, 64, (0.5,) * 3, (0.5,) * 3)
    backbone = TimmConfig(name="small", pretrained=False)
    method = replace(METHODS["sloshnet"], backbone=backbone, frames=3, **changes)
    return build_recognizer(method, tower, None)


def reached(recognizer: Recognizer, tokens: Tensor) -> set[str]:
    score_episode(recognizer, tokens[:3], [0, 1, 1], tokens[3:], None).logits_QN.sum().backward()
    return {n for n, p in recognizer.named_parameters() if p.grad is not None}


def test_gradients_reach_the_whole_resnet_through_its_levels() -> None:
    recognizer = small_resnet(matcher=TrxMatcher(cardinalities=(1,), width=8, standardised=False))
    tokens = recognizer.trunk(clips(4, frames=3, size=64))
    assert tokens.shape[1:] == recognizer.video.token_shape() == (3, 256, 64)
    assert reached(recognizer, tokens) == {name for name, _ in recognizer.named_parameters()}


def test_on_a_vit_gradients_reach_all_but_the_tower() -> None:
    recognizer = tiny_recognizer("sloshnet_vit")
    own = {n for n, _ in recognizer.named_parameters() if ".tower." not in n}
    assert reached(recognizer, recognizer.trunk(clips(4))) == own


def test_batch_norms_learn_in_training_and_stay_in_evaluation() -> None:
    recognizer = small_resnet()
    norms = [m for m in recognizer.video.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)
    for module in recognizer.learning_modules():
        module.train()
    assert all(norm.training for norm in norms)


@torch.inference_mode()
def test_weights_and_statistics_survive_a_checkpoint(tmp_path: Path) -> None:
    recognizer = tiny_recognizer("sloshnet")
    save_checkpoint(recognizer, tmp_path, "card")
    again = load_recognizer(str(tmp_path))
    torch.testing.assert_close(frames_of(again, 2), frames_of(recognizer, 2))


@pytest.mark.parametrize("widths", [(4, 8, 16, 24), (8, 8, 8, 16)])
def test_levels_that_cannot_be_aligned_are_refused(widths: tuple[int, ...]) -> None:
    with pytest.raises(MethodError, match=r"of widths that double, not \["):
        alignment(widths)


def test_a_network_that_sees_whole_clips_is_refused() -> None:
    with pytest.raises(MethodError, match="a network that sees whole clips has none"):
        alignment(())


@pytest.mark.parametrize("widths", [(24, 24, 24, 24), (3, 6, 12, 24)])
def test_channels_that_heads_or_groups_do_not_divide_are_refused(widths: tuple[int, ...]) -> None:
    with pytest.raises(MethodError, match="splits 24 channels in 8 heads and in 16 groups"):
        SloshNet(widths)


def test_a_resnet_18_fits_too() -> None:
    with torch.device("meta"):
        tower = ResNetTower(
            timm.create_model("resnet18", num_classes=0), 224, (0.5,) * 3, (0.5,) * 3
        )
        method = MethodConfig(
            backbone=TimmConfig(name="resnet18"), temporal=SloshNetConfig(), fusion="video"
        )
        assert build_recognizer(method, tower, None).video.features == 512
