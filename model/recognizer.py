"""Few-shot recognition: encode a task's supports once, encode queries, match.

Modules hold weights; what belongs to a task is an `EncodedSupport`, a value handed in and out.

Dimensions: B S Q clips, K shots of a class, N classes, A stages, T frames, H W pixels, C colours,
L tokens, D token width, E feature width.
"""

import itertools
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from model.adapters.bottleneck import Bottleneck, is_zero
from model.config import (
    SERVED_ALIGNS,
    SERVED_CONTEXTS,
    DistanceMatcher,
    MethodConfig,
    QueryContext,
)
from model.encoder import SupportContext, TextEncoder, VideoEncoder, class_means
from model.errors import EpisodeError, MethodError
from model.matching.stages import align, stage_scores
from model.matching.trx import Trx
from model.text import StageTexts, prompts

# query_QTE and prototype_NTE to video_QN, larger is better; TRX reads all shots instead.
Matcher = Callable[[Tensor, Tensor], Tensor] | Trx

SLICE_CLIPS = 16  # clips of one trunk pass, so that memory stays bounded


@dataclass(frozen=True, slots=True)
class EncodedSupport:
    """All that queries of a task need: a value, derived and rebuildable."""

    prototype_NTE: Tensor
    context: SupportContext
    text_NAE: Tensor | None  # None: the video score stands alone
    counts: tuple[int, ...]  # clips of each class
    fingerprint: str  # of the weights that made it
    shots: tuple[Tensor, ...] = ()  # [K, T, E] of each class, where the matcher reads shots

    def __post_init__(self) -> None:
        if self.text_NAE is not None and len(self.text_NAE) != len(self.counts):
            raise EpisodeError(
                f"Text for {len(self.text_NAE)} classes came with supports of {len(self.counts)}; "
                "give text for every class."
            )

    @property
    def bytes(self) -> int:
        """Memory held by its tensors."""
        text = 0 if self.text_NAE is None else self.text_NAE.nbytes
        shots = sum(shots_KTE.nbytes for shots_KTE in self.shots)
        return self.prototype_NTE.nbytes + self.context.bytes + text + shots

    def with_text(self, text_NAE: Tensor | None) -> "EncodedSupport":
        """Return the same supports with other text."""
        return replace(self, text_NAE=text_NAE)

    def to(self, device: torch.device) -> "EncodedSupport":
        """Return the same supports on another device."""
        return replace(
            self,
            prototype_NTE=self.prototype_NTE.to(device),
            context=self.context.to(device),
            text_NAE=None if self.text_NAE is None else self.text_NAE.to(device),
            shots=tuple(shots_KTE.to(device) for shots_KTE in self.shots),
        )


@dataclass(frozen=True, slots=True)
class EpisodeScores:
    """Scores of queries against the classes of one task; every tensor starts [query, class]."""

    video_QN: Tensor
    text_QN: Tensor | None
    stages_QNA: Tensor | None
    logits_QN: Tensor

    def fetched(self) -> "EpisodeScores":
        """Return them on their way to the machine's memory; they are there once `marked` says."""
        return EpisodeScores(
            video_QN=fetched(self.video_QN),
            text_QN=None if self.text_QN is None else fetched(self.text_QN),
            stages_QNA=None if self.stages_QNA is None else fetched(self.stages_QNA),
            logits_QN=fetched(self.logits_QN),
        )


@dataclass(frozen=True, slots=True)
class MatchScores:
    """One query against the classes of its task, as plain numbers."""

    video_N: list[float]
    text_N: list[float] | None
    stages_NA: list[list[float]] | None
    logits_N: list[float]


class Recognizer(nn.Module):
    """A method with its weights. Built by `model.build`, loaded by `model.checkpoint`.

    Args:
        config: The method.
        video: The image tower with its adapters.
        text: The text tower with its adapters, or None.
        matcher: The video score.
        name: What was asked for, as shown to users.
        fingerprint: Hash of method, trained weights and backbone; names everything derived.
    """

    def __init__(
        self,
        config: MethodConfig,
        video: VideoEncoder,
        text: TextEncoder | None,
        matcher: Matcher,
        *,
        name: str = "unnamed",
        fingerprint: str = "",
    ) -> None:
        super().__init__()
        self.config = config
        self.video = video
        self.text = text
        self.matcher: Matcher = matcher
        self.name = name
        self.fingerprint = fingerprint

    @property
    def size(self) -> int:
        """Side of the square frames it takes, pixels."""
        return self.video.tower.size

    @property
    def has_text(self) -> bool:
        """Whether text takes part in the score."""
        return self.text is not None and self.config.fusion == "product"

    @property
    def trained(self) -> bool:
        """Whether any adapter differs from its start; an untrained method equals its backbone.

        A matcher with weights has no start that equals the backbone, so it counts as trained.
        """
        if isinstance(self.matcher, Trx):
            return True
        adapters = (m for m in self.modules() if isinstance(m, Bottleneck))
        return any(not is_zero(adapter) for adapter in adapters)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.video.parameters()).device

    def folded(self) -> "Recognizer":
        """Return a copy for inference with its own, folded image tower; the rest is shared."""
        video = deepcopy(self.video).eval().requires_grad_(False)
        video.fold()
        return self.with_video(video)

    def with_video(self, video: VideoEncoder) -> "Recognizer":
        """Return the same method with another image tower of the same weights."""
        return Recognizer(
            self.config,
            video,
            self.text,
            self.matcher,
            name=self.name,
            fingerprint=self.fingerprint,
        )

    def served(self) -> None:
        """Refuse a method whose answers depend on other queries.

        Raises:
            MethodError: `query_context` or `align` is `joint`.
        """
        if self.config.query_context not in SERVED_CONTEXTS:
            raise MethodError(
                f"query_context {self.config.query_context!r} lets queries see each other; "
                f"serve one of {', '.join(SERVED_CONTEXTS)}."
            )
        if self.config.align not in SERVED_ALIGNS:
            raise MethodError(
                f"align {self.config.align!r} lets queries see each other; "
                f"serve one of {', '.join(SERVED_ALIGNS)}."
            )

    def unknown_words(self, label: str, stages: StageTexts) -> tuple[str, ...]:
        """Name the words that the text tower never saw; none for CLIP's."""
        if self.text is None:
            return ()
        found: dict[str, None] = {}
        for text in prompts(label, stages, self.config.prompt):
            found.update(dict.fromkeys(self.text.tower.unknown_words(text)))
        return tuple(found)

    def encode_text(self, labels: Sequence[str], stages: Sequence[StageTexts]) -> Tensor:
        """Encode stage texts; each class by itself, so results can be kept per class.

        Returns:
            text_NAE.

        Raises:
            MethodError: the method has no text tower.
        """
        if self.text is None:
            raise MethodError(f"The method {self.name!r} has no text tower; score by video alone.")
        texts = [
            text
            for label, of_label in zip(labels, stages, strict=True)
            for text in prompts(label, of_label, self.config.prompt)
        ]
        ids = self.text.tower.tokenize(texts).to(self.device)
        return self.text.stages(ids.unflatten(0, (len(labels), -1)))

    def trunk(self, frames_BTHWC: np.ndarray | Tensor) -> Tensor:
        """Run the frozen blocks below the adapters; knows no task, batches over anything.

        Args:
            frames_BTHWC: RGB uint8, square at `size`.

        Returns:
            tokens_BTLD.

        Raises:
            EpisodeError: frames of another number or size.
        """
        frames = self.checked_frames(frames_BTHWC)
        slices = frames.split(SLICE_CLIPS)
        return torch.cat([self.video.trunk(part.to(self.device)) for part in slices])

    def checked_frames(self, frames_BTHWC: np.ndarray | Tensor) -> Tensor:
        """Return frames as a tensor, or say why they do not fit.

        Raises:
            EpisodeError: frames of another number or size.
        """
        want = (self.config.frames, self.size, self.size, 3)
        if tuple(frames_BTHWC.shape[1:]) != want:
            raise EpisodeError(
                f"Clips of shape {tuple(frames_BTHWC.shape[1:])} do not fit the method; "
                f"sample them to {want}."
            )
        return torch.as_tensor(frames_BTHWC)

    def encode_support(
        self,
        tokens_STLD: Tensor,
        classes: Sequence[int],
        text_NAE: Tensor | None,
        query_context: QueryContext | None = None,
    ) -> EncodedSupport:
        """Encode the supports of one task; labels may have different numbers of clips.

        Args:
            tokens_STLD: From `trunk`.
            classes: Class index of each clip; 0 .. N-1, every class present, in any order.
            text_NAE: From `encode_text`, or None to score by video alone.
            query_context: What queries will attend to, where that is less than the method's own.

        Raises:
            EpisodeError: fewer than two classes, a class without a clip, or other lengths.
        """
        classes_S = checked_classes(classes, len(tokens_STLD)).to(tokens_STLD.device)
        features_STE, context = self.video.adapt_support(tokens_STLD, classes_S, query_context)
        features_STE = features_STE.float()  # means and cosines are fp32, whatever the blocks are
        return EncodedSupport(
            prototype_NTE=prototypes(features_STE, classes_S),
            context=context,
            text_NAE=text_NAE if self.has_text else None,
            counts=tuple(torch.bincount(classes_S).tolist()),
            fingerprint=self.fingerprint,
            shots=self._shots(features_STE, classes_S),
        )

    def encode_query(self, tokens_QTLD: Tensor, supports: Sequence[EncodedSupport]) -> Tensor:
        """Encode queries, one support set each; tasks may be mixed in a batch.

        Returns:
            features_QTE.

        Raises:
            EpisodeError: a support set that other weights made, or other lengths.
        """
        self.assert_own(supports, len(tokens_QTLD))
        contexts = [support.context for support in supports]
        return self.video.adapt_query(tokens_QTLD, contexts).float()

    def assert_own(self, supports: Sequence[EncodedSupport], queries: int) -> None:
        """Refuse support sets that are not one for each query, made by these weights.

        Raises:
            EpisodeError: They are not.
        """
        if queries != len(supports):
            raise EpisodeError(
                f"{queries} queries came with {len(supports)} support sets; give one for each."
            )
        for support in supports:
            if support.fingerprint != self.fingerprint:
                raise EpisodeError(
                    f"The supports were encoded by weights {support.fingerprint[:12]}, "
                    f"not {self.fingerprint[:12]}; encode them again."
                )

    def match(self, features_QTE: Tensor, supports: Sequence[EncodedSupport]) -> list[MatchScores]:
        """Score queries, each against the classes of its own task.

        Those that are scored alike are scored at once against the classes of all their tasks, and
        keep what is theirs: no class's score depends on another class.
        """
        return self.start_match(features_QTE, supports)()

    def start_match(
        self, features_QTE: Tensor, supports: Sequence[EncodedSupport]
    ) -> Callable[[], list[MatchScores]]:
        """Begin what `match` does; the call that it returns waits for the device to be done."""
        reads_shots = isinstance(self.matcher, Trx)
        groups: dict[object, list[int]] = {}
        for place, support in enumerate(supports):
            alike = id(support) if reads_shots else support.text_NAE is None
            groups.setdefault(alike, []).append(place)
        begun = []
        for places in groups.values():
            alone = len(places) == len(supports)
            own_QTE = features_QTE if alone else features_QTE[places]  # an index is an upload
            begun.append((places, *self._start(own_QTE, [supports[place] for place in places])))
        ready = marked(features_QTE.device)

        def finish() -> list[MatchScores]:
            ready()
            found: dict[int, MatchScores] = {}
            for places, scores, columns in begun:
                found.update(zip(places, plain_scores(scores, columns), strict=True))
            return [found[place] for place in range(len(supports))]

        return finish

    def _start(
        self, features_QTE: Tensor, supports: Sequence[EncodedSupport]
    ) -> tuple[EpisodeScores, list[slice]]:
        """Score queries against all classes; returns the scores and the columns of each query."""
        tasks = {id(support): support for support in supports}
        ends = itertools.accumulate(len(task.counts) for task in tasks.values())
        columns = {
            key: slice(end - len(task.counts), end)
            for (key, task), end in zip(tasks.items(), ends, strict=True)
        }
        texts = [task.text_NAE for task in tasks.values() if task.text_NAE is not None]
        scores = self._scores(
            features_QTE,
            torch.cat([task.prototype_NTE for task in tasks.values()]),
            [shots_KTE for task in tasks.values() for shots_KTE in task.shots],
            torch.cat(texts) if texts else None,
        )
        return scores.fetched(), [columns[id(support)] for support in supports]

    def score_features(
        self,
        support_STE: Tensor,
        classes_S: Tensor,
        query_QTE: Tensor,
        text_NAE: Tensor | None,
    ) -> EpisodeScores:
        """Score queries of one episode by features that are made already.

        Args:
            support_STE: Frame features of the support clips.
            classes_S: Class index of each clip; 0 .. N-1, every class present, in any order.
            query_QTE: Frame features of the queries.
            text_NAE: From `encode_text`, or None to score by video alone.

        Raises:
            EpisodeError: text for another number of classes.
        """
        prototype_NTE = prototypes(support_STE, classes_S)
        return self._scores(query_QTE, prototype_NTE, self._shots(support_STE, classes_S), text_NAE)

    def _shots(self, features_STE: Tensor, classes_S: Tensor) -> tuple[Tensor, ...]:
        reads_shots = isinstance(self.matcher, Trx)
        return shots_by_class(features_STE, classes_S) if reads_shots else ()

    def _scores(
        self,
        query_QTE: Tensor,
        prototype_NTE: Tensor,
        shots: Sequence[Tensor],
        text_NAE: Tensor | None,
    ) -> EpisodeScores:
        """Score queries of one episode (design 3.3): logits = scale * video * text.

        Without text the video factor stands alone; a negative distance is a logit as it is.
        """
        if isinstance(self.matcher, Trx):
            video_QN = self.matcher(query_QTE, shots)
        else:
            video_QN = self.matcher(query_QTE, prototype_NTE)
        if isinstance(self.config.matcher, DistanceMatcher):
            return EpisodeScores(video_QN, None, None, video_QN)
        if text_NAE is None or not self.has_text:
            return EpisodeScores(video_QN, None, None, self.config.scale * video_QN)
        aligned_QUE = align(query_QTE, self.config.align)
        stages_QNA = stage_scores(aligned_QUE, text_NAE, self.config.stage_cosine)
        text_QN = stages_QNA.mean(dim=-1)
        if text_QN.shape != video_QN.shape:
            raise EpisodeError(
                f"Text scores {tuple(text_QN.shape)} and video scores {tuple(video_QN.shape)} "
                "are not both [query, class]; give text for every class."
            )
        logits_QN = self.config.scale * video_QN * text_QN
        return EpisodeScores(video_QN, text_QN, stages_QNA, logits_QN)

    def score_episode(
        self,
        tokens_STLD: Tensor,
        classes: Sequence[int],
        tokens_QTLD: Tensor,
        text_NAE: Tensor | None,
    ) -> EpisodeScores:
        """Score a whole episode in one masked pass; what training differentiates.

        For the served contexts it equals `encode_support`, `encode_query`, `match`.
        """
        classes_S = checked_classes(classes, len(tokens_STLD)).to(tokens_STLD.device)
        support_STE, query_QTE = self.video.adapt_episode(tokens_STLD, classes_S, tokens_QTLD)
        return self.score_features(support_STE, classes_S, query_QTE, text_NAE)


def prototypes(features_STE: Tensor, classes_S: Tensor) -> Tensor:
    """Average the shots of each class, unnormalised [N, T, E]."""
    means_NS = class_means(classes_S, features_STE.dtype)
    return torch.einsum("ns,ste->nte", means_NS, features_STE)


def shots_by_class(features_STE: Tensor, classes_S: Tensor) -> tuple[Tensor, ...]:
    """Sort shots into their classes; [K, T, E] each, K may differ."""
    sorted_STE = features_STE[classes_S.argsort(stable=True)]
    return sorted_STE.split(torch.bincount(classes_S).tolist())


def checked_classes(classes: Sequence[int], clips: int) -> Tensor:
    """Return class indices as a tensor, or say what is wrong with them."""
    ways = max(classes, default=-1) + 1
    if len(classes) != clips:
        raise EpisodeError(f"{clips} clips came with {len(classes)} classes; give one for each.")
    if ways < 2:
        raise EpisodeError(f"An episode needs two classes or more, not {ways}; add a label.")
    missing = sorted(set(range(ways)) - set(classes))
    if missing or min(classes) < 0:
        raise EpisodeError(
            f"Class indices must cover 0 to {ways - 1}; without a clip: {missing}; add clips."
        )
    return torch.tensor(list(classes))


def fetched(scores: Tensor) -> Tensor:
    """Begin to copy scores to the machine's memory."""
    return scores.detach().to("cpu", non_blocking=scores.device.type == "cuda")


def marked(device: torch.device) -> Callable[[], object]:
    """Mark this moment of a device; the call that it returns waits until it has come there."""
    if device.type != "cuda":
        return lambda: None
    event = torch.cuda.Event(blocking=True)  # spinning would take a core from the decoders
    event.record(torch.cuda.current_stream(device))
    return event.synchronize


def plain_scores(scores: EpisodeScores, columns: Sequence[slice]) -> list[MatchScores]:
    """Turn the scores of each query in its own columns into numbers."""
    video_QN, logits_QN = scores.video_QN.numpy(), scores.logits_QN.numpy()
    text_QN = None if scores.text_QN is None else scores.text_QN.numpy()
    stages_QNA = None if scores.stages_QNA is None else scores.stages_QNA.numpy()
    return [
        MatchScores(
            video_N=video_QN[row, own].tolist(),
            text_N=None if text_QN is None else text_QN[row, own].tolist(),
            stages_NA=None if stages_QNA is None else stages_QNA[row, own].tolist(),
            logits_N=logits_QN[row, own].tolist(),
        )
        for row, own in enumerate(columns)
    ]
