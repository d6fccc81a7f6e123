"""Encoding the supports of a task part by part, so that other work may go between the parts.

Dimensions: S B support clips, N frames, A stages, T frames of a clip, H W pixels, C colours, L
tokens, D token width, E feature width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from model.calibration.fitted import Calibration
from model.config.method import MethodConfig
from model.diagnosis.splits import leave_one_out
from model.encoder import TextEncoder, VideoEncoder
from model.episode import (
    ClassSet,
    EncodedSupport,
    Memory,
    SupportClips,
    check_text,
    checked_classes,
)
from model.errors import EpisodeError
from model.matching.cosine import Centring
from model.matching.each_query import video_score
from model.matching.trust import TextTrust
from model.precision import in_float32
from model.slots import AskingFusion, ClipBackbone, Fusion, Matcher, Prototypes, TextHead
from model.views import alone_view


class ByParts(nn.Module):
    """What a recognizer can do of `trunk` and `encode_support` on less than all clips of a task."""

    config: MethodConfig
    video: VideoEncoder
    text: TextEncoder | None
    prototypes: Prototypes
    matcher: Matcher
    centring: Centring
    text_head: TextHead
    fusion: Fusion
    calibration: Calibration
    fingerprint: str

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.video.parameters()).device

    @property
    def has_text(self) -> bool:
        """Whether text takes part in the score."""
        return self.text is not None and (self.fusion.reads_text or self.needs_text)

    @property
    def needs_text(self) -> bool:
        """Whether supports are encoded with class text: other text, other supports."""
        asks = self.prototypes.needs_text or self.video.reads_text or self.fusion.asks_supports
        return self.text is not None and asks

    @property
    def text_alone(self) -> bool:
        """Whether text alone decides, so that labels may do without clips."""
        return self.has_text and not self.fusion.reads_video and not self.needs_text

    @property
    def frames_apart(self) -> bool:
        """Whether the trunk sees each frame by itself, so that it may get them one by one."""
        return not (self.video.at_input or self.video.whole_clips)

    @property
    def supports_apart(self) -> bool:
        """Whether each support is encoded by itself, and by its clip alone."""
        alone = self.config.query_context == "none" or not self.video.across_clips
        return alone and not self.video.reads_text

    def checked_frames(self, frames_BTHWC: np.ndarray | Tensor) -> Tensor:
        """Return frames as a tensor.

        Raises:
            EpisodeError: frames of another number or size.
        """
        size = self.video.tower.size
        want = (self.config.frames, size, size, 3)
        if tuple(frames_BTHWC.shape[1:]) != want:
            raise EpisodeError(
                f"Clips of shape {tuple(frames_BTHWC.shape[1:])} do not fit the method; "
                f"sample them to {want}."
            )
        return torch.as_tensor(frames_BTHWC)

    def trunk_frames(self, frames_NHWC: np.ndarray | Tensor) -> Tensor:
        """Run the trunk on some frames of a clip, where `frames_apart`; returns tokens_NLD."""
        return self.video.trunk(torch.as_tensor(frames_NHWC)[None].to(self.device))[0]

    def begin(self, frames_NHWC: np.ndarray | Tensor) -> Tensor:
        """Do what the trunk does of each frame by itself, so that clips may share a frame.

        Returns:
            begun_N, of any shape a frame: of `frames_apart` all that the trunk does.
        """
        if self.frames_apart:
            return self.trunk_frames(frames_NHWC)
        frames = torch.as_tensor(frames_NHWC).to(self.device)
        if not self.video.whole_clips:
            return frames  # each has its place in a clip from the first step on
        return cast(ClipBackbone, self.video.tower).begin(self.video.pixels(frames[None])[0])

    def finish(self, begun_BT: Tensor) -> Tensor:
        """Do the rest of the trunk with clips whose frames have begun; returns tokens_BTLD."""
        if self.frames_apart:
            return begun_BT
        if not self.video.whole_clips:
            return self.video.trunk(begun_BT)
        return cast(ClipBackbone, self.video.tower).finish(begun_BT)[:, :, None]

    def support_features(self, tokens_BTLD: Tensor) -> Tensor:
        """Encode some supports of a task, where `supports_apart`; returns features_BTE."""
        return self.video(tokens_BTLD, alone_view("none")).float()

    def told_features(self, tokens_BTLD: Tensor, text_BAE: Tensor | None) -> Tensor:
        """Encode supports that see no other, each with the text of its class in the blocks.

        Args:
            tokens_BTLD: The trunk's output.
            text_BAE: Text of the class of each, or None where some class has none.

        Returns:
            features_BTE.
        """
        text_BE = None if text_BAE is None else text_BAE.mean(dim=1).to(tokens_BTLD.device)
        return self.video(tokens_BTLD, alone_view("none"), text_BE).float()

    def told_support(
        self, tokens_STLD: Tensor, classes_S: Tensor, text_NAE: Tensor | None
    ) -> Tensor:
        """Encode the supports of a task that see no other; returns features_STE."""
        if text_NAE is None or self.text is None:
            return self.told_features(tokens_STLD, None)
        check_text(text_NAE, int(classes_S.max()) + 1)
        return self.told_features(tokens_STLD, text_NAE.to(classes_S.device)[classes_S])

    def told_episodes(
        self,
        tokens_GSTLD: Tensor,
        classes_S: Tensor,
        tokens_GQTLD: Tensor,
        text_GNAE: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Encode supports with the text of their classes, and queries without."""
        text_BAE = None if text_GNAE is None else text_GNAE[:, classes_S].flatten(0, 1)
        support_BTE = self.told_features(tokens_GSTLD.flatten(0, 1), text_BAE)
        query_BTE = self.told_features(tokens_GQTLD.flatten(0, 1), None)
        episodes = len(tokens_GSTLD)
        return support_BTE.unflatten(0, (episodes, -1)), query_BTE.unflatten(0, (episodes, -1))

    def support_of(
        self, features_STE: Tensor, classes: Sequence[int], text_NAE: Tensor | None
    ) -> EncodedSupport:
        """Finish what `support_features` began; both together are `encode_support`.

        Raises:
            EpisodeError: As `encode_support`.
        """
        classes_S = checked_classes(classes, len(features_STE)).to(features_STE.device)
        return self._encoded(features_STE, classes_S, text_NAE, {})

    def support_of_text(self, text_NAE: Tensor) -> EncodedSupport:
        """Make a task of labels without clips, where `text_alone`.

        No query is near to any of its classes, or far from it: their prototypes are zeros.

        Raises:
            EpisodeError: The method compares clips, or there are fewer than two classes.
        """
        ways = len(text_NAE)
        if not self.text_alone or ways < 2:
            raise EpisodeError(
                f"A task of {ways} classes without a clip is none for this method; give each of "
                "two classes or more a clip, or set the fusion's text_share to 1."
            )
        frames, features = self.video.feature_instants, self.video.features
        none_NTE = torch.zeros(ways, frames, features, device=text_NAE.device)
        counts = (0,) * ways
        return EncodedSupport(
            ClassSet(none_NTE, counts, centre_NE=none_NTE[:, 0].clone()),
            (None,) * len(self.video.adapted),
            text_NAE,
            self.fingerprint,
            by_video=self.calibration.at((1,) * ways, with_text=False),
            by_text=self.calibration.at((1,) * ways, with_text=True),
            clips=SupportClips(none_NTE[:0], ()),
        )

    def _encoded(
        self,
        features_STE: Tensor,
        classes_S: Tensor,
        text_NAE: Tensor | None,
        memories: Mapping[int, Memory],
    ) -> EncodedSupport:
        text_NAE = text_NAE if self.has_text else None
        counts = torch.bincount(classes_S).tolist()
        return EncodedSupport(
            self._class_set(features_STE, classes_S, text_NAE),
            tuple(memories.get(place) for place in range(len(self.video.adapted))),
            text_NAE,
            self.fingerprint,
            text_inside=self.needs_text and text_NAE is not None,
            by_video=self.calibration.at(counts, with_text=False),
            by_text=self.calibration.at(counts, with_text=True),
            clips=SupportClips(features_STE, tuple(classes_S.tolist())),
        )

    def asked(self, query_QTE: Tensor) -> Tensor:
        """Return query features as matchers compare them with classes, not yet centred."""
        with in_float32(query_QTE.device):
            return self.prototypes.query(query_QTE.float())

    def _class_set(
        self, support_STE: Tensor, classes_S: Tensor, text_NAE: Tensor | None
    ) -> ClassSet:
        text_NE = None
        if text_NAE is not None:
            check_text(text_NAE, int(classes_S.max()) + 1)
            if self.needs_text:
                text_NE = text_NAE.float().mean(dim=1).to(support_STE.device)
        with in_float32(support_STE.device):
            classes = self.prototypes(support_STE.float(), classes_S, text_NE)
            classes = self.centring.classes(classes)
            if text_NAE is None or not (self.has_text and self.fusion.asks_supports):
                return classes
            return replace(classes, trust=self._trust(support_STE, classes_S, text_NAE))

    @torch.no_grad()
    def _trust(self, support_STE: Tensor, classes_S: Tensor, text_NAE: Tensor) -> TextTrust:
        """Ask each support what its text says, beside what the other supports say of it."""
        text_NAE = text_NAE.float().to(support_STE.device)
        text_SN, _ = self.text_head(support_STE.float(), text_NAE)
        video_SN = torch.zeros_like(text_SN)
        for split in leave_one_out(classes_S.tolist(), rounds=1):
            rest, held = list(split.supports), list(split.queries)
            classes = self._class_set(support_STE[rest], classes_S[rest], None)
            asked_QTE = self.centring.queries(self.asked(support_STE[held]))
            video_SN[held] = video_score(self.prototypes, self.matcher, asked_QTE, classes)
        return cast(AskingFusion, self.fusion).trust(video_SN, text_SN, classes_S)
