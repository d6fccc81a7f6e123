"""MA-CLIP: values by formula (no code is public), sizes, and class text in the blocks of supports.

The golden file pins our reading of the paper, not the authors' program.
"""

from dataclasses import replace
from pathlib import Path

import open_clip
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from model.adapters.multimodal import MultimodalBlock
from model.assembly.fusion import build_fusion, build_text_head
from model.assembly.recognizer import build_recognizer
from model.backbones.views.clip import ClipImageTower
from model.config.blocks import MultimodalConfig
from model.config.fusion import ConvexFusion
from model.config.matching import BiMhmMatcher, OtamMatcher, TrxMatcher
from model.config.method import MethodConfig
from model.config.prototypes import TextGuidedPrototypes
from model.config.towers import OpenClipConfig
from model.encoder import VideoEncoder
from model.episode import EncodedSupport
from model.errors import EpisodeError, MethodError
from model.methods import METHODS, check_served
from model.prototypes import text_guided
from model.recognizer import Recognizer
from model.views import Alone
from tests.episodes import score_episode
from tests.model.golden_methods import Case, files_of
from tests.model.test_assembly import meta_towers, trainable
from tests.model.tiny import LABELS, TOWERS, clips, tiny_recognizer, tiny_text

CLASSES = [0, 0, 1, 1, 1, 2]
ADAPTERS = {"time": "time_adapter", "modal": "modal_adapter", "joint": "joint_adapter"}
TPCM = {"norm": "norm", "to_q": "to_q", "to_k": "to_k", "to_v": "to_v", "to_out": "to_out"}
MLP = {"mlp.0": "fc1", "mlp.2": "fc2"}


@pytest.fixture(params=files_of("maclip"), ids=lambda file: file.stem)
def case(request: pytest.FixtureRequest) -> Case:
    file: Path = request.param
    return Case(file)


def tower_of(case: Case) -> ClipImageTower:
    """Make a CLIP's image tower of the case's size."""
    meta = case.meta
    clip = open_clip.CLIP(
        embed_dim=meta["embed"],
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


def recognizer_of(case: Case, *, merge: bool = False) -> Recognizer:
    """Build the method with the weights of a case."""
    meta, spec = case.meta, case.spec
    hidden = spec["blocks.0.time_adapter.down.weight"][0]
    method = MethodConfig(
        backbone=OpenClipConfig(name="toy"),
        frames=meta["frames"],
        visual=MultimodalConfig(
            blocks=meta["layers"],
            ratio=(hidden + 0.5) / meta["width"],
            joint_scale=meta["joint_scale"],
        ),
        temporal_embedding="input",
        prototypes=TextGuidedPrototypes(
            heads=meta["context_heads"], hidden=meta["context_hidden"], merge_before=merge
        ),
        matcher=BiMhmMatcher(),
        fusion="video",
    )
    recognizer = build_recognizer(method, tower_of(case), None)
    video = recognizer.video
    adapters = {
        f"{block}.{ours}.{layer}.{kind}": f"blocks.{block}.{theirs}.{layer}.{kind}"
        for block in range(meta["layers"])
        for ours, theirs in ADAPTERS.items()
        for layer in ("down", "up")
        for kind in ("weight", "bias")
    } | {
        f"{block}.text.{kind}": f"blocks.{block}.text_fc.{kind}"
        for block in range(meta["layers"])
        for kind in ("weight", "bias")
    }
    tpcm = {
        f"{ours}.{kind}": name
        for ours, theirs in (TPCM | MLP).items()
        for kind in ("weight", "bias")
        if (name := f"tpcm.{theirs}.{kind}") in spec
    }
    own = set(adapters.values()) | set(tpcm.values()) | {"temporal_embedding"}
    tower = {
        name.replace("blocks.", "transformer.resblocks.", 1): name for name in spec.keys() - own
    }
    case.fill(video.tower.model, tower)
    case.fill(video.adapted, adapters)
    assert isinstance(recognizer.prototypes, text_guided.TextGuidedPrototypes)
    case.fill(recognizer.prototypes, tpcm)
    assert video.temporal_embedding is not None
    with torch.no_grad():
        video.temporal_embedding.copy_(case.weight("temporal_embedding")[0, :, None])
    case.assert_all_used()
    return recognizer


def features_of(video: VideoEncoder, case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """Return features of supports with text, of queries, and of supports without text."""
    support, query = (video.trunk_of_pixels(case.inputs[name]) for name in ("support", "query"))
    text_SE = case.inputs["text"][case.meta["support_classes"]]
    return video(support, Alone(), text_SE), video(query, Alone()), video(support, Alone())


# Values


@torch.inference_mode()
def test_the_tower_gives_the_features_of_our_formula(case: Case) -> None:
    told, query, untold = features_of(recognizer_of(case).video, case)
    case.close(told, "support_features")
    case.close(query, "query_features")
    case.close(untold, "support_features_as_query")


@torch.inference_mode()
@pytest.mark.parametrize("merge", [False, True])
def test_prototypes_are_guided_as_our_formula_says(case: Case, *, merge: bool) -> None:
    prototypes = recognizer_of(case, merge=merge).prototypes
    support, classes_S = case.want("support_features"), torch.tensor(case.meta["support_classes"])
    text_NE = case.inputs["text"]
    classes = prototypes(support, classes_S, text_NE)
    case.close(classes.prototype_NTE, f"prototypes{'_merged_before' * merge}")
    case.close(prototypes.query(case.want("query_features")), "query_context")
    assert isinstance(prototypes, text_guided.TextGuidedPrototypes)
    case.close(prototypes.guided(support, text_NE[classes_S]), "support_context")


@torch.inference_mode()
def test_text_and_matching_meet_as_our_formula_says(case: Case) -> None:
    recognizer, meta = recognizer_of(case), case.meta
    method = replace(
        recognizer.config,
        fusion=ConvexFusion(text_share=meta["text_share"], sharpness=meta["sharpness"]),
    )
    head = build_text_head(method, recognizer.video.features)
    fusion = build_fusion(method, recognizer.matcher)
    classes_S = torch.tensor(meta["support_classes"])
    text_NAE = case.inputs["text"][:, None]
    classes = recognizer.prototypes(case.want("support_features"), classes_S, text_NAE[:, 0])
    query_QTE = case.want("query_features")
    video_QN = recognizer.matcher(recognizer.prototypes.query(query_QTE), classes)
    case.close(-video_QN, "distances")
    case.close(video_QN.softmax(dim=-1), "visual_probabilities")
    text_QN, _ = head(query_QTE, text_NAE)  # of frames in front of the guiding layer
    case.close(text_QN.exp(), "text_probabilities")
    case.close(fusion(video_QN, text_QN).exp(), "combined")


# Sizes


def test_the_preset_has_the_papers_size() -> None:
    """18.54 M in the paper: blocks with ViT-B/32, TPCM, and the embedding of 8 frames."""
    method = replace(
        METHODS["ma_clip"], backbone=OpenClipConfig(name="ViT-B-32-quickgelu"), frames=8
    )
    recognizer = build_recognizer(method, *meta_towers("ViT-B-32-quickgelu"))
    assert trainable(recognizer.video.adapted) == 15_379_200
    assert trainable(recognizer) == 18_535_168


@pytest.mark.parametrize(("features", "want"), [(512, 3_149_824), (1024, 8_394_752)])
def test_the_layer_has_the_papers_size(features: int, want: int) -> None:
    with torch.device("meta"):
        layer = text_guided.TextGuidedPrototypes(features, heads=8, hidden=2048)
    assert trainable(layer) == want


# Class text in the blocks


def tiny(**changes: object) -> Recognizer:
    return tiny_recognizer("ma_clip", **changes)


@torch.inference_mode()
def test_supports_see_the_text_of_their_class_and_queries_none() -> None:
    recognizer = tiny()
    video, tokens = recognizer.video, recognizer.trunk(clips(2))
    text_BE = torch.randn(2, 32)
    told, other = video(tokens, Alone(), text_BE), video(tokens, Alone(), text_BE.flip(0))
    untold = video(tokens, Alone())
    for one, another in ((told, other), (told, untold)):
        assert not torch.allclose(one, another, atol=1e-3)
    torch.testing.assert_close(
        video(tokens[:1], Alone(), text_BE[:1]), told[:1], atol=1e-5, rtol=1e-5
    )


@torch.inference_mode()
def test_a_support_is_no_valid_query_and_is_one_without_its_text() -> None:
    recognizer = tiny()
    tokens, text = recognizer.trunk(clips(6)), tiny_text(recognizer, LABELS[:3])
    told = recognizer.encode_support(tokens, CLASSES, text)
    untold = recognizer.encode_support(tokens, CLASSES, None)
    assert (told.text_inside, untold.text_inside) == (True, False)
    assert not torch.allclose(told.classes.prototype_NTE, untold.classes.prototype_NTE, atol=1e-3)
    as_query = recognizer.prototypes.query(recognizer.encode_query(tokens, [untold] * 6))
    torch.testing.assert_close(untold.classes.prototype_NTE[2], as_query[5], atol=1e-4, rtol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("described", [True, False])
def test_supports_first_and_queries_later_score_as_a_training_episode(*, described: bool) -> None:
    recognizer = tiny()
    support, query = recognizer.trunk(clips(6)), recognizer.trunk(clips(4, seed=3))
    text = tiny_text(recognizer, LABELS[:3]) if described else None
    whole = score_episode(recognizer, support, CLASSES, query, text).logits_QN
    task = recognizer.encode_support(support, CLASSES, text)
    cached = recognizer.match(recognizer.encode_query(query, [task] * 4), [task] * 4)
    got = torch.tensor([score.logits_N for score in cached])
    torch.testing.assert_close(got, whole, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_text_that_arrives_late_means_encoding_the_supports_again() -> None:
    recognizer = tiny()
    tokens = recognizer.trunk(clips(6))
    task = recognizer.encode_support(tokens, CLASSES, tiny_text(recognizer, LABELS[:3]))
    assert recognizer.needs_text
    assert not recognizer.supports_apart
    with pytest.raises(EpisodeError, match="encode the supports again"):
        task.with_text(tiny_text(recognizer, LABELS[3:6]))


@pytest.mark.parametrize("texts", [2, 4])
def test_text_for_another_number_of_classes_is_refused(texts: int) -> None:
    recognizer = tiny()
    with pytest.raises(EpisodeError, match=f"Text for {texts} classes came with supports of 3"):
        recognizer.encode_support(
            recognizer.trunk(clips(6)), CLASSES, tiny_text(recognizer, LABELS[:texts])
        )


@torch.inference_mode()
def test_permuted_classes_permute_the_scores_and_shots_have_no_order() -> None:
    recognizer = tiny()
    support, query = recognizer.trunk(clips(6)), recognizer.trunk(clips(3, seed=3))
    text = tiny_text(recognizer, LABELS[:3])
    assert text is not None

    def logits(order: list[int], classes: list[int], text: Tensor) -> Tensor:
        return score_episode(recognizer, support[order], classes, query, text).logits_QN

    plain = logits([0, 1, 2, 3, 4, 5], CLASSES, text)
    shots = logits([1, 0, 4, 3, 2, 5], CLASSES, text)
    torch.testing.assert_close(shots, plain, atol=1e-4, rtol=1e-4)
    new_index = torch.tensor([2, 0, 1])
    permuted = logits([0, 1, 2, 3, 4, 5], new_index[CLASSES].tolist(), text[[1, 2, 0]])
    torch.testing.assert_close(permuted[:, new_index], plain, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize(
    "matcher", [OtamMatcher(smoothing=0.5), BiMhmMatcher(), TrxMatcher(width=16)]
)
def test_a_query_scores_alone_as_among_others_under_each_of_the_papers_matchers(
    matcher: OtamMatcher | BiMhmMatcher | TrxMatcher,
) -> None:
    recognizer = tiny(matcher=matcher)
    check_served(recognizer.config)
    assert not recognizer.transductive
    task: EncodedSupport = recognizer.encode_support(
        recognizer.trunk(clips(6)), CLASSES, tiny_text(recognizer, LABELS[:3])
    )
    tokens = recognizer.trunk(clips(3, seed=3))
    places = [2, 0, 1, 0]
    mixed = recognizer.match(recognizer.encode_query(tokens[places], [task] * 4), [task] * 4)
    for place, got in zip(places, mixed, strict=True):
        one = tokens[place : place + 1]
        (alone,) = recognizer.match(recognizer.encode_query(one, [task]), [task])
        assert got.logits_N == pytest.approx(alone.logits_N, abs=1e-4)


# What learns


def test_gradients_reach_what_learns_and_nothing_else() -> None:
    recognizer = tiny()
    tokens = recognizer.trunk(clips(5))
    text = tiny_text(recognizer, LABELS[:3])
    scores = score_episode(recognizer, tokens[:3], [0, 1, 2], tokens[3:], text)
    F.cross_entropy(scores.logits_QN, torch.tensor([0, 1])).backward()
    reached = {n for n, p in recognizer.named_parameters() if p.grad is not None and p.grad.any()}
    learns = {n for n, p in recognizer.named_parameters() if p.requires_grad}
    assert reached == learns
    assert learns == {
        name
        for name, _ in recognizer.named_parameters()
        if name.startswith(("video.adapted.", "prototypes.", "video.temporal_embedding"))
    }


def test_a_fresh_block_adds_keys_and_no_adapter() -> None:
    recognizer = tiny(trained=False)
    (block, _) = recognizer.video.adapted
    assert isinstance(block, MultimodalBlock)
    assert all(part.is_initial() for part in (block.time, block.modal, block.joint))
    assert not block.text.bias.any()
    assert recognizer.trained  # it is no frozen CLIP, even so


def test_a_tower_without_a_class_token_is_refused() -> None:
    image, _ = meta_towers("ViT-B-16-quickgelu")
    image.prefix_tokens = 0
    with pytest.raises(MethodError, match="follow the class token along time"):
        build_recognizer(METHODS["ma_clip"], image, None)


def test_heads_that_do_not_divide_the_features_are_refused() -> None:
    with pytest.raises(MethodError, match="5 heads do not divide"):
        tiny(prototypes=TextGuidedPrototypes(heads=5))
    assert TOWERS.width % 5
