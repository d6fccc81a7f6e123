"""The invariance tests of model/papers/matching.md, section 7, for presets and contexts."""

from pathlib import Path

import pytest
import torch

from model.checkpoint import load_recognizer, save_checkpoint
from model.episode import EncodedSupport, MatchScores
from model.errors import EpisodeError, MethodError
from model.methods import METHODS, SERVED_ALIGNS, SERVED_CONTEXTS, check_served
from model.recognizer import Recognizer
from tests.episodes import score_episode
from tests.model.tiny import LABELS, clips, tiny_recognizer, tiny_text

WITHOUT_TEXT = "clip_fsar without text"  # as its tasks are until their text arrives
CASES = [
    (preset, "none") for preset in ("frozen", "aim", "aim_top", "ted", "clip_fsar", WITHOUT_TEXT)
] + [
    (preset, context)
    for preset in METHODS
    if preset.startswith("task")
    for context in SERVED_CONTEXTS
]
CLASSES = [0, 0, 1, 1, 1, 2]  # ragged shots


@pytest.fixture(params=CASES, ids="-".join, scope="module")
def recognizer(request: pytest.FixtureRequest) -> Recognizer:
    preset, context = request.param
    method = "clip_fsar" if preset == WITHOUT_TEXT else preset
    recognizer = tiny_recognizer(method, query_context=context, align="temporal")
    recognizer.name = preset
    return recognizer


def text_of(recognizer: Recognizer, labels: tuple[str, ...]) -> torch.Tensor | None:
    """Encode the text of labels, where the case has any."""
    return None if recognizer.name == WITHOUT_TEXT else tiny_text(recognizer, labels)


@pytest.fixture(autouse=True)
def _no_gradients() -> object:
    with torch.inference_mode():
        yield


def support(recognizer: Recognizer, classes: list[int], seed: int = 1) -> EncodedSupport:
    text = text_of(recognizer, LABELS[: max(classes) + 1])
    return recognizer.encode_support(
        recognizer.trunk(clips(len(classes), seed=seed)), classes, text
    )


def classify(
    recognizer: Recognizer, queries: torch.Tensor, supports: list[EncodedSupport]
) -> list[MatchScores]:
    tokens = recognizer.trunk(queries)
    return recognizer.match(recognizer.encode_query(tokens, supports), supports)


def logits(scores: list[MatchScores]) -> torch.Tensor:
    return torch.tensor([score.logits_N for score in scores])


def test_a_query_scores_the_same_alone_and_in_any_batch(recognizer: Recognizer) -> None:
    task, other = support(recognizer, CLASSES), support(recognizer, [0, 1], seed=2)
    queries = clips(16, seed=3)
    mixed = [task if index % 3 else other for index in range(16)]
    together = classify(recognizer, queries, mixed)
    for index, mate in enumerate(mixed):
        alone = classify(recognizer, queries[index : index + 1], [mate])
        torch.testing.assert_close(
            logits(alone), logits(together[index : index + 1]), atol=1e-5, rtol=1e-5
        )
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0)).tolist()
    shuffled = classify(recognizer, queries[order], [mixed[index] for index in order])
    for place, index in enumerate(order):
        torch.testing.assert_close(
            torch.tensor(shuffled[place].logits_N),
            torch.tensor(together[index].logits_N),
            atol=1e-5,
            rtol=1e-5,
        )
    doubled = classify(recognizer, queries[[0, 0, 0]], [mixed[0]] * 3)
    torch.testing.assert_close(
        logits(doubled), logits(together[:1]).expand(3, -1), atol=1e-5, rtol=1e-5
    )


def test_permuting_classes_permutes_logits(recognizer: Recognizer) -> None:
    tokens, queries = recognizer.trunk(clips(6, seed=1)), clips(4, seed=3)
    text = text_of(recognizer, LABELS[:3])
    plain = recognizer.encode_support(tokens, CLASSES, text)
    new_index = [2, 0, 1]  # class c becomes new_index[c]
    permuted = recognizer.encode_support(
        tokens,
        [new_index[c] for c in CLASSES],
        None if text is None else text[[1, 2, 0]],
    )
    want = logits(classify(recognizer, queries, [plain] * 4))
    got = logits(classify(recognizer, queries, [permuted] * 4))
    torch.testing.assert_close(got[:, new_index], want, atol=1e-4, rtol=1e-4)


def test_permuting_shots_leaves_logits(recognizer: Recognizer) -> None:
    tokens, queries = recognizer.trunk(clips(6, seed=1)), clips(3, seed=3)
    text = text_of(recognizer, LABELS[:3])
    order = [3, 5, 1, 4, 0, 2]
    plain = recognizer.encode_support(tokens, CLASSES, text)
    shuffled = recognizer.encode_support(tokens[order], [CLASSES[i] for i in order], text)
    torch.testing.assert_close(
        logits(classify(recognizer, queries, [shuffled] * 3)),
        logits(classify(recognizer, queries, [plain] * 3)),
        atol=1e-4,
        rtol=1e-4,
    )


@pytest.mark.parametrize("queries", [1, 6, 7])
def test_any_number_of_queries_works(recognizer: Recognizer, queries: int) -> None:
    scores = classify(recognizer, clips(queries), [support(recognizer, CLASSES)] * queries)
    assert logits(scores).shape == (queries, 3)
    assert torch.isfinite(logits(scores)).all()


def test_duplicated_text_gives_equal_text_scores(recognizer: Recognizer) -> None:
    tokens = recognizer.trunk(clips(6, seed=1))
    text = text_of(recognizer, ("jump", "wave", "jump"))
    if text is None:
        pytest.skip("this case has no text")
    task = recognizer.encode_support(tokens, CLASSES, text)
    for score in classify(recognizer, clips(5, seed=3), [task] * 5):
        assert score.text_N is not None
        assert score.text_N[0] == pytest.approx(score.text_N[2], abs=1e-6)
        assert score.text_N[0] != pytest.approx(score.text_N[1], abs=1e-6)


def test_random_support_labels_give_chance(recognizer: Recognizer) -> None:
    """Queries resemble their class; when support labels are random, no order may leak them."""
    noise = torch.Generator().manual_seed(5)
    base = clips(3, seed=9).float()
    hits = trials = 0
    for _ in range(40):
        wobble = torch.randn(9, 8, 16, 16, 3, generator=noise) * 8
        members = (base.repeat_interleave(3, dim=0) + wobble).clamp(0, 255).to(torch.uint8)
        label_of = torch.randperm(3, generator=noise).tolist()
        tokens = recognizer.trunk(members)
        task = recognizer.encode_support(
            tokens[[0, 1, 3, 4, 6, 7]], [label_of[c] for c in (0, 0, 1, 1, 2, 2)], None
        )
        order = torch.randperm(3, generator=noise).tolist()
        queries = [2, 5, 8]
        scores = recognizer.match(
            recognizer.encode_query(tokens[[queries[i] for i in order]], [task] * 3), [task] * 3
        )
        hits += sum(
            int(torch.tensor(s.logits_N).argmax()) == i for s, i in zip(scores, order, strict=True)
        )
        trials += 3
    # 120 trials at chance 1/3: four standard deviations are 0.172
    assert abs(hits / trials - 1 / 3) < 0.172


@pytest.mark.parametrize("queries", [3, 4])  # 3 is the number of classes: no score is transposed
def test_one_masked_pass_equals_support_first(recognizer: Recognizer, queries: int) -> None:
    tokens_S = recognizer.trunk(clips(6, seed=1))
    tokens_Q = recognizer.trunk(clips(queries, seed=3))
    text = text_of(recognizer, LABELS[:3])
    together = score_episode(recognizer, tokens_S, CLASSES, tokens_Q, text)
    task = recognizer.encode_support(tokens_S, CLASSES, text)
    supports = [task] * queries
    cached = recognizer.match(recognizer.encode_query(tokens_Q, supports), supports)
    torch.testing.assert_close(together.logits_QN, logits(cached), atol=1e-4, rtol=1e-4)


def test_the_same_clips_give_the_same_logits_twice(recognizer: Recognizer) -> None:
    queries = clips(3, seed=3)
    once, again = (
        logits(classify(recognizer, queries, [support(recognizer, CLASSES)] * 3)) for _ in range(2)
    )
    assert torch.equal(once, again)


def test_weights_survive_a_checkpoint_to_the_same_logits(
    recognizer: Recognizer, tmp_path: Path
) -> None:
    save_checkpoint(recognizer, tmp_path / "saved", "")
    loaded = load_recognizer(str(tmp_path / "saved"))
    assert loaded.config == recognizer.config
    loaded.name = recognizer.name
    queries = clips(2, seed=3)
    got, want = (
        logits(classify(one, queries, [support(one, CLASSES)] * 2)) for one in (loaded, recognizer)
    )
    assert torch.equal(got, want)


def test_untrained_equals_frozen(recognizer: Recognizer) -> None:
    preset = "task_adapter_pp" if recognizer.config.text else "frozen"
    frozen = tiny_recognizer("frozen", seed=4, align="identity")
    fresh = tiny_recognizer(
        preset,
        seed=4,
        trained=False,
        visual=recognizer.config.visual,
        query_context=recognizer.config.query_context,
        align="identity",
        temporal=recognizer.config.temporal,
    )
    fresh.video.tower.load_state_dict(frozen.video.tower.state_dict())
    assert fresh.text is not None
    assert frozen.text is not None
    fresh.text.tower.load_state_dict(frozen.text.tower.state_dict())
    assert not fresh.trained
    queries = clips(3, seed=3)
    got = classify(fresh, queries, [support(fresh, CLASSES)] * 3)
    want = classify(frozen, queries, [support(frozen, CLASSES)] * 3)
    torch.testing.assert_close(logits(got), logits(want), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("align", SERVED_ALIGNS)
@pytest.mark.parametrize("frames", [4, 5, 8, 11])
def test_any_number_of_frames_from_four_works(align: str, frames: int) -> None:
    recognizer = tiny_recognizer(frames=frames, align=align)
    tokens = recognizer.trunk(clips(3, frames=frames))
    task = recognizer.encode_support(tokens[:2], [0, 1], tiny_text(recognizer, LABELS[:2]))
    (score,) = recognizer.match(recognizer.encode_query(tokens[2:], [task]), [task])
    assert score.stages_NA is not None
    assert len(score.stages_NA[0]) == 3


def test_joint_lets_queries_see_each_other_and_is_not_served() -> None:
    recognizer = tiny_recognizer(query_context="joint", align="joint")
    tokens_S, tokens_Q = recognizer.trunk(clips(6, seed=1)), recognizer.trunk(clips(4, seed=3))
    text = tiny_text(recognizer, LABELS[:3])
    together = score_episode(recognizer, tokens_S, CLASSES, tokens_Q, text).logits_QN
    alone = score_episode(recognizer, tokens_S, CLASSES, tokens_Q[:1], text).logits_QN
    assert not torch.allclose(together[:1], alone, atol=1e-3)
    with pytest.raises(MethodError, match="queries see each other"):
        check_served(recognizer.config)


@pytest.mark.parametrize(("context", "align"), [("joint", "identity"), ("support", "joint")])
def test_serving_refuses_what_is_transductive(context: str, align: str) -> None:
    with pytest.raises(MethodError, match="'joint'"):
        check_served(tiny_recognizer(query_context=context, align=align).config)


@pytest.mark.parametrize("context", SERVED_CONTEXTS)
def test_task_contexts_differ_once_trained(context: str) -> None:
    queries = clips(2, seed=3)
    recognizer = tiny_recognizer(query_context=context)
    other = tiny_recognizer(query_context="self" if context != "self" else "support")
    got = classify(recognizer, queries, [support(recognizer, CLASSES)] * 2)
    want = classify(other, queries, [support(other, CLASSES)] * 2)
    assert not torch.allclose(logits(got), logits(want), atol=1e-3)


def test_prototype_context_grows_with_shots_by_their_features_alone() -> None:
    recognizer = tiny_recognizer(query_context="prototype")
    few = support(recognizer, [0, 1])
    many = support(recognizer, [0, 0, 0, 0, 1, 1, 1])
    assert few.clips is not None
    assert many.bytes - few.bytes == 5 * few.clips.features_STE[0].nbytes


@pytest.mark.parametrize(
    ("classes", "message"),
    [([0, 0, 0], "two classes"), ([0, 2, 2], r"without a clip: \[1\]"), ([0, 1], "3 clips came")],
)
def test_episodes_that_are_none_are_refused(classes: list[int], message: str) -> None:
    recognizer = tiny_recognizer()
    with pytest.raises(EpisodeError, match=message):
        recognizer.encode_support(recognizer.trunk(clips(3)), classes, None)


def test_clips_of_another_size_are_refused() -> None:
    with pytest.raises(EpisodeError, match=r"\(8, 48, 48, 3\)"):
        tiny_recognizer().trunk(clips(1, size=48))


def test_supports_of_other_weights_are_refused() -> None:
    recognizer = tiny_recognizer()
    task = support(recognizer, CLASSES)
    recognizer.fingerprint = "another"
    with pytest.raises(EpisodeError, match="encode them again"):
        recognizer.encode_query(recognizer.trunk(clips(1)), [task])
