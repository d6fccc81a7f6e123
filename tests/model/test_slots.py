"""Slots: a foreign part is used, asked and scored by what it declares, never by its type."""

import ast
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.assembly.recognizer import build_recognizer
from model.backbones.attention import attention
from model.backbones.opening import towers
from model.checkpoint import load_recognizer, save_checkpoint
from model.config.blocks import TaskConfig
from model.config.fusion import ConvexFusion, GeometricFusion, TwoScores
from model.config.matching import COSINE, MatcherConfig, OtamMatcher
from model.config.method import MethodConfig, Tune
from model.config.temporal import ConvolutionConfig
from model.config.towers import TimmConfig
from model.encoder import VideoEncoder
from model.episode import ClassSet, EncodedSupport
from model.errors import EpisodeError, MethodError
from model.fusion import Convex
from model.matching.cosine import CosineOfMeans
from model.methods import check_served
from model.recognizer import Recognizer
from model.slots import BlockView, TransformerBlock
from model.text import template_stages
from tests.episodes import score_episode
from tests.model.tiny import LABELS, class_set, clips, tiny_recognizer, tiny_text

CLASSES = [0, 0, 1, 1, 1, 2]
ROOT = Path(__file__).parents[2]


class Gate(nn.Module):
    """A foreign adapted block: no bottleneck, one trained number, attention across clips."""

    reads_text = False

    def __init__(self, block: TransformerBlock, *, across_clips: bool = False) -> None:
        super().__init__()
        self.block = block
        self.across_clips = across_clips
        self.gain = nn.Parameter(torch.zeros(1))
        self.asked = 0

    def is_initial(self) -> bool:
        self.asked += 1
        return not torch.any(self.gain)

    def forward(self, tokens_BTLD: Tensor, view: BlockView) -> Tensor:
        normed_NLD = self.block.norm_attention(tokens_BTLD).flatten(0, 1)
        update_BTLD = attention(self.block, normed_NLD).unflatten(0, tokens_BTLD.shape[:2])
        tokens_BTLD = tokens_BTLD + (1 + self.gain) * update_BTLD
        if self.across_clips and (attended := view.attend(self.block, tokens_BTLD)) is not None:
            tokens_BTLD = tokens_BTLD + self.gain * attended
        return tokens_BTLD + self.block.mlp(self.block.norm_mlp(tokens_BTLD))


def gated(*, across_clips: bool = False, query_context: str = "none") -> Recognizer:
    """Build a method around two foreign blocks."""
    recognizer = tiny_recognizer("frozen", trained=False, query_context=query_context)
    tower = recognizer.video.tower
    blocks = [Gate(block, across_clips=across_clips) for block in tower.blocks[-2:]]
    return recognizer.with_encoders(VideoEncoder(tower, blocks, frames=8), recognizer.text)


def learn(recognizer: Recognizer) -> Recognizer:
    with torch.no_grad():
        for block in recognizer.video.adapted:
            block.gain.fill_(0.7)
    return recognizer


def logits(recognizer: Recognizer, queries: Tensor, supports: list[EncodedSupport]) -> list[Any]:
    found = recognizer.match(recognizer.encode_query(queries, supports), supports)
    return [score.logits_N for score in found]


# A foreign adapted block


@torch.inference_mode()
def test_a_foreign_block_with_another_trained_part_is_asked_and_counts_as_trained() -> None:
    fresh, frozen = gated(), tiny_recognizer("frozen", trained=False)
    assert not fresh.trained
    assert [block.asked for block in fresh.video.adapted] == [1, 1]
    tokens = [one.trunk(clips(4)) for one in (fresh, frozen)]
    got, want = (
        score_episode(one, of[:3], [0, 1, 2], of[3:], None).logits_QN
        for one, of in zip((fresh, frozen), tokens, strict=True)
    )
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
    learn(fresh)
    assert fresh.trained
    moved = score_episode(fresh, tokens[0][:3], [0, 1, 2], tokens[0][3:], None).logits_QN
    assert not torch.allclose(moved, want, atol=1e-3)


@torch.inference_mode()
@pytest.mark.parametrize("context", ["none", "self", "support", "prototype"])
def test_a_foreign_block_sees_whom_the_view_shows(context: str) -> None:
    recognizer = learn(gated(across_clips=True, query_context=context))
    assert recognizer.video.across_clips
    support, query = recognizer.trunk(clips(6)), recognizer.trunk(clips(4, seed=3))
    together = score_episode(recognizer, support, CLASSES, query, None).logits_QN
    task = recognizer.encode_support(support, CLASSES, None)
    remembers = [memory is not None for memory in task.memories]
    assert remembers == [context in ("support", "prototype")] * 2
    cached = torch.tensor(logits(recognizer, query, [task] * 4))
    torch.testing.assert_close(cached, together, atol=1e-4, rtol=1e-4)


PARTS = {
    "a text block": (lambda r: r.text.adapted[0].order.up.bias, {}),
    "a task adapter": (lambda r: r.video.adapted[1].task.up.bias, {}),
    "a convolution along time": (
        lambda r: r.video.temporal.along.bias,
        {"temporal": ConvolutionConfig()},
    ),
}


@pytest.mark.parametrize("part", PARTS)
def test_every_part_that_learned_makes_the_method_a_trained_one(part: str) -> None:
    parameter_of, changes = PARTS[part]
    recognizer = tiny_recognizer(trained=False, **changes)
    assert not recognizer.trained
    with torch.no_grad():
        parameter_of(recognizer).add_(0.1)
    assert recognizer.trained


def test_no_code_asks_which_part_it_has() -> None:
    rooms = ("adapters", "matching", "prototypes", "temporal")
    files = [file for room in rooms for file in (ROOT / "model" / room).glob("*.py")]
    trees = [ast.parse(file.read_text()) for file in [*files, ROOT / "model/fusion.py"]]
    parts = {
        node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
    }
    parts.remove("Bottleneck")  # fills no slot; training sets its dropout
    assert {"TaskBlock", "Trx", "MeanPrototypes", "TemporalConvolution", "Geometric"} <= parts
    asking = []
    for package in ("model", "service", "training"):
        for file in sorted((ROOT / package).rglob("*.py")):
            if file.parent == ROOT / "model/assembly":
                continue  # asks configs, and one has the name of its part
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
                    named = {one.id for one in ast.walk(node.args[1]) if isinstance(one, ast.Name)}
                    asking += [f"{file.relative_to(ROOT)}: {name}" for name in named & parts]
    assert asking == []


# Text in the support features


@torch.inference_mode()
def test_supports_take_other_text_only_where_their_features_hold_none() -> None:
    holding, other = tiny_recognizer("clip_fsar"), tiny_recognizer()
    assert (holding.needs_text, other.needs_text) == (True, False)
    for recognizer, refuses in ((holding, True), (other, False)):
        text = tiny_text(recognizer, LABELS[:3])
        task = recognizer.encode_support(recognizer.trunk(clips(6)), CLASSES, text)
        later = tiny_text(recognizer, LABELS[3:6])
        if refuses:
            with pytest.raises(EpisodeError, match="encode the supports again with the new text"):
                task.with_text(later)
        else:
            assert task.with_text(later).text_NAE is later


def test_text_needs_a_text_tower() -> None:
    method = tiny_recognizer("clip_fsar").config
    image, _ = towers(method.backbone)
    recognizer = build_recognizer(method, image, None)
    assert not recognizer.needs_text
    assert not recognizer.has_text


# Scores by task


class Spy(nn.Module):
    """A matcher that notes how many classes and queries each call sees."""

    bounded, reads_shots = True, False

    def __init__(self, *, per_task: bool) -> None:
        super().__init__()
        self.per_task = per_task
        self.seen: list[tuple[int, int]] = []
        self.cosine = CosineOfMeans()

    def is_initial(self) -> bool:
        return True

    def forward(self, query_QTE: Tensor, classes: ClassSet) -> Tensor:
        self.seen.append((len(query_QTE), len(classes.counts)))
        return self.cosine(query_QTE, classes)


@torch.inference_mode()
@pytest.mark.parametrize(("per_task", "seen"), [(True, [(3, 3), (2, 2)]), (False, [(5, 5)])])
def test_a_part_that_declares_it_sees_its_own_tasks_classes_alone(
    per_task: bool, seen: list[tuple[int, int]]
) -> None:
    recognizer = tiny_recognizer("frozen", fusion="video")
    tasks = [
        recognizer.encode_support(recognizer.trunk(clips(len(classes), seed=seed)), classes, None)
        for seed, classes in ((1, CLASSES), (2, [0, 1]))
    ]
    recognizer.matcher = Spy(per_task=per_task)
    mixed = [tasks[0], tasks[1], tasks[0], tasks[1], tasks[0]]
    queries = recognizer.trunk(clips(5, seed=3))
    together = logits(recognizer, queries, mixed)
    assert recognizer.matcher.seen == seen
    assert [len(found) for found in together] == [3, 2, 3, 2, 3]
    for place, task in enumerate(mixed):
        (alone,) = logits(recognizer, queries[place : place + 1], [task])
        assert together[place] == pytest.approx(alone, abs=1e-4)


@pytest.mark.parametrize("slot", ["matcher", "fusion", "text_head"])
def test_one_part_that_declares_it_has_the_whole_method_scored_by_task(slot: str) -> None:
    recognizer = tiny_recognizer()
    assert not recognizer.per_task
    getattr(recognizer, slot).per_task = True
    assert recognizer.per_task


@torch.inference_mode()
@pytest.mark.parametrize("fusion", [GeometricFusion(), ConvexFusion()], ids=lambda one: one.kind)
def test_a_softmax_fusion_in_a_mixed_batch_is_that_of_each_task(fusion: TwoScores) -> None:
    recognizer = tiny_recognizer("clip_fsar", fusion=fusion)
    assert recognizer.per_task
    tasks = [
        recognizer.encode_support(
            recognizer.trunk(clips(len(classes), seed=seed)),
            classes,
            tiny_text(recognizer, LABELS[: max(classes) + 1]),
        )
        for seed, classes in ((1, CLASSES), (2, [0, 1]))
    ]
    queries = recognizer.trunk(clips(6, seed=3))
    together = recognizer.match(recognizer.encode_query(queries, tasks * 3), tasks * 3)
    for place, score in enumerate(together):
        assert score.text_N is not None
        assert torch.tensor(score.text_N).exp().sum().item() == pytest.approx(1, abs=1e-5)
        (alone,) = logits(recognizer, queries[place : place + 1], [tasks[place % 2]])
        assert score.logits_N == pytest.approx(alone, abs=1e-4)


# Distances and text


def test_a_distance_meets_text_by_its_softmax_and_not_as_a_factor() -> None:
    with pytest.raises(MethodError, match="set fusion to 'video', 'geometric' or 'convex'"):
        tiny_recognizer(matcher=OtamMatcher(), fusion="product")
    fusion = GeometricFusion(text_share=0.25, softness=2.0)
    recognizer = tiny_recognizer("frozen", matcher=OtamMatcher(), fusion=fusion, stages=1)
    support, query = torch.randn(3, 8, 32), torch.randn(4, 8, 32)
    text_NAE = tiny_text(recognizer, LABELS[:3])
    with torch.inference_mode():
        scores = recognizer.score_features(support, torch.tensor([0, 1, 2]), query, text_NAE)
    assert scores.text_QN is not None
    video = (scores.video_QN / 2).softmax(dim=-1)
    want_QN = scores.text_QN.exp() ** 0.25 * video**0.75
    torch.testing.assert_close(scores.logits_QN.exp(), want_QN, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("matcher", [OtamMatcher(), COSINE], ids=lambda one: one.kind)
def test_the_convex_fusion_is_a_weighted_sum_of_probabilities(
    matcher: MatcherConfig, share: float
) -> None:
    fusion = ConvexFusion(text_share=share, sharpness=7.0)
    recognizer = tiny_recognizer("frozen", matcher=matcher, fusion=fusion, scale=9.0)
    support, query = torch.randn(3, 8, 32), torch.randn(4, 8, 32)
    text_NAE = torch.randn(3, 2, 32)
    args = support, torch.tensor([0, 1, 2]), query
    scores = recognizer.score_features(*args, text_NAE)
    unit_QE, unit_NAE = F.normalize(query.mean(dim=1), dim=-1), F.normalize(text_NAE, dim=-1)
    by_texts = [(7.0 * unit_QE @ unit_NAE[:, a].T).softmax(dim=-1) for a in range(2)]
    text = torch.stack(by_texts).mean(dim=0)
    assert scores.text_QN is not None
    torch.testing.assert_close(scores.text_QN.exp(), text)
    video_QN = scores.video_QN * (9.0 if matcher == COSINE else 1.0)
    want_QN = share * text + (1 - share) * video_QN.softmax(dim=-1)
    torch.testing.assert_close(scores.logits_QN.exp(), want_QN, atol=1e-6, rtol=1e-5)
    textless_QN = recognizer.score_features(*args, None).logits_QN
    torch.testing.assert_close(textless_QN, video_QN)


def test_a_share_of_nothing_passes_gradients_that_are_numbers() -> None:
    for share in (0.0, 1.0):
        scores = torch.randn(2, 3, requires_grad=True)
        Convex(share, 100.0)(scores, scores.log_softmax(dim=-1)).sum().backward()
        assert scores.grad is not None
        assert scores.grad.isfinite().all()


# Any number of stages


@torch.inference_mode()
@pytest.mark.parametrize("stages", [1, 2, 3, 5])
@pytest.mark.parametrize("preset", ["task_adapter_pp", "frozen"])
def test_any_number_of_stages_works_from_template_to_scores(preset: str, stages: int) -> None:
    recognizer = tiny_recognizer(preset, stages=stages)
    texts = [template_stages(label, stages) for label in LABELS[:3]]
    assert {len(of_label) for of_label in texts} == {stages}
    text_NAE = recognizer.encode_text(LABELS[:3], texts)
    assert text_NAE.shape[:2] == (3, stages)
    task = recognizer.encode_support(recognizer.trunk(clips(6)), CLASSES, text_NAE)
    query = recognizer.trunk(clips(2, seed=3))
    for score in recognizer.match(recognizer.encode_query(query, [task] * 2), [task] * 2):
        assert score.text_N is not None
        assert score.stages_NA is not None
        assert [len(of_class) for of_class in score.stages_NA] == [stages] * 3
        means = torch.tensor(score.stages_NA).mean(dim=1).tolist()
        assert score.text_N == pytest.approx(means, abs=1e-5)


@pytest.mark.parametrize("stages", [1, 2, 3, 5])
def test_a_clip_needs_a_frame_more_than_there_are_stages(stages: int) -> None:
    assert tiny_recognizer(stages=stages, frames=stages + 1).config.stages == stages
    with pytest.raises(MethodError, match=f"frames is {stages}; {stages} stages need {stages + 1}"):
        tiny_recognizer(stages=stages, frames=stages)
    assert tiny_recognizer(stages=stages, frames=1, fusion="video").config.frames == 1


def test_a_prompt_is_what_the_text_tower_reads() -> None:
    given = [("jump", ("goes up", "stays", "comes down"))]
    made = [
        tiny_recognizer(prompt=prompt).encode_text(*zip(*given, strict=True))
        for prompt in ("A video of action about {label}: {stage}", "{stage}", "{label}")
    ]
    assert not torch.allclose(made[0], made[1], atol=1e-3)
    fault = tiny_recognizer(prompt="zebra {stage}").text_fault("jump", given[0][1])
    assert fault is not None
    assert "'zebra'" in fault.sentence
    for prompt in ("{label} of {video}", "{label"):
        with pytest.raises(MethodError, match=r"use \{label\}, \{spelled\} and \{stage\}"):
            tiny_recognizer(prompt=prompt)


# What learns


def learning(tune: Tune) -> set[str]:
    recognizer = tiny_recognizer("task_adapter_pp", tune=tune, temporal=ConvolutionConfig())
    tower = ("video.tower.", "text.tower.")
    adapters = ("video.adapted.", "text.adapted.", "video.temporal_embedding")
    groups = {"image tower": tower[:1], "text tower": tower[1:], "adapters": adapters}
    found: set[str] = set()
    for name, parameter in recognizer.named_parameters():
        group = next((g for g, starts in groups.items() if name.startswith(starts)), "above")
        if parameter.requires_grad:
            found.add(group)
    return found


def test_the_config_says_what_learns() -> None:
    assert learning("frozen") == {"above"}
    assert learning("adapters") == {"above", "adapters"}
    assert learning("all") == {"above", "adapters", "image tower"}


def test_a_tuned_backbone_gets_gradients_and_its_text_tower_none() -> None:
    recognizer = tiny_recognizer("clip_fsar")
    tokens = recognizer.trunk(clips(5))
    text = tiny_text(recognizer, LABELS[:3])
    assert text is not None
    scores = score_episode(recognizer, tokens[:3], [0, 1, 2], tokens[3:], text)
    scores.logits_QN.square().sum().backward()
    gradient = {n for n, p in recognizer.named_parameters() if p.grad is not None}
    assert any(name.startswith("video.tower.") for name in gradient)
    assert any(name.startswith("prototypes.") for name in gradient)
    assert "text_head.scale" in gradient
    assert not any(name.startswith("text.tower.") for name in gradient)


@torch.inference_mode()
@pytest.mark.parametrize("tune", ["adapters", "all"])
def test_a_tuned_backbone_is_in_the_checkpoint_and_loads_to_the_same_scores(
    tune: Tune, tmp_path: Path
) -> None:
    backbone = TimmConfig(name="vit_tiny_patch16_224", pretrained=False)
    method = MethodConfig(
        backbone=backbone, visual=TaskConfig(blocks=1), fusion="video", tune=tune, frames=2
    )
    saved = build_recognizer(method, *towers(backbone))
    for parameter in saved.parameters():
        if parameter.requires_grad:
            parameter.add_(0.02 * torch.randn_like(parameter))
    save_checkpoint(saved, tmp_path / "saved", "")
    if tune == "adapters":  # its random tower is nowhere to be found again
        size = (tmp_path / "saved" / "weights.safetensors").stat().st_size
        assert (
            size < 4 * 1.1 * sum(p.numel() for p in saved.parameters() if p.requires_grad) + 10**4
        )
        return
    loaded = load_recognizer(str(tmp_path / "saved"))
    frames = clips(3, frames=2, size=224)
    got, want = (
        score_episode(one, (tokens := one.trunk(frames))[:2], [0, 1], tokens[2:], None).logits_QN
        for one in (loaded, saved)
    )
    torch.testing.assert_close(got, want, atol=0, rtol=0)
    assert loaded.trained


# Queries that see each other


@pytest.mark.parametrize(
    ("changes", "want"),
    [
        ({}, False),
        ({"align": "temporal"}, False),
        ({"query_context": "prototype"}, False),
        ({"query_context": "joint"}, True),
        ({"align": "joint"}, True),
        ({"align": "joint", "fusion": "video"}, False),
        ({"query_context": "joint", "visual": None}, False),
    ],
)
def test_a_method_declares_whether_queries_see_each_other(
    changes: dict[str, Any], want: bool
) -> None:
    assert tiny_recognizer(**changes).transductive is want


def test_presets_that_are_served_are_not_transductive() -> None:
    for preset in ("ted", "clip_fsar", "task_adapter_pp"):
        recognizer = tiny_recognizer(preset)
        check_served(recognizer.config)
        assert not recognizer.transductive


@torch.inference_mode()
def test_what_is_called_inductive_scores_queries_alone_as_together() -> None:
    """By features: the text head and the matcher are given one query, or all."""
    for changes in ({}, {"align": "temporal"}, {"align": "joint"}):
        recognizer = tiny_recognizer(**changes)
        query, support = torch.randn(4, 8, 32), class_set(torch.randn(3, 8, 32))
        text = tiny_text(recognizer, LABELS[:3])
        assert text is not None
        together, _ = recognizer.text_head(query, text)
        alone, _ = recognizer.text_head(query[:1], text)
        video = recognizer.matcher(query, support)[:1]
        torch.testing.assert_close(recognizer.matcher(query[:1], support), video)
        assert torch.allclose(together[:1], alone, atol=1e-4) != recognizer.transductive


@pytest.mark.parametrize("preset", ["task_adapter_pp", "clip_fsar"])
@pytest.mark.parametrize("texts", [1, 2, 4])
def test_text_for_another_number_of_classes_is_refused(preset: str, texts: int) -> None:
    recognizer = tiny_recognizer(preset)
    tokens, classes_S = recognizer.trunk(clips(4)), torch.tensor([0, 1, 2, 2])
    text_NAE = tiny_text(recognizer, LABELS[:texts])
    want = f"Text for {texts} classes came with supports of 3; give text for every class"
    with pytest.raises(EpisodeError, match=want):
        recognizer.encode_support(tokens, classes_S.tolist(), text_NAE)
    features = torch.randn(4, 8, 32)
    with pytest.raises(EpisodeError, match=want):
        recognizer.score_features(features, classes_S, features, text_NAE)


def test_places_of_frames_alone_make_a_method_trained() -> None:
    recognizer = tiny_recognizer("task_adapter", trained=False)
    assert not recognizer.trained
    with torch.no_grad():
        recognizer.video.temporal_embedding[0].fill_(0.1)
    assert recognizer.trained
