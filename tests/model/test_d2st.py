"""D2ST-Adapter on a ViT and on a ResNet: released values, sizes, start, other sizes, precision."""

from pathlib import Path

import open_clip
import pytest
import timm
import torch
from torch import Tensor, nn

from model.adapters.d2st import (
    PATCHES,
    STAGE_HEADS,
    STAGES,
    D2stAdapter,
    D2stBlock,
    DeformableAttention,
)
from model.assembly.recognizer import build_recognizer
from model.backbones.maps.resnet import ResNetTower, cells_of
from model.backbones.timm import timm_tower
from model.backbones.views.clip import ClipImageTower
from model.checkpoint import load_recognizer, save_checkpoint
from model.config.blocks import D2stConfig
from model.config.method import MethodConfig
from model.config.towers import OpenClipConfig, TimmConfig
from model.encoder import VideoEncoder
from model.errors import MethodError
from model.methods import METHODS
from model.recognizer import Recognizer
from model.views import Alone
from tests.episodes import score_episode
from tests.model.golden_methods import Case, files_of, kind_of
from tests.model.test_assembly import VIT_B, meta_towers, trainable
from tests.model.tiny import clips, tiny_recognizer

WHOLE_VITS = [file for file in files_of("d2st_vit") if "block" not in kind_of(file)]
PATHWAY = {
    "look": "conv_offset.0",
    "norm": "conv_offset.1.norm",
    "query": "proj_q",
    "key": "proj_k",
    "value": "proj_v",
    "out": "proj_out",
}


def adapter_names(ours: str, theirs: str, norm: str = "") -> dict[str, str]:
    """Map the names of one adapter onto the released ones."""
    layers = {"down": "down", "near": "pos_embed", "up": "up"}
    layers |= {"space_norm": f"s_ln{norm}", "time_norm": f"t_ln{norm}"}
    for pathway, short in (("space", "s_attn"), ("time", "t_attn")):
        layers |= {f"{pathway}.{own}": f"{short}.{other}" for own, other in PATHWAY.items()}
    names = {
        f"{ours}{own}.{kind}": f"{theirs}{other}.{kind}"
        for own, other in layers.items()
        for kind in ("weight", "bias")
    }
    for pathway, short in (("space", "s_attn"), ("time", "t_attn")):
        names[f"{ours}{pathway}.offset.weight"] = f"{theirs}{short}.conv_offset.3.weight"
    return names


def stage_adapter(stage: int, width: int) -> D2stAdapter:
    heads, pathways = STAGE_HEADS[stage], STAGES[stage]
    return D2stAdapter(width, width // 4, heads, pathways, bent=False)


# Released values


@torch.inference_mode()
@pytest.mark.parametrize("file", files_of("d2st_vit_block"), ids=lambda file: file.stem)
def test_an_adapter_of_a_vit_gives_the_released_values(file: Path) -> None:
    case = Case(file)
    width = case.meta["width"]
    adapter = D2stAdapter(width, case.spec["Adapter.down.weight"][0], 4, PATCHES, prefix=1)
    case.fill(adapter, adapter_names("", "Adapter."))
    case.assert_all_used()
    tokens, seen = case.inputs["tokens"], dict[str, Tensor]()
    for name in ("space", "time"):
        keep = lambda _module, _read, got, name=name: seen.update({name: got})  # noqa: E731
        getattr(adapter, name).register_forward_hook(keep)
    case.close(tokens + adapter(tokens), "tokens_out")
    stride = case.meta["stride"]
    case.close(seen["space"][:, :, ::stride], "spatial_attention")
    case.close(seen["time"][:, :, ::stride], "temporal_attention")


@torch.inference_mode()
@pytest.mark.parametrize("file", files_of("d2st_resnet_blocks"), ids=lambda file: file.stem)
@pytest.mark.parametrize("stage", range(4))
def test_an_adapter_of_a_resnet_gives_the_released_values(file: Path, stage: int) -> None:
    case = Case(file)
    map_BTCHW = case.inputs[f"stage{stage + 1}"]
    side = map_BTCHW.shape[-1]
    adapter = stage_adapter(stage, map_BTCHW.shape[2])
    case.fill(adapter, adapter_names("", f"Adapter_{stage + 1}.", ".norm"))
    cells = cells_of(map_BTCHW.flatten(0, 1)).unflatten(0, map_BTCHW.shape[:2])
    out = (cells + adapter(cells)).unflatten(2, (side, side)).movedim(-1, 2)
    case.close(out[..., :: side // 7, :: side // 7], f"stage{stage + 1}_out")


def golden_method(case: Case, blocks: int, backbone: OpenClipConfig | TimmConfig) -> MethodConfig:
    vit = isinstance(backbone, OpenClipConfig)
    return MethodConfig(
        backbone=backbone,
        frames=case.meta["frames"],
        visual=D2stConfig(blocks=blocks),
        temporal_embedding="input",
        tower_parts=("class_token", "last_norm"),
        projected=not vit,
        matcher=METHODS["d2st"].matcher,
        fusion="video",
    )


def toy_clip(case: Case) -> ClipImageTower:
    meta = case.meta
    clip = open_clip.CLIP(
        embed_dim=16,
        vision_cfg=open_clip.CLIPVisionCfg(
            layers=meta["layers"],
            width=meta["width"],
            head_width=meta["width"] // meta["heads"],
            patch_size=meta["patch"],
            image_size=meta["size"],
        ),
        text_cfg=open_clip.CLIPTextCfg(vocab_size=8, width=8, heads=1, layers=1),
        quick_gelu=True,
    )
    return ClipImageTower(clip.visual, (0.5,) * 3, (0.5,) * 3)


def close(case: Case, got: Tensor, name: str, atol: float) -> None:
    torch.testing.assert_close(got, case.want(name), atol=atol, rtol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("file", WHOLE_VITS, ids=lambda file: file.stem)
def test_a_vit_gives_the_released_features_and_logits(file: Path) -> None:
    case = Case(file)
    layers = case.meta["layers"]
    method = golden_method(case, layers, OpenClipConfig(name="toy"))
    recognizer = build_recognizer(method, toy_clip(case), None)
    adapters: dict[str, str] = {}
    for block in range(layers):
        theirs = f"transformer.resblocks.{block}.Adapter."
        adapters |= adapter_names(f"{block}.adapter.", theirs)
    above = {"temporal_embedding", "classification_layer.weight", "classification_layer.bias"}
    tower = case.spec.keys() - set(adapters.values()) - above
    case.fill(recognizer.video.tower.model, {name: name for name in tower}, kept=["proj"])
    case.fill(recognizer.video.adapted, adapters)
    assert recognizer.video.temporal_embedding is not None
    recognizer.video.temporal_embedding.copy_(case.weight("temporal_embedding")[0, :, None])
    classifier = nn.Linear(case.meta["width"], case.meta["base_classes"])
    case.fill(classifier, {kind: f"classification_layer.{kind}" for kind in ("weight", "bias")})
    case.assert_all_used()
    trunks = [recognizer.video.trunk_of_pixels(case.inputs[n]) for n in ("support", "query")]
    task = recognizer.encode_support(trunks[0], case.meta["support_classes"], None)
    support = recognizer.video(trunks[0], Alone())
    query = recognizer.encode_query(trunks[1], [task] * len(trunks[1]))
    case.close(support, "support_features")
    case.close(query, "query_features")
    (scored,) = recognizer.score(query, [task] * len(query))
    close(case, scored.scores.logits_QN, "logits", 2e-5)
    frames = torch.cat([support, query])
    close(case, classifier(frames.mean(dim=1)), "class_logits", 2e-5)


@torch.inference_mode()
@pytest.mark.slow
@pytest.mark.parametrize("file", files_of("d2st_resnet50"), ids=lambda file: file.stem)
def test_a_resnet_50_gives_the_released_features(file: Path) -> None:
    case = Case(file)
    tower = timm_tower(TimmConfig(name="resnet50", pretrained=False))
    method = golden_method(case, 4, TimmConfig(name="resnet50"))
    recognizer = build_recognizer(method, tower, None)
    state = tower.model.state_dict()
    for name in state:
        if name.endswith("num_batches_tracked"):
            continue
        first, _, rest = name.partition(".")
        released = {"conv1": "stage1.0", "bn1": "stage1.1", "layer1": "stage1.4"}
        known = released.get(first, first.replace("layer", "stage"))
        state[name].copy_(case.weight(f"{known}.{rest}"))
    adapters: dict[str, str] = {}
    for stage in range(4):
        adapters |= adapter_names(f"{stage}.adapter.", f"Adapter_{stage + 1}.", ".norm")
    case.fill(recognizer.video.adapted, adapters)
    classifier = nn.Linear(2048, case.meta["base_classes"])
    case.fill(classifier, {kind: f"classification_layer.{kind}" for kind in ("weight", "bias")})
    case.assert_all_used()
    tokens = recognizer.video.trunk_of_pixels(case.inputs["clips"])
    features = recognizer.video(tokens, Alone())
    case.close(features, "features")
    case.close(classifier(features.mean(dim=1)), "class_logits")


# Sizes


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_a_vits_adapters_have_the_papers_size() -> None:
    assert size(D2stAdapter(768, 192, 4, PATCHES, prefix=1)) == 606_192
    assert size(DeformableAttention(192, 4, PATCHES.space)) == 153_312
    assert size(DeformableAttention(192, 4, PATCHES.time)) == 150_864
    image, _ = meta_towers(VIT_B.name)
    recognizer = build_recognizer(METHODS["d2st"], image, None)
    assert trainable(recognizer) == 7_282_752
    assert trainable(recognizer.video.adapted) == 7_274_304
    assert recognizer.video.features == 768


def test_a_resnets_adapters_have_the_papers_size() -> None:
    want = (94_272, 293_760, 1_070_400, 4_225_344)
    assert tuple(size(stage_adapter(s, 256 << s)) for s in range(4)) == want
    with torch.device("meta"):
        tower = timm_tower(TimmConfig(name="resnet50", pretrained=False))
        recognizer = build_recognizer(METHODS["d2st_resnet50"], tower, None)
    assert trainable(recognizer) == 5_683_776
    assert recognizer.video.temporal_embedding is None
    assert recognizer.video.features == 2048


# Start


@torch.inference_mode()
def test_a_vits_adapters_start_as_nothing_and_say_when_they_are_something() -> None:
    fresh = tiny_recognizer("d2st", trained=False)
    frozen = tiny_recognizer("d2st", trained=False, visual=None)
    frozen.video.tower.load_state_dict(fresh.video.tower.state_dict())
    frames = clips(2)
    got, want = (one.video(one.trunk(frames), Alone()) for one in (fresh, frozen))
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
    assert fresh.video.is_initial()
    for block in fresh.video.adapted:
        assert isinstance(block, D2stBlock)
        block.adapter.up.bias.add_(0.1)
        assert not fresh.video.is_initial()
        block.adapter.up.bias.zero_()


def test_gradients_reach_all_that_the_paper_trains_and_nothing_else() -> None:
    recognizer = tiny_recognizer("d2st")
    tokens = recognizer.trunk(clips(4))
    score_episode(recognizer, tokens[:3], [0, 1, 1], tokens[3:], None).logits_QN.sum().backward()
    reached = {
        name for name, p in recognizer.named_parameters() if p.grad is not None and p.grad.any()
    }
    wanted = {n for n, _ in recognizer.named_parameters() if n.startswith("video.adapted.")}
    model = "video.tower.model."
    wanted |= {f"{model}cls_token", f"{model}norm.weight", f"{model}norm.bias"}
    assert reached == wanted | {"video.temporal_embedding"}


# A ResNet of few weights, shown 224 pixels


def small_resnet(**changes: object) -> Recognizer:
    torch.manual_seed(0)
    resnet = timm.create_model("test_resnet", num_classes=0).eval()
    tower = ResNetTower(resnet, 224, (0.5,) * 3, (0.5,) * 3)
    method = MethodConfig(
        backbone=TimmConfig(name="test_resnet", pretrained=False),
        frames=4,
        visual=D2stConfig(blocks=4),
        matcher=METHODS["d2st_resnet50"].matcher,
        fusion="video",
        **changes,  # type: ignore[arg-type]
    )
    return build_recognizer(method, tower, None)


@torch.inference_mode()
def test_a_resnets_adapters_start_as_nothing_and_see_no_other_clip() -> None:
    recognizer = small_resnet()
    frames = clips(2, frames=4, size=224)
    tokens = recognizer.trunk(frames)
    assert tokens.shape[1:] == recognizer.video.token_shape()
    plain = VideoEncoder(recognizer.video.tower, [], frames=4)
    want = plain(plain.trunk(frames), Alone())
    torch.testing.assert_close(recognizer.video(tokens, Alone()), want, atol=1e-5, rtol=1e-5)
    assert not recognizer.trained
    for parameter in recognizer.video.adapted.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    together = recognizer.video(tokens, Alone())
    assert not torch.allclose(together, want, atol=1e-3)
    alone = recognizer.video(tokens[1:], Alone())
    torch.testing.assert_close(alone[0], together[1], atol=1e-5, rtol=1e-5)


# Other sizes, precision


@torch.inference_mode()
@pytest.mark.parametrize(("frames", "side", "prefix"), [(12, 16, 1), (4, 7, 0), (9, 14, 5)])
def test_other_numbers_of_frames_patches_and_front_tokens_work(
    frames: int, side: int, prefix: int
) -> None:
    torch.manual_seed(0)
    adapter = D2stAdapter(16, 8, 2, PATCHES, prefix=prefix)
    for parameter in adapter.parameters():
        parameter.normal_(std=0.3)
    tokens = torch.randn(2, frames, prefix + side * side, 16)
    assert adapter(tokens).shape == tokens.shape
    assert adapter(tokens).abs().max() > 0.1
    torch.testing.assert_close(adapter(tokens[:1])[0], adapter(tokens)[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("frames", "side"), [(3, 7), (8, 6)])
def test_too_few_frames_or_patches_are_refused(frames: int, side: int) -> None:
    with pytest.raises(MethodError, match=f"were given {frames} of {side} x {side}; choose 4"):
        D2stAdapter(16, 8, 2, PATCHES)(torch.zeros(1, frames, side * side, 16))
    with pytest.raises(MethodError, match="frames is 3; D2ST adapters need 4"):
        tiny_recognizer("d2st", frames=3)


@torch.inference_mode()
@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
def test_places_and_samples_are_fp32_in_half_precision(weights: torch.dtype) -> None:
    torch.manual_seed(0)
    attention = DeformableAttention(8, 2, PATCHES.space).to(weights)
    seen: list[Tensor] = []
    for name in ("places", "sampled"):
        method = getattr(attention, name)
        keep = lambda *read, method=method: seen.append(method(*read)) or seen[-1]  # noqa: E731
        object.__setattr__(attention, name, keep)
    with torch.autocast("cpu", torch.bfloat16):
        got = attention(torch.randn(1, 4, 49, 8).to(weights), 0)
    assert got.dtype == torch.bfloat16
    assert [one.dtype for one in seen] == [torch.float32] * 2
    assert not torch.equal(seen[0], seen[0].bfloat16().float())


# A checkpoint, and text


@torch.inference_mode()
def test_a_checkpoint_holds_what_learned_of_the_tower(tmp_path: Path) -> None:
    recognizer = small_resnet()
    assert recognizer.tuned_names == []
    vit = tiny_recognizer("d2st")
    save_checkpoint(vit, tmp_path, "card")
    again = load_recognizer(str(tmp_path))
    frames = clips(1)
    torch.testing.assert_close(
        again.video(again.trunk(frames), Alone()), vit.video(vit.trunk(frames), Alone())
    )


def test_what_learns_of_a_librarys_tower_is_stored_and_no_more() -> None:
    from model.checkpoint import _stored_names

    image, _ = meta_towers(VIT_B.name)
    recognizer = build_recognizer(METHODS["d2st"], image, None)
    stored = [n for n in _stored_names(recognizer) if n.startswith("video.tower.")]
    assert sorted(stored) == [
        "video.tower.model.class_embedding",
        "video.tower.model.ln_post.bias",
        "video.tower.model.ln_post.weight",
    ]


def test_features_that_are_not_in_the_space_of_text_meet_none() -> None:
    image, text = meta_towers(VIT_B.name)
    with pytest.raises(MethodError, match="width 768 are not in the space of text"):
        build_recognizer(MethodConfig(backbone=VIT_B, projected=False), image, text)
    joint = MethodConfig(backbone=VIT_B, visual=D2stConfig())
    assert build_recognizer(joint, image, text).video.features == 512
