"""Answers of a recogniser to many episodes, with as little work an episode as its method allows.

Where queries do not look at the task their features are made once a clip, and where nothing looks
at the task the supports' too; else episodes of one layout share a forward pass, and each core of a
processor has passes of its own.

Dimensions: C clips, G episodes, S Q clips of an episode, T frames, L tokens, D token width,
N classes, A stages, E feature width.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from copy import deepcopy

import torch
from torch import Tensor

from model.episode import Scores
from model.passes.lanes import Lanes
from model.recognizer import Recognizer
from model.text import StageTexts
from model.views import ALONE, alone_view
from training.data.episodes import Episode
from training.features.tokens import TokenSource
from training.progress import progress

# Clips of episodes that share a forward pass; on a processor, more leave its caches (1.5 x slower).
PASS_CLIPS = {"cpu": 16, "cuda": 256}
HELD_BYTES = 4 << 30  # of clips' tokens on the device; a larger set is read for every pass


class EpisodeScorer:
    """A recogniser ready to answer episodes of one set of clips.

    Args:
        recognizer: What answers, with the weights that it has now.
        source: Tokens of the set.
        clips: How many the set has.
        stages: Stage texts of labels; text takes part in episodes that have all of theirs.
        half: Whether to compute in bfloat16.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        source: TokenSource,
        clips: int,
        *,
        stages: Mapping[str, StageTexts] | None = None,
        half: bool = False,
    ) -> None:
        video = deepcopy(recognizer.video).requires_grad_(False)
        self.recognizer = recognizer.with_encoders(video, recognizer.text).eval()
        self.source, self.half = source, half
        context = recognizer.config.query_context
        self.support_alone = context == "none" or not recognizer.video.across_clips
        self.query_alone = self.support_alone or context in ALONE
        self.held_CTLD = None if self.support_alone else self._held(clips)
        self.features_CTE = self._features(clips) if self.query_alone else None
        self.told: dict[tuple[int, str], Tensor] = {}  # supports with the text of a label in them
        self.text = self._texts(stages or {})

    def answers(self, episodes: Sequence[Episode]) -> list[Tensor]:
        """Return the class index [Q] that each query of each episode gets."""
        return [logits_QN.argmax(dim=1) for logits_QN in self.logits(episodes)]

    def logits(self, episodes: Sequence[Episode]) -> list[Tensor]:
        """Return logits [Q, N] of each episode, on the CPU."""
        return [scores.logits_QN.float() for scores in self.scores(episodes)]

    def scores(self, episodes: Sequence[Episode]) -> list[Scores]:
        """Return the scores of each episode, on the CPU."""
        parts = list(self._passes(episodes))
        found: dict[int, Scores] = {}
        alone = self.support_alone and self.recognizer.device.type == "cpu"
        many = closing(Lanes(self.lanes)) if self.lanes > 1 else nullcontext()
        with one_thread() if alone else nullcontext(), many as lanes:
            each = map if lanes is None else lanes.each
            made = each(self._pass, [[episodes[place] for place in part] for part in parts])
            for part, of_part in zip(parts, made, strict=True):
                found.update(zip(part, of_part, strict=True))
        return [found[place] for place in range(len(episodes))]

    @property
    def lanes(self) -> int:
        """Passes that run beside each other: one a core where more than features are compared."""
        alone = self.support_alone or self.recognizer.device.type != "cpu"
        return 1 if alone else torch.get_num_threads()

    def _passes(self, episodes: Sequence[Episode]) -> Iterator[list[int]]:
        """Part episodes into those that share a pass, by their places."""
        layouts: dict[tuple[tuple[int, ...], int], list[int]] = defaultdict(list)
        for place, episode in enumerate(episodes):
            layouts[episode.support_classes, len(episode.query)].append(place)
        most = PASS_CLIPS[self.recognizer.device.type]
        for (classes, queries), places in layouts.items():
            size = max(1, most // (len(classes) + queries))
            for first in range(0, len(places), size):
                yield places[first : first + size]

    @torch.inference_mode()
    def _pass(self, episodes: Sequence[Episode]) -> list[Scores]:
        """Score episodes of one layout."""
        device = self.recognizer.device
        classes_S = torch.tensor(episodes[0].support_classes, device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.half):
            support_GSTE, query_GQTE = self._encode(episodes, classes_S)
            scores = [
                self.recognizer.score_features(
                    self._told(episode, support_STE), classes_S, query_QTE, self._text(episode)
                )
                for episode, support_STE, query_QTE in zip(
                    episodes, support_GSTE, query_GQTE, strict=True
                )
            ]
        return [score.to(torch.device("cpu")) for score in scores]

    def _encode(self, episodes: Sequence[Episode], classes_S: Tensor) -> tuple[Tensor, Tensor]:
        support_GS = torch.tensor([episode.support for episode in episodes])
        query_GQ = torch.tensor([episode.query for episode in episodes])
        if self.features_CTE is not None:
            query_GQTE = self.features_CTE[query_GQ]
            if self.support_alone:
                return self.features_CTE[support_GS], query_GQTE
            tokens_GSTLD = self._tokens(support_GS)
            nobody = tokens_GSTLD[:, :0]
            return self.recognizer.encode_episodes(tokens_GSTLD, classes_S, nobody)[0], query_GQTE
        tokens = self._tokens(torch.cat([support_GS, query_GQ], dim=1))
        supports = support_GS.shape[1]
        return self.recognizer.encode_episodes(
            tokens[:, :supports], classes_S, tokens[:, supports:]
        )

    def _told(self, episode: Episode, support_STE: Tensor) -> Tensor:
        """Encode supports with the text of their labels where blocks read it, each pair once."""
        text_NAE = self._text(episode)
        if text_NAE is None or not self.recognizer.video.reads_text:
            return support_STE
        made = []
        for clip, own in zip(episode.support, episode.support_classes, strict=True):
            key = clip, episode.labels[own]
            if key not in self.told:
                tokens_1TLD = self._of_source(clip).to(self.recognizer.device)
                self.told[key] = self.recognizer.told_features(tokens_1TLD, text_NAE[own, None])
            made.append(self.told[key])
        return torch.cat(made)

    def _tokens(self, clips_GB: Tensor) -> Tensor:
        """Fetch the tokens of episodes, each clip once, or from memory where they are held."""
        if self.held_CTLD is not None:
            return self.held_CTLD[clips_GB.to(self.held_CTLD.device)]
        distinct, places = clips_GB.unique(return_inverse=True)
        tokens = self.source.tokens(distinct.tolist()).to(self.recognizer.device)
        return tokens.float()[places]

    def _held(self, clips: int) -> Tensor | None:
        if 4 * clips * self.source.tokens([0]).numel() > HELD_BYTES:
            return None
        return self._each(clips, self._of_source, lambda tokens: tokens)

    def _features(self, clips: int) -> Tensor:
        """Encode each clip as a query that stands alone."""
        alone = alone_view(self.recognizer.config.query_context)
        return self._each(
            clips, self._of_source, lambda tokens: self.recognizer.video(tokens, alone)
        )

    def _of_source(self, clip: int) -> Tensor:
        return self.source.tokens([clip]).float()

    @torch.inference_mode()
    def _each(
        self, clips: int, read: Callable[[int], Tensor], make: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Make something of each clip's tokens alone."""
        device = self.recognizer.device
        bar = progress(range(clips), desc="clips", unit="clip", leave=False)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.half):
            return torch.cat([make(read(clip).to(device)).float() for clip in bar])

    def _texts(self, stages: Mapping[str, StageTexts]) -> dict[str, Tensor]:
        if not self.recognizer.has_text:
            return {}
        with torch.inference_mode():
            return {
                label: self.recognizer.encode_text([label], [texts])[0]
                for label, texts in stages.items()
                if self.recognizer.text_fault(label, texts) is None
            }

    def _text(self, episode: Episode) -> Tensor | None:
        texts = [self.text[label] for label in episode.labels if label in self.text]
        return torch.stack(texts) if len(texts) == len(episode.labels) else None


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: where only features are compared, more would wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
