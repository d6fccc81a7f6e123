"""Few-shot recognition: encode a task's supports once, encode queries, score them.

Modules hold weights; what belongs to a task is a value of `model.episode`, handed in and out.

Dimensions: G episodes, B S Q clips, N classes, A stages, T frames, H W pixels, C colours, L tokens,
D token width, E feature width.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from model.backbones.wording import TextFault, text_fault, wording
from model.calibration.defaults import default_calibration
from model.calibration.fitted import Calibration
from model.config.method import TUNES_IMAGE, MethodConfig
from model.encoder import TextEncoder, VideoEncoder
from model.episode import (
    ClassSet,
    EncodedSupport,
    MatchScores,
    Scored,
    Scores,
    check_supports,
    checked_classes,
    plain,
)
from model.errors import MethodError
from model.matching.cosine import Centring, nearness
from model.matching.each_query import video_score
from model.matching.trust import trusted
from model.passes.by_parts import ByParts
from model.passes.grouping import scored_together
from model.precision import in_float32
from model.slots import Fusion, Matcher, Part, Prototypes, TextHead
from model.text import StageTexts
from model.views import episode_view, query_view, support_view

SLICE_CLIPS = 16  # clips of one trunk pass, so that memory stays bounded


class Recognizer(ByParts):
    """A method with its weights. Built by `model.assembly`, loaded by `model.checkpoint`.

    Args:
        config: The method.
        video: The image tower with its adapters.
        text: The text tower with its adapters, or None.
        prototypes: Supports to the classes of a task.
        matcher: The video score.
        text_head: The text score.
        fusion: Both scores to logits.
        name: What was asked for, as shown to users.
        fingerprint: Hash of method, trained weights and backbone; names everything derived.
    """

    buckets: tuple[int, ...] = ()  # frames of the passes it is fastest at; any number is as good

    def __init__(
        self,
        config: MethodConfig,
        video: VideoEncoder,
        text: TextEncoder | None,
        prototypes: Prototypes,
        matcher: Matcher,
        text_head: TextHead,
        fusion: Fusion,
        *,
        name: str = "unnamed",
        fingerprint: str = "",
    ) -> None:
        super().__init__()
        self.config = config
        self.video = video
        self.text = text
        self.prototypes = prototypes
        self.matcher = matcher
        self.text_head = text_head
        self.fusion = fusion
        self.name = name
        self.fingerprint = fingerprint
        self.calibrate(default_calibration(config))

    def calibrate(self, calibration: Calibration) -> None:
        """Take what turns scores into probabilities, and the mean that scores may leave out."""
        self.calibration = calibration
        centring = Centring(calibration.mean, of_scores=calibration.centres_scores)
        self.centring = centring.to(self.device)

    def with_encoders(self, video: VideoEncoder, text: TextEncoder | None) -> "Recognizer":
        """Return the same method with other encoders of the same weights."""
        above = self.prototypes, self.matcher, self.text_head, self.fusion
        made = Recognizer(
            self.config, video, text, *above, name=self.name, fingerprint=self.fingerprint
        )
        made.calibrate(self.calibration)
        return made

    @property
    def size(self) -> int:
        """Side of the square frames it takes, pixels."""
        return self.video.tower.size

    @property
    def squash(self) -> int | None:
        """Side that whole frames are squashed to before the crop; None keeps their shape."""
        return self.config.squash_side(self.size)

    @property
    def per_task(self) -> bool:
        """Whether queries are scored against the classes of their own task alone."""
        parts = (self.prototypes, self.matcher, self.fusion, self.text_head)
        return any(part.per_task for part in parts)

    @property
    def transductive(self) -> bool:
        """Whether a query's answer depends on other queries of its episode."""
        joint = self.video.across_clips and self.config.query_context == "joint"
        joint = self.prototypes.transductive or self.video.transductive or joint
        return joint or (self.has_text and self.text_head.transductive)

    @property
    def trained(self) -> bool:
        """Whether any part differs from its start; an untrained method equals its backbone."""
        tuned = self.config.tune in TUNES_IMAGE or self.config.tower_parts
        return bool(tuned) or not all(part.is_initial() for part in self.parts())

    @property
    def tuned_names(self) -> list[str]:
        """Name the tensors of a frozen image tower that learn with the adapters."""
        if not self.config.tower_parts:
            return []
        parts = self.video.tower.parts
        names = (name for part in self.config.tower_parts for name in parts[part])
        return [f"video.tower.model.{name}" for name in names]

    def parts(self) -> Iterator[Part]:
        """Yield every part above the backbone that may learn."""
        yield self.video
        if self.text is not None:
            yield self.text
        yield from (self.prototypes, self.matcher, self.text_head, self.fusion)

    def learning_modules(self) -> list[nn.Module]:
        """List the modules that drop values, or measure their batch, while they learn.

        Frozen towers do neither.
        """
        encoders = [self.video.adapted, self.video.temporal]
        if self.config.tune in TUNES_IMAGE:
            encoders.append(self.video.tower.model)
        if self.text is not None:
            encoders.append(self.text.adapted)
            encoders += [self.text.tower.model] if self.config.tune == "towers" else []
        parts = [*encoders, self.prototypes, self.matcher, self.text_head, self.fusion]
        return [part for part in parts if isinstance(part, nn.Module)]

    def text_fault(self, label: str, stages: StageTexts) -> TextFault | None:
        """Say why the text tower cannot read a class's text; None where it can, or is not there."""
        if self.text is None:
            return None
        return text_fault(self.text.tower, label, stages, self.config.prompt)

    def encode_text(self, labels: Sequence[str], stages: Sequence[StageTexts]) -> Tensor:
        """Encode stage texts; each class by itself, so results can be kept per class.

        Returns:
            text_NAE.

        Raises:
            MethodError: the method has no text tower.
        """
        if self.text is None:
            raise MethodError(f"The method {self.name!r} has no text tower; score by video alone.")
        classes, prompt = zip(labels, stages, strict=True), self.config.prompt
        texts = [wording(self.text.tower, *each, prompt).texts for each in classes]
        return self.text.encode(texts, self.device)

    def trunk(self, frames_BTHWC: np.ndarray | Tensor) -> Tensor:
        """Run the blocks below the adapters; knows no task, batches over anything.

        Args:
            frames_BTHWC: RGB uint8, square at `size`.

        Returns:
            tokens_BTLD.

        Raises:
            EpisodeError: frames of another number or size.
        """
        slices = self.checked_frames(frames_BTHWC).split(SLICE_CLIPS)
        return torch.cat([self.video.trunk(part.to(self.device)) for part in slices])

    def encode_support(
        self, tokens_STLD: Tensor, classes: Sequence[int], text_NAE: Tensor | None
    ) -> EncodedSupport:
        """Encode the supports of one task; labels may have different numbers of clips.

        Args:
            tokens_STLD: From `trunk`.
            classes: Class index of each clip; 0 .. N-1, every class present, in any order.
            text_NAE: From `encode_text`, or None to score by video alone.

        Raises:
            EpisodeError: fewer than two classes, a class without a clip, or other lengths.
        """
        classes_S = checked_classes(classes, len(tokens_STLD)).to(tokens_STLD.device)
        if self.video.reads_text:
            features_STE = self.told_support(tokens_STLD, classes_S, text_NAE)
            return self._encoded(features_STE, classes_S, text_NAE, {})
        view = support_view(self.config.query_context, classes_S, tokens_STLD.dtype)
        features_STE = self.video(tokens_STLD, view).float()  # means and cosines are fp32
        return self._encoded(features_STE, classes_S, text_NAE, view.memories)

    def encode_query(self, tokens_QTLD: Tensor, supports: Sequence[EncodedSupport]) -> Tensor:
        """Encode queries, one support set each; tasks may be mixed in a batch.

        Returns:
            features_QTE.

        Raises:
            EpisodeError: a support set that other weights made, or other lengths.
        """
        check_supports(supports, len(tokens_QTLD), self.fingerprint)
        memories = [support.memories for support in supports]
        return self.video(tokens_QTLD, query_view(self.config.query_context, memories)).float()

    def encode_episodes(
        self,
        tokens_GSTLD: Tensor,
        classes_S: Tensor,
        tokens_GQTLD: Tensor,
        text_GNAE: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Encode episodes of one layout in one masked pass; features_GSTE and features_GQTE.

        Equals `encode_support`, then `encode_query` for each query; `joint` exists here alone.
        Text is read where blocks do, in a pass of the supports.
        """
        episodes, supports = tokens_GSTLD.shape[:2]
        if self.video.reads_text:
            return self.told_episodes(tokens_GSTLD, classes_S, tokens_GQTLD, text_GNAE)
        tokens_GBTLD = torch.cat([tokens_GSTLD, tokens_GQTLD], dim=1)
        queries, context = tokens_GQTLD.shape[1], self.config.query_context
        view = episode_view(context, classes_S, queries, episodes, tokens_GBTLD.dtype)
        features = self.video(tokens_GBTLD.flatten(0, 1), view).unflatten(0, (episodes, -1))
        return features[:, :supports], features[:, supports:]

    def match(self, features_QTE: Tensor, supports: Sequence[EncodedSupport]) -> list[MatchScores]:
        """Score queries, each against the classes of its own task, as plain numbers."""
        return plain(self.score(features_QTE, supports))

    def score(self, features_QTE: Tensor, supports: Sequence[EncodedSupport]) -> list[Scored]:
        """Score queries, each against the classes of its own task; see `scored_together`."""
        return [
            Scored(
                group.places,
                group.columns,
                self._scores(group.own(features_QTE), group.classes, group.text_NAE),
            )
            for group in scored_together(supports, per_task=self.per_task)
        ]

    def score_features(
        self, support_STE: Tensor, classes_S: Tensor, query_QTE: Tensor, text_NAE: Tensor | None
    ) -> Scores:
        """Score queries of one episode by frame features that are made already.

        Raises:
            EpisodeError: text for another number of classes.
        """
        return self._scores(query_QTE, self._class_set(support_STE, classes_S, text_NAE), text_NAE)

    def _scores(self, query_QTE: Tensor, classes: ClassSet, text_NAE: Tensor | None) -> Scores:
        asked_QTE = self.centring.queries(self.asked(query_QTE))
        with in_float32(query_QTE.device):
            video_QN = video_score(self.prototypes, self.matcher, asked_QTE, classes)
            near_QN = nearness(asked_QTE, classes)
            if text_NAE is None or self.text is None or not self.fusion.reads_text:
                return Scores(video_QN, None, None, self.fusion(video_QN, None), near_QN)
            text_QN, stages_QNA = self.text_head(query_QTE.float(), text_NAE.float())
            logits_QN = self.fusion(video_QN, trusted(text_QN, classes.trust))
            return Scores(video_QN, text_QN, stages_QNA, logits_QN, near_QN)
