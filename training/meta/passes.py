"""Training episodes through a recogniser, with gradients: from a number to what losses read.

Every random choice of an episode is seeded by its number, so that a resumed run, and a run of
several processes, see the same.

Dimensions: S Q clips, T frames, L tokens, D token width, N classes of an episode, C of training,
A stages, E feature width.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from model.episode import Scores
from model.matching.each_query import graph_edges
from model.recognizer import Recognizer
from model.text import StageTexts
from model.views import alone_view
from training.data.episodes import Episode
from training.features.tokens import TokenSource, looked_at
from training.features.trunk_cache import trains_trunk
from training.meta.losses.output import EpisodeOutput, MaskedTexts
from training.meta.recipe import FitRecipe
from training.meta.word_masking import WordMasking


class EpisodeSource(Protocol):
    """Gives training episodes by number."""

    labels: tuple[str, ...]  # all that its episodes are of

    def draw(self, number: int) -> Episode:
        """Return episode `number`."""


class EpisodePasses:
    """Encodes and scores training episodes.

    Args:
        recognizer: What learns.
        recipe: How.
        episodes: Training episodes.
        source: Tokens of the training clips.
        stages: Stage texts of each label; None leaves text out.
        half: Whether to compute in bfloat16 where that is safe.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        recipe: FitRecipe,
        episodes: EpisodeSource,
        source: TokenSource,
        *,
        stages: Mapping[str, StageTexts] | None,
        half: bool,
    ) -> None:
        self.recognizer, self.recipe = recognizer, recipe
        self.episodes, self.source = episodes, source
        self.stages = _readable(recognizer, stages) if stages and recognizer.has_text else None
        self.half = half
        self.tuned = trains_trunk(recognizer)
        self.base = {label: place for place, label in enumerate(episodes.labels)}
        self._base_text: Tensor | None = None
        self._masking: WordMasking | None = None
        if recipe.weights.get("masked_words") and self.stages is not None:
            assert recognizer.text is not None
            labels, config = episodes.labels, recognizer.config
            self._masking = WordMasking(recognizer.text.tower, config, labels)
        self._start = deepcopy(recognizer.video) if recipe.near_start_textless else None

    def output(self, number: int) -> EpisodeOutput:
        """Encode and score training episode `number`."""
        recipe, episode = self.recipe, self.episodes.draw(number)
        rng = np.random.default_rng([recipe.seed, number, 1])
        torch.manual_seed(int(rng.integers(2**62)))  # of what is dropped
        with self._autocast(), self._kept_top() as top:
            tokens_BTLD, text_NAE = self._read(episode, rng)
            features_BTE, scores = self._score(tokens_BTLD, episode, text_NAE)
        known, asked = len(episode.support) + len(episode.query), len(episode.query)
        logits_QN, again_QN = (scores.logits_QN.float() / recipe.temperature).tensor_split([asked])
        tokens_BTLD = tokens_BTLD[:known]
        classes_B = (*episode.support_classes, *episode.query_classes)
        described = self._described(episode.labels)
        masked = None if text_NAE is None else self._masked(episode, classes_B, number)
        base_B = [self.base[episode.labels[place]] for place in classes_B]
        return EpisodeOutput(
            logits_QN=logits_QN,
            again_QN=again_QN,
            video_QN=scores.video_QN[:asked].float(),
            wanted_Q=torch.tensor(episode.query_classes, device=logits_QN.device),
            features_BTE=features_BTE[:known],
            classes_B=classes_B,
            base_B=torch.tensor(base_B, device=logits_QN.device),
            text_NAE=text_NAE,
            stages=self._stages(episode.labels) if described else (),
            described=described,
            base_text_CAE=self.base_text,
            text_scale=self.recognizer.text_head.scale,
            edges=partial(self._edges, features_BTE[:known], episode),
            config=self.recognizer.config,
            temperature=recipe.temperature,
            smoothing=recipe.smoothing,
            frozen_BTE=partial(self._aside, partial(frozen_features, self.recognizer), tokens_BTLD),
            start_BTE=partial(self._aside, self._at_start, tokens_BTLD),
            clip_text_BE=partial(_clip_text, text_NAE, classes_B, masked),
            masked=masked,
            top_BTLD=top[0][:known] if top else None,
        )

    def _read(self, episode: Episode, rng: np.random.Generator) -> tuple[Tensor, Tensor | None]:
        """Return tokens of supports and queries, and the text of classes where it takes part."""
        recipe = self.recipe
        # Draws, text and tokens follow in this order: a resumed run repeats it.
        again = episode.query if recipe.consistency else ()  # once more, by other draws
        clips = [*episode.support, *episode.query, *again]
        draws = self._draws(len(clips), len(episode.support), rng) if recipe.draws else None
        with_text = rng.random() >= recipe.text_dropout and self._described(episode.labels)
        tokens_BTLD = self._tokens(clips, draws, rng, len(episode.support))
        return tokens_BTLD, self._text(episode.labels) if with_text else None

    def _draws(self, clips: int, supports: int, rng: np.random.Generator) -> list[int]:
        """Draw a view of each clip, supports first; queries may have draws of their own."""
        recipe = self.recipe
        draws_B = rng.integers(1, recipe.draws + 1, clips)
        draws_B[supports:] += recipe.views - recipe.draws
        return draws_B.tolist()

    def _edges(self, features_BTE: Tensor, episode: Episode) -> Sequence[Tensor]:
        support_STE, query_QTE = features_BTE.float().tensor_split([len(episode.support)])
        classes_S = torch.tensor(episode.support_classes, device=features_BTE.device)
        prototypes = self.recognizer.prototypes
        return graph_edges(prototypes, query_QTE, prototypes(support_STE, classes_S, None))

    def base_text(self) -> Tensor | None:
        """Encode the texts of all classes of training, once where nothing of text is learned."""
        text, labels = self.recognizer.text, self.episodes.labels
        if text is None or not self._described(labels):
            return None
        learns = any(parameter.requires_grad for parameter in text.parameters())
        if self._base_text is None or learns:
            with self._autocast(), torch.set_grad_enabled(learns):
                self._base_text = self._text(labels)
        return self._base_text

    @contextmanager
    def _kept_top(self) -> Iterator[list[Tensor]]:
        """Keep what the last adapted block gives, where a loss of the recipe reads it."""
        kept: list[Tensor] = []
        if not self.recipe.weights.get("visual_class"):
            yield kept
            return
        last = self.recognizer.video.adapted[-1]
        hook = last.register_forward_hook(lambda _block, _given, made: kept.append(made))
        try:
            yield kept
        finally:
            hook.remove()

    def _masked(
        self, episode: Episode, classes_B: Sequence[int], number: int
    ) -> MaskedTexts | None:
        """Encode the texts of clips with words masked, where the recipe asks for it."""
        text = self.recognizer.text
        if self._masking is None or text is None:
            return None
        rng = np.random.default_rng([self.recipe.seed, number, 2])
        ids_BL, words_BL = self._masking.draw([episode.labels[c] for c in classes_B], rng)
        ids_BAL = ids_BL[:, None].to(self.recognizer.device)
        with self._autocast():
            tokens_BALD = text.tokens(ids_BAL)
            features_BE = text.tower.pool(tokens_BALD[:, 0], ids_BAL[:, 0])
        words_BL = words_BL.to(self.recognizer.device)
        return MaskedTexts(tokens_BLD=tokens_BALD[:, 0], features_BE=features_BE, words_BL=words_BL)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.recognizer.device.type, torch.bfloat16, enabled=self.half)

    def _tokens(
        self,
        clips: Sequence[int],
        draws: Sequence[int] | None,
        rng: np.random.Generator,
        supports: int,
    ) -> Tensor:
        """Return tokens [B, T, L, D], with the share of patches that the recipe looks at.

        A trunk that learns runs on supports and on queries apart: what it measures of a batch, as
        batch normalisation does, is so of one kind of clips.
        """
        parts = (slice(supports), slice(supports, None)) if self.tuned else (slice(None),)
        made = [
            self.source.tokens(clips[part], None if draws is None else draws[part])
            for part in parts
        ]
        tokens_BTLD = made[0] if len(made) == 1 else torch.cat(made)
        tokens_BTLD = tokens_BTLD.to(self.recognizer.device, non_blocking=True).float()
        return tokens_BTLD[:, :, looked_at(tokens_BTLD.shape[2], self.recipe.patches, rng)]

    def _score(
        self, tokens_BTLD: Tensor, episode: Episode, text_NAE: Tensor | None
    ) -> tuple[Tensor, Scores]:
        """Return features [B, T, E] of supports and queries, and the scores of the queries."""
        support, query = tokens_BTLD.tensor_split([len(episode.support)])
        classes_S = torch.tensor(episode.support_classes, device=tokens_BTLD.device)
        text_GNAE = None if text_NAE is None else text_NAE[None]
        support_GSTE, query_GQTE = self.recognizer.encode_episodes(
            support[None], classes_S, query[None], text_GNAE
        )
        (support_STE,), (query_QTE,) = support_GSTE, query_GQTE
        scores = self.recognizer.score_features(support_STE, classes_S, query_QTE, text_NAE)
        return torch.cat([support_STE, query_QTE]), scores

    def _described(self, labels: Sequence[str]) -> bool:
        """Tell whether text takes part: all labels have stages that the tower reads."""
        return self.stages is not None and all(label in self.stages for label in labels)

    def _stages(self, labels: Sequence[str]) -> tuple[StageTexts, ...]:
        assert self.stages is not None
        return tuple(self.stages[label] for label in labels)

    def _text(self, labels: Sequence[str]) -> Tensor:
        return self.recognizer.encode_text(labels, self._stages(labels))

    def _at_start(self, tokens_BTLD: Tensor) -> Tensor:
        """Encode clips, each alone, by the weights that the training started from."""
        assert self._start is not None
        return self._start(tokens_BTLD, alone_view(self.recognizer.config.query_context))

    @torch.no_grad()
    def _aside(self, encode: Callable[[Tensor], Tensor], tokens_BTLD: Tensor) -> Tensor:
        """Encode what nothing is learned from."""
        with self._autocast():
            return encode(tokens_BTLD)


def _clip_text(
    text_NAE: Tensor | None, classes_B: Sequence[int], masked: MaskedTexts | None
) -> Tensor | None:
    """Return the masked text of each clip, or one of its class's texts by chance."""
    if masked is not None:
        return masked.features_BE
    if text_NAE is None:
        return None
    chosen_B = torch.randint(text_NAE.shape[1], (len(classes_B),))
    return text_NAE[list(classes_B), chosen_B.to(text_NAE.device)]


def _readable(recognizer: Recognizer, stages: Mapping[str, StageTexts]) -> dict[str, StageTexts]:
    return {
        label: texts
        for label, texts in stages.items()
        if recognizer.text_fault(label, texts) is None
    }


def frozen_features(recognizer: Recognizer, tokens_BTLD: Tensor) -> Tensor:
    """Run the frozen blocks that the adapted ones stand for; features [B, T, E]."""
    tower, plain = recognizer.video.tower, len(recognizer.video.plain_blocks)
    tokens = tokens_BTLD.flatten(0, 1)
    for block in tower.blocks[plain:]:
        tokens = block.run(tokens)
    return recognizer.video.pool(tokens).unflatten(0, tokens_BTLD.shape[:2])
