"""CLIP-FSAR: released values, sizes, and text as part of the support features."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from model.config.fusion import GeometricFusion
from model.config.matching import OtamMatcher
from model.config.prototypes import TextTokenPrototypes
from model.episode import EncodedSupport
from model.errors import EpisodeError
from model.matching.frame_pairs import frame_distances
from model.prototypes import text_token
from model.recognizer import Recognizer
from model.text import prompts, template_stages
from tests.model.golden_methods import Case, files_of
from tests.model.tiny import LABELS, TOWERS, clips, tiny_recognizer, tiny_text

CLASSES = [0, 0, 1, 1, 1, 2]
LAYER = {
    "norm": "0.norm",
    "to_q": "0.fn.to_q",
    "to_k": "0.fn.to_k",
    "to_v": "0.fn.to_v",
    "to_out": "0.fn.to_out.0",
    "mlp.0": "1.net.0",
    "mlp.3": "1.net.3",
}
HEADS = 8


@pytest.fixture(params=files_of("clipfsar"), ids=lambda file: file.stem)
def case(request: pytest.FixtureRequest) -> Case:
    file: Path = request.param
    return Case(file)


def recognizer_of(case: Case, *, merge: bool = False, one_direction: bool = False) -> Recognizer:
    """Build the method with the weights of a case, on a tower that is not used."""
    meta = case.meta
    width = meta["features"]
    recognizer = tiny_recognizer(
        "clip_fsar",
        backbone=replace(TOWERS, width=width, depth=1),
        frames=meta["frames"],
        prototypes=TextTokenPrototypes(
            depth=meta["depth"],
            heads=HEADS,
            hidden=case.spec["context2.layers.0.1.net.0.weight"][0],
            merge_before=merge,
        ),
        matcher=OtamMatcher(smoothing=0.5, eps=0.01, one_direction=one_direction),
        fusion=GeometricFusion(text_share=meta["text_share"], softness=8.0),
    )
    names = {
        f"transformer.{layer}.{ours}.{kind}": name
        for layer in range(meta["depth"])
        for ours, theirs in LAYER.items()
        for kind in ("weight", "bias")
        if (name := f"context2.layers.{layer}.{theirs}.{kind}") in case.spec
    }
    case.fill(recognizer.prototypes, names)  # type: ignore[arg-type]
    case.fill(recognizer.text_head, {"scale": "scale"})  # type: ignore[arg-type]
    case.assert_all_used()
    return recognizer


def classes_of(case: Case) -> Tensor:
    return torch.tensor(case.meta["support_classes"])


def text_of(case: Case, name: str = "text_test") -> Tensor:
    """Return the text of each class of the episode, one stage each."""
    return case.inputs[name][case.meta["global_classes"]][:, None]


@torch.inference_mode()
def test_frames_are_modulated_as_released(case: Case) -> None:
    prototypes = recognizer_of(case).prototypes
    prototypes.keep_shots = True  # type: ignore[attr-defined]  # as for a matcher that reads them
    classes_S, text_NE = classes_of(case), text_of(case)[:, 0]
    case.close(prototypes.query(case.inputs["query"]), "query_context")
    classes = prototypes(case.inputs["support"], classes_S, text_NE)
    order_S = classes_S.argsort(stable=True)
    want_STE = case.want("support_context")[order_S]
    torch.testing.assert_close(torch.cat(classes.shots), want_STE, atol=1e-4, rtol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("ending", ["", "_merged_before", "_one_direction"])
def test_scores_are_the_released_ones(case: Case, ending: str) -> None:
    recognizer = recognizer_of(
        case, merge=ending == "_merged_before", one_direction=ending == "_one_direction"
    )
    scores = recognizer.score_features(
        case.inputs["support"], classes_of(case), case.inputs["query"], text_of(case)
    )
    case.close(scores.video_QN, f"logits{ending}")
    assert scores.text_QN is not None
    case.close(scores.text_QN.exp(), "text_probabilities")
    if ending != "_one_direction":
        case.close(scores.logits_QN.exp(), f"combined{ending}")


@torch.inference_mode()
def test_a_training_step_has_the_released_logits_and_loss(case: Case) -> None:
    recognizer, meta = recognizer_of(case), case.meta
    support, query = case.inputs["support"], case.inputs["query"]
    text_NAE = text_of(case, "text_train")
    logits_QN = recognizer.score_features(support, classes_of(case), query, text_NAE).video_QN
    case.close(logits_QN, "train_logits")
    mean_BTE = torch.cat([support, query]).mean(dim=1, keepdim=True)
    cosine = 1 - frame_distances(mean_BTE, case.inputs["text_train"][:, None], eps=0.01)
    class_logits = meta["text_scale"] * cosine[:, :, 0, 0]
    case.close(class_logits, "train_class_logits")
    query_classes = torch.tensor(meta["query_classes"])
    of_clips = torch.tensor(meta["global_classes"])[torch.cat([classes_of(case), query_classes])]
    loss = F.cross_entropy(logits_QN, query_classes)
    loss = loss + meta["text_weight"] * F.cross_entropy(class_logits, of_clips)
    case.close(loss, "train_loss")


@pytest.mark.parametrize(("features", "want"), [(512, 3_149_824), (1024, 8_394_752)])
def test_the_transformer_has_the_papers_size(features: int, want: int) -> None:
    with torch.device("meta"):
        layer = text_token.Layer(features, heads=8, hidden=2048, dropout=0.2, mlp_dropout=0.05)
    prototypes = text_token.TextTokenPrototypes([layer])
    assert sum(parameter.numel() for parameter in prototypes.parameters()) == want


def test_the_prompt_is_the_papers() -> None:
    config = tiny_recognizer("clip_fsar").config
    stages = template_stages("brush_hair", config.stages)
    assert prompts("brush_hair", stages, config.prompt) == ("a photo of brush hair",)


@torch.inference_mode()
def test_class_text_is_part_of_the_support_features() -> None:
    recognizer = tiny_recognizer("clip_fsar")
    tokens = recognizer.trunk(clips(6))
    made = [
        recognizer.encode_support(tokens, CLASSES, text)
        for text in (
            tiny_text(recognizer, LABELS[:3]),
            tiny_text(recognizer, LABELS[3:6]),
            None,
        )
    ]
    prototypes = [task.classes.prototype_NTE for task in made]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not torch.allclose(prototypes[one], prototypes[other], atol=1e-3)
    assert recognizer.needs_text
    assert [task.text_inside for task in made] == [True, True, False]


@torch.inference_mode()
def test_text_that_arrives_late_scores_as_text_that_was_there() -> None:
    recognizer = tiny_recognizer("clip_fsar")
    support, query = recognizer.trunk(clips(6)), recognizer.trunk(clips(4, seed=3))
    text = tiny_text(recognizer, LABELS[:3])

    def logits(task: EncodedSupport) -> Tensor:
        found = recognizer.match(recognizer.encode_query(query, [task] * 4), [task] * 4)
        return torch.tensor([score.logits_N for score in found])

    there = recognizer.encode_support(support, CLASSES, text)
    late = recognizer.encode_support(support, CLASSES, None)
    assert not torch.allclose(logits(late), logits(there), atol=1e-3)
    swapped = late.with_text(text)  # its features know no text yet
    assert not torch.allclose(logits(swapped), logits(there), atol=1e-3)
    again = recognizer.encode_support(support, CLASSES, text)
    torch.testing.assert_close(logits(again), logits(there), atol=0, rtol=0)
    with pytest.raises(EpisodeError, match="encode the supports again"):
        there.with_text(tiny_text(recognizer, LABELS[3:6]))
    with pytest.raises(EpisodeError, match="encode the supports again"):
        there.with_text(None)


@torch.inference_mode()
def test_without_text_clips_alone_decide() -> None:
    recognizer = tiny_recognizer("clip_fsar")
    support, query = recognizer.trunk(clips(6)), recognizer.trunk(clips(4, seed=3))
    task = recognizer.encode_support(support, CLASSES, None)
    for score in recognizer.match(recognizer.encode_query(query, [task] * 4), [task] * 4):
        assert score.text_N is None
        assert score.logits_N == score.video_N


@torch.inference_mode()
def test_a_clip_is_modulated_by_its_own_frames_in_any_order() -> None:
    """Nothing encodes places: what frames are in is carried by the matcher alone."""
    prototypes = tiny_recognizer("clip_fsar").prototypes
    query, order = torch.randn(2, 8, 32), [3, 1, 0, 2, 7, 5, 6, 4]
    got, want = prototypes.query(query[:, order]), prototypes.query(query)[:, order]
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_values_are_dropped_in_training_alone() -> None:
    prototypes = tiny_recognizer("clip_fsar").prototypes
    assert isinstance(prototypes, torch.nn.Module)
    query = torch.randn(2, 8, 32)
    assert torch.equal(prototypes.query(query), prototypes.query(query))
    prototypes.train()
    assert not torch.equal(prototypes.query(query), prototypes.query(query))
