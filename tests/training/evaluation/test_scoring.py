"""Many episodes a pass answer as each episode does alone, whatever the method looks at."""

import random
import threading
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import Tensor

from model.config.method import QueryContext
from model.recognizer import Recognizer
from model.text import StageTexts, template_stages
from tests.episodes import score_episode
from tests.model.tiny import clips, tiny_recognizer
from tests.training.learners import CLASSES, SHOWN, labelled
from training.data.episodes import Episode, EpisodePlan, EpisodeSampler
from training.evaluation import scoring
from training.evaluation.scoring import EpisodeScorer

CONTEXTS: tuple[QueryContext, ...] = get_args(QueryContext)
COUNT = CLASSES * SHOWN
METHODS = {
    "frozen": tiny_recognizer("frozen"),
    "aim": tiny_recognizer("aim_top"),
    **{context: tiny_recognizer(query_context=context) for context in CONTEXTS},
    "joint stages": tiny_recognizer(query_context="self", align="joint"),
    "untrained": tiny_recognizer(trained=False),
}


class Tokens:
    """The trunk's output of random clips; notes which were asked for."""

    def __init__(self, recognizer: Recognizer) -> None:
        with torch.inference_mode():
            self.tokens_CTLD = recognizer.trunk(clips(COUNT, seed=3))
        self.asked: list[int] = []

    def tokens(self, clips: Sequence[int], draws: Sequence[int] | None = None) -> Tensor:
        assert draws is None
        self.asked += clips
        return self.tokens_CTLD[list(clips)]


def stages_of_all() -> dict[str, StageTexts]:
    return {clip.label: template_stages(clip.label) for clip in labelled()}


def drawn() -> list[Episode]:
    """Episodes of several layouts, several of each."""
    plans = [EpisodePlan((2, 4), (1, 2), 2), EpisodePlan(3, 2, 1), EpisodePlan(2, 1, 3)]
    samplers = [EpisodeSampler(labelled(), plan, 0) for plan in plans]
    return [sampler.draw(number) for number in range(5) for sampler in samplers]


def one_by_one(
    recognizer: Recognizer, tokens: Tokens, episodes: Sequence[Episode], *, without: str = ""
) -> list[Tensor]:
    """Score each episode by a masked pass of its own."""
    found = []
    with torch.inference_mode():
        for episode in episodes:
            labels = episode.labels
            text = None
            if recognizer.has_text and without not in labels:
                stages = [template_stages(label) for label in labels]
                text = recognizer.encode_text(labels, stages)
            support = tokens.tokens_CTLD[list(episode.support)]
            query = tokens.tokens_CTLD[list(episode.query)]
            scores = score_episode(recognizer, support, episode.support_classes, query, text)
            found.append(scores.logits_QN)
    return found


@pytest.mark.parametrize("method", METHODS)
def test_episodes_together_answer_as_each_alone(method: str) -> None:
    recognizer = METHODS[method]
    tokens, episodes = Tokens(recognizer), drawn()
    scorer = EpisodeScorer(recognizer, tokens, COUNT, stages=stages_of_all())
    want = one_by_one(recognizer, tokens, episodes)
    for found, alone in zip(scorer.logits(episodes), want, strict=True):
        torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-4)
    answers = scorer.answers(episodes)
    assert [a.tolist() for a in answers] == [w.argmax(dim=1).tolist() for w in want]


@pytest.mark.parametrize("method", ["frozen", "self", "support", "joint"])
def test_the_order_of_episodes_does_not_matter(method: str) -> None:
    recognizer, episodes = METHODS[method], drawn()
    scorer = EpisodeScorer(recognizer, Tokens(recognizer), COUNT, stages=stages_of_all())
    want = scorer.logits(episodes)
    order = random.Random(1).sample(range(len(episodes)), len(episodes))
    found = scorer.logits([episodes[place] for place in order])
    for logits, place in zip(found, order, strict=True):
        torch.testing.assert_close(logits, want[place], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["none", "support"])
def test_text_takes_part_in_episodes_all_of_whose_labels_have_it(method: str) -> None:
    recognizer, episodes = METHODS[method], drawn()
    tokens, stages = Tokens(recognizer), stages_of_all()
    without = sorted(stages)[0]
    del stages[without]
    found = EpisodeScorer(recognizer, tokens, COUNT, stages=stages).logits(episodes)
    want = one_by_one(recognizer, tokens, episodes, without=without)
    with_text = one_by_one(recognizer, tokens, episodes)
    assert any(without in episode.labels for episode in episodes)
    for logits, alone, full, episode in zip(found, want, with_text, episodes, strict=True):
        torch.testing.assert_close(logits, alone, rtol=1e-4, atol=1e-4)
        assert torch.allclose(alone, full) == (without not in episode.labels)


def test_a_label_with_an_unknown_word_has_no_text() -> None:
    recognizer, stages = METHODS["support"], stages_of_all()
    named = {**stages, "zyzzyva": template_stages("zyzzyva")}
    scorer = EpisodeScorer(recognizer, Tokens(recognizer), COUNT, stages=named)
    assert set(scorer.text) == set(stages)


@pytest.mark.parametrize("method", ["frozen", "aim", "none", "self", "support", "joint"])
def test_no_token_is_fetched_again_for_an_episode(method: str) -> None:
    recognizer = METHODS[method]
    tokens = Tokens(recognizer)
    scorer = EpisodeScorer(recognizer, tokens, COUNT)
    assert set(tokens.asked) == set(range(COUNT))
    tokens.asked.clear()
    scorer.answers(drawn())
    assert not tokens.asked


@pytest.mark.parametrize("method", ["self", "support", "joint"])
def test_a_set_too_large_to_hold_gives_the_same_answers(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recognizer, episodes = METHODS[method], drawn()
    want = EpisodeScorer(recognizer, Tokens(recognizer), COUNT).logits(episodes)
    monkeypatch.setattr(scoring, "HELD_BYTES", 0)
    tokens = Tokens(recognizer)
    scorer = EpisodeScorer(recognizer, tokens, COUNT)
    tokens.asked.clear()
    for found, held in zip(scorer.logits(episodes), want, strict=True):
        torch.testing.assert_close(found, held, rtol=1e-4, atol=1e-4)
    assert tokens.asked


def test_no_episode_is_no_answer() -> None:
    recognizer = METHODS["frozen"]
    assert EpisodeScorer(recognizer, Tokens(recognizer), COUNT).answers([]) == []


@pytest.fixture
def two_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


class Noted(EpisodeScorer):
    """Notes in which threads passes ran, and with how many cores each."""

    ran: tuple[tuple[str, int], ...] = ()

    def _pass(self, episodes: Sequence[Episode]) -> list[Tensor]:
        self.ran += ((threading.current_thread().name, torch.get_num_threads()),)
        return super()._pass(episodes)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("half", [False, True])
def test_each_core_has_passes_of_its_own(half: bool) -> None:
    recognizer, episodes = METHODS["support"], drawn()
    tokens = Tokens(recognizer)
    scorer = Noted(recognizer, tokens, COUNT, half=half)
    found = scorer.logits(episodes)
    assert {cores for _, cores in scorer.ran} == {1}
    assert all(name.startswith("lane") for name, _ in scorer.ran)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    alone = Noted(recognizer, tokens, COUNT, half=half)
    for logits, want in zip(found, alone.logits(episodes), strict=True):
        torch.testing.assert_close(logits, want, rtol=1e-4, atol=1e-4)
    assert {name for name, _ in alone.ran} == {"MainThread"}


@pytest.mark.usefixtures("two_threads")
def test_what_fails_on_a_core_is_raised() -> None:
    scorer = EpisodeScorer(METHODS["support"], Tokens(METHODS["support"]), COUNT)
    (episode,) = drawn()[:1]
    with pytest.raises(IndexError):
        scorer.logits([episode, replace(episode, query=(COUNT,) * len(episode.query))])


def test_a_scorer_answers_with_the_weights_that_it_was_made_with() -> None:
    recognizer, episodes = deepcopy(METHODS["support"]), drawn()
    tokens = Tokens(recognizer)
    scorer = EpisodeScorer(recognizer, tokens, COUNT)
    want = scorer.logits(episodes)
    with torch.no_grad():
        for parameter in recognizer.video.adapted.parameters():
            parameter.mul_(0.5)
    assert all(map(torch.equal, scorer.logits(episodes), want))
    other = EpisodeScorer(recognizer, tokens, COUNT).logits(episodes)
    assert not any(map(torch.equal, other, want))
