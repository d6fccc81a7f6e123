"""What the engine asks of a runtime, whichever library does the sums.

Dimensions: B S Q clips, N classes, A stages, T frames, H W pixels, C colours, L tokens, D token
width, E feature width.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from model.backbones.wording import TextFault
from model.calibration.fitted import Calibration
from model.config.method import MethodConfig, QueryContext
from model.episode import EncodedSupport, Scored, Scores
from model.passes.kept_support import FORMAT
from model.text import WORDING_VERSION, StageTexts

Kind = Literal["torch", "onnx"]
Precision = Literal["fp32", "bf16"]


class Runtime(Protocol):
    """A recognizer on its device, ready to run; one thread calls it.

    Tensors that it returns are on `device`; what a clip scores does not depend on its batch mates,
    the buckets or the padding (design, invariant 1).
    """

    @property
    def kind(self) -> Kind:
        """The library that runs the trunk."""

    @property
    def precision(self) -> Precision:
        """What the trunk multiplies in; text and matching are always fp32."""

    @property
    def provider(self) -> str:
        """Who runs the trunk: `cpu`, `cuda`, `CPUExecutionProvider`, ..."""

    @property
    def buckets(self) -> tuple[int, ...]:
        """Frames of the passes it is fastest at, ascending; empty where any size is as good.

        `trunk` takes any number of clips and fills up to a bucket itself.
        """

    @property
    def config(self) -> MethodConfig:
        """The method."""

    @property
    def name(self) -> str:
        """What was asked for, as shown to users."""

    @property
    def fingerprint(self) -> str:
        """Hash of method and weights."""

    @property
    def size(self) -> int:
        """Side of the square frames it takes, pixels."""

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""

    @property
    def has_text(self) -> bool:
        """Whether text takes part in the score."""

    @property
    def text_alone(self) -> bool:
        """Whether text alone decides, so that labels may do without clips."""

    @property
    def needs_text(self) -> bool:
        """Whether class text enters the support features: other text, other supports."""

    @property
    def trained(self) -> bool:
        """Whether any part differs from its start."""

    @property
    def frames_apart(self) -> bool:
        """Whether a clip's frames may go through the trunk one by one: `trunk_frames`."""

    @property
    def supports_apart(self) -> bool:
        """Whether each support may be encoded by itself: `support_features`, then `support_of`."""

    @property
    def calibration(self) -> Calibration:
        """What turns its scores into probabilities and `unknown`."""

    def text_fault(self, label: str, stages: StageTexts) -> TextFault | None:
        """Say why the text tower cannot read a class's text; any thread may ask."""

    def encode_text(self, labels: Sequence[str], stages: Sequence[StageTexts]) -> Tensor:
        """Encode stage texts; returns text_NAE in fp32."""

    def trunk(self, frames_BTHWC: np.ndarray | Tensor) -> Tensor:
        """Run the frozen blocks below the adapters on RGB uint8; returns tokens_BTLD."""

    def trunk_frames(self, frames_NHWC: np.ndarray | Tensor) -> Tensor:
        """Run the frozen blocks on some frames of a clip; returns tokens_NLD."""

    def begin(self, frames_NHWC: np.ndarray | Tensor) -> Tensor:
        """Do what the trunk does of each frame by itself; returns begun_N, of any shape a frame."""

    def finish(self, begun_BT: Tensor) -> Tensor:
        """Do the rest of the trunk with clips whose frames have begun; returns tokens_BTLD."""

    def support_features(self, tokens_BTLD: Tensor) -> Tensor:
        """Encode some supports of a task, each by itself; returns features_BTE in fp32."""

    def support_of(
        self, features_STE: Tensor, classes: Sequence[int], text_NAE: Tensor | None
    ) -> EncodedSupport:
        """Make a task's supports of their features, as `Recognizer.support_of`."""

    def support_of_text(self, text_NAE: Tensor) -> EncodedSupport:
        """Make a task of labels without clips, as `Recognizer.support_of_text`."""

    def encode_support(
        self, tokens_STLD: Tensor, classes: Sequence[int], text_NAE: Tensor | None
    ) -> EncodedSupport:
        """Encode the supports of one task, as `Recognizer.encode_support`."""

    def score_features(
        self, support_STE: Tensor, classes_S: Tensor, query_QTE: Tensor, text_NAE: Tensor | None
    ) -> Scores:
        """Score clips by the features of others, all made already."""

    def encode_query(self, tokens_QTLD: Tensor, supports: Sequence[EncodedSupport]) -> Tensor:
        """Encode queries, one support set each, tasks mixed; returns features_QTE in fp32."""

    def score(self, features_QTE: Tensor, supports: Sequence[EncodedSupport]) -> list[Scored]:
        """Score queries, each against the classes of its own task; does not wait for the device."""

    def saliency(self, frames_THWC: np.ndarray, support: EncodedSupport, label: int) -> np.ndarray:
        """Tell where a label's score comes from in one clip, as `model.saliency`; grid_TSS."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What the service says about its model; nothing here changes while the process lives."""

    name: str
    fingerprint: str
    trained: bool
    has_text: bool
    text_alone: bool  # a task may have labels without clips
    needs_text: bool  # better text means encoding the supports again
    stages: int  # sentences that describe a label
    texts: int  # that the text tower reads of it
    frames: int
    size: int
    squash: int | None  # side that whole pictures are squashed to before the crop
    query_context: QueryContext
    backbone: str
    device: str
    calibration: Calibration


def served_model(runtime: Runtime) -> ServedModel:
    """Ask a runtime what it serves."""
    config = runtime.config
    return ServedModel(
        name=runtime.name,
        fingerprint=runtime.fingerprint,
        trained=runtime.trained,
        has_text=runtime.has_text,
        text_alone=runtime.text_alone,
        needs_text=runtime.needs_text,
        stages=config.stages,
        texts=config.texts,
        frames=config.frames,
        size=runtime.size,
        squash=config.squash_side(runtime.size),
        query_context=config.query_context,
        backbone=config.backbone.kind,
        device=str(runtime.device),
        calibration=runtime.calibration,
    )


def supports_from(runtime: Runtime) -> str:
    """Hash all that encoded supports depend on beside their task.

    Beside the weights these are the calibration, which can be fitted again for the same ones, and
    the runtime, which rounds in its own way.
    """
    made = [
        *(str(FORMAT), runtime.fingerprint, runtime.kind, runtime.precision),
        runtime.calibration.model_dump_json(),
        str(WORDING_VERSION) if runtime.needs_text else "",
    ]
    return hashlib.sha256("\n".join(made).encode()).hexdigest()
