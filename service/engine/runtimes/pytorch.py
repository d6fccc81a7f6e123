"""The recognizer as torch runs it: fp32 or bfloat16, on a processor or a CUDA device.

Dimensions: B S Q clips, N classes, A stages, T frames, H W pixels, C colours, L tokens, D token
width, E feature width.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from model.backbones.wording import TextFault
from model.calibration.fitted import Calibration
from model.config.method import MethodConfig
from model.episode import EncodedSupport, Scored, Scores, check_supports
from model.recognizer import Recognizer
from model.saliency import saliency
from model.text import StageTexts
from model.views import ALONE, alone_view
from service.engine.passes.memory_table import TableView, kernel_or_none, table_of
from service.engine.passes.recording import (
    CapturedPass,
    Pass,
    TracedPass,
    captured_or_none,
    traced_or_none,
)
from service.engine.runtimes.bfloat16 import has_bfloat16, with_bfloat16_video
from service.engine.runtimes.protocol import Kind, Precision
from service.errors import SettingsError

Recorded = CapturedPass | TracedPass


class TorchRuntime:
    """A `Runtime` that is a recognizer.

    Args:
        recognizer: Loaded, on its device.
        precision: What its trunk multiplies in.
        trunk_pass: The trunk as CUDA graphs or a trace, or None to run it as it comes.
        adapted_pass: Likewise the adapted blocks; it takes a table of memories beside the tokens
            where queries attend to any.
        halves: The trunk of a network of whole clips in two: what is each frame's own, and the
            rest. None runs it at once.
    """

    kind: Kind = "torch"

    def __init__(
        self,
        recognizer: Recognizer,
        *,
        precision: Precision = "fp32",
        trunk_pass: Recorded | None = None,
        adapted_pass: Pass | None = None,
        halves: tuple[Pass, Pass] | None = None,
    ) -> None:
        self.recognizer = recognizer.eval().requires_grad_(False)
        self.precision: Precision = precision
        self.trunk_pass = trunk_pass
        self.adapted_pass = adapted_pass
        self.halves = halves

    @property
    def provider(self) -> str:
        """The kind of device."""
        return self.recognizer.device.type

    @property
    def buckets(self) -> tuple[int, ...]:
        """Frames of the captured passes."""
        return () if self.trunk_pass is None else self.trunk_pass.buckets

    @property
    def config(self) -> MethodConfig:
        """The method."""
        return self.recognizer.config

    @property
    def name(self) -> str:
        """What was asked for."""
        return self.recognizer.name

    @property
    def fingerprint(self) -> str:
        """Hash of method and weights."""
        return self.recognizer.fingerprint

    @property
    def size(self) -> int:
        """Side of the frames, pixels."""
        return self.recognizer.size

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""
        return self.recognizer.device

    @property
    def has_text(self) -> bool:
        """Whether text takes part in the score."""
        return self.recognizer.has_text

    @property
    def text_alone(self) -> bool:
        """Whether text alone decides."""
        return self.recognizer.text_alone

    @property
    def needs_text(self) -> bool:
        """Whether class text enters the support features."""
        return self.recognizer.needs_text

    @property
    def trained(self) -> bool:
        """Whether any part differs from its start."""
        return self.recognizer.trained

    @property
    def frames_apart(self) -> bool:
        """Whether a clip's frames may go through the trunk one by one; a CUDA graph takes clips."""
        return self.recognizer.frames_apart and not self.buckets

    @property
    def supports_apart(self) -> bool:
        """Whether each support may be encoded by itself."""
        return self.recognizer.supports_apart

    @property
    def calibration(self) -> Calibration:
        """What turns its scores into probabilities and `unknown`."""
        return self.recognizer.calibration

    def text_fault(self, label: str, stages: StageTexts) -> TextFault | None:
        """Say why the text tower cannot read a class's text."""
        return self.recognizer.text_fault(label, stages)

    def encode_text(self, labels: Sequence[str], stages: Sequence[StageTexts]) -> Tensor:
        """Encode stage texts; returns text_NAE."""
        return self.recognizer.encode_text(labels, stages)

    def trunk(self, frames_BTHWC: np.ndarray | Tensor) -> Tensor:
        """Run the frozen blocks; returns tokens_BTLD."""
        if self.trunk_pass is None:
            return self.recognizer.trunk(frames_BTHWC)
        return self.trunk_pass(self.recognizer.checked_frames(frames_BTHWC))

    def trunk_frames(self, frames_NHWC: np.ndarray | Tensor) -> Tensor:
        """Run the frozen blocks on some frames of a clip; returns tokens_NLD."""
        if self.trunk_pass is None:
            return self.recognizer.trunk_frames(frames_NHWC)
        return self.trunk_pass(torch.as_tensor(frames_NHWC)[None])[0]

    def begin(self, frames_NHWC: np.ndarray | Tensor) -> Tensor:
        """Do what the trunk does of each frame by itself; returns begun_N."""
        if self.frames_apart:
            return self.trunk_frames(frames_NHWC)
        frames = torch.as_tensor(frames_NHWC)
        return frames if self.halves is None else self.halves[0](frames)

    def finish(self, begun_BT: Tensor) -> Tensor:
        """Do the rest of the trunk with clips whose frames have begun; returns tokens_BTLD."""
        if self.frames_apart:
            return begun_BT
        return self.trunk(begun_BT) if self.halves is None else self.halves[1](begun_BT)

    def support_features(self, tokens_BTLD: Tensor) -> Tensor:
        """Encode some supports of a task, each by itself; returns features_BTE."""
        return self.recognizer.support_features(tokens_BTLD)

    def support_of(
        self, features_STE: Tensor, classes: Sequence[int], text_NAE: Tensor | None
    ) -> EncodedSupport:
        """Make a task's supports of their features."""
        return self.recognizer.support_of(features_STE, classes, text_NAE)

    def support_of_text(self, text_NAE: Tensor) -> EncodedSupport:
        """Make a task of labels without clips."""
        return self.recognizer.support_of_text(text_NAE)

    def encode_support(
        self, tokens_STLD: Tensor, classes: Sequence[int], text_NAE: Tensor | None
    ) -> EncodedSupport:
        """Encode the supports of one task."""
        return self.recognizer.encode_support(tokens_STLD, classes, text_NAE)

    def score_features(
        self, support_STE: Tensor, classes_S: Tensor, query_QTE: Tensor, text_NAE: Tensor | None
    ) -> Scores:
        """Score clips by the features of others."""
        return self.recognizer.score_features(support_STE, classes_S, query_QTE, text_NAE)

    def encode_query(self, tokens_QTLD: Tensor, supports: Sequence[EncodedSupport]) -> Tensor:
        """Encode queries; returns features_QTE."""
        if self.adapted_pass is None:
            return self.recognizer.encode_query(tokens_QTLD, supports)
        check_supports(supports, len(tokens_QTLD), self.fingerprint)
        if self.config.query_context in ALONE:
            return self.adapted_pass(tokens_QTLD).float()
        memories_QB = [support.memories for support in supports]
        return self.adapted_pass(tokens_QTLD, table_of(memories_QB, tokens_QTLD)).float()

    def score(self, features_QTE: Tensor, supports: Sequence[EncodedSupport]) -> list[Scored]:
        """Score queries, each against the classes of its own task."""
        return self.recognizer.score(features_QTE, supports)

    def saliency(self, frames_THWC: np.ndarray, support: EncodedSupport, label: int) -> np.ndarray:
        """Tell where a label's score comes from, by the weights as torch runs them."""
        return saliency(self.recognizer, frames_THWC, support, label)


def plain_torch(recognizer: Recognizer) -> TorchRuntime:
    """Offer the weights as they are, on a processor with passes that are traced."""
    if recognizer.device.type == "cpu":
        return _traced(recognizer, "fp32")
    return TorchRuntime(recognizer)


def reduced_torch(recognizer: Recognizer, batch_frames: int) -> list[TorchRuntime]:
    """Offer bfloat16 where the device has it, with passes that are recorded.

    Args:
        recognizer: Loaded, on its device.
        batch_frames: Frames of the largest pass.

    Raises:
        SettingsError: The largest bucket does not fit the device.
    """
    device = recognizer.device
    if not has_bfloat16(device):
        return []
    half = with_bfloat16_video(recognizer).eval().requires_grad_(False)
    if device.type != "cuda":
        return [_traced(half, "bf16")]

    def captured(run: Pass, *one: Tensor) -> CapturedPass | None:
        return captured_or_none(run, one, device, batch_frames)

    try:
        trunk, adapted = _recorded(half, captured)
    except torch.OutOfMemoryError as error:
        raise SettingsError(
            f"KSHOT_BATCH_FRAMES is {batch_frames}: a pass of so many does not fit {device}'s "
            "memory; lower it."
        ) from error
    return [TorchRuntime(half, precision="bf16", trunk_pass=trunk, adapted_pass=adapted)]


def _traced(recognizer: Recognizer, precision: Precision) -> TorchRuntime:
    recognizer.eval().requires_grad_(False)
    trunk, adapted = _recorded(recognizer, traced_or_none)
    halves = _halves(recognizer) if recognizer.video.whole_clips else None
    return TorchRuntime(
        recognizer, precision=precision, trunk_pass=trunk, adapted_pass=adapted, halves=halves
    )


@torch.inference_mode()
def _halves(recognizer: Recognizer) -> tuple[Pass, Pass]:
    """Trace the two halves of a trunk, as far as that can be done."""
    frames_THWC = clip_of(recognizer)
    begin = traced_or_none(recognizer.begin, frames_THWC[0]) or recognizer.begin
    begun_T = recognizer.begin(frames_THWC)
    return begin, traced_or_none(recognizer.finish, begun_T) or recognizer.finish


def clip_of(recognizer: Recognizer) -> Tensor:
    """Make a clip [T, H, W, C] of every value in turn."""
    shape = (recognizer.config.frames, recognizer.size, recognizer.size, 3)
    return torch.arange(math.prod(shape)).remainder(256).to(torch.uint8).view(shape)


@torch.inference_mode()
def _recorded(
    recognizer: Recognizer, record: Callable[..., Recorded | None]
) -> tuple[Recorded | None, Pass | None]:
    """Record the trunk, and the adapted blocks where what they read can be given to a record."""
    clip_THWC, video = clip_of(recognizer), recognizer.video
    context = recognizer.config.query_context
    recorded = record(video.trunk, clip_THWC)
    tokens_TLD = video.trunk(clip_THWC[None].to(recognizer.device))[0]
    if context in ALONE:
        alone = alone_view(context)
        return recorded, record(lambda tokens: video(tokens, alone), tokens_TLD)
    kernel = kernel_or_none(recognizer.device)
    if kernel is None:
        return recorded, None
    nothing_B3 = torch.zeros(len(video.adapted), 3, dtype=torch.int64)

    def by_table(tokens: Tensor, table: Tensor) -> Tensor:
        features: Tensor = video(tokens, TableView(kernel, table))
        return features

    return recorded, record(by_table, tokens_TLD, nothing_B3)
