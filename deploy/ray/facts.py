"""What an ingress knows of a model that it does not have."""

from collections.abc import Mapping
from dataclasses import dataclass

from model.calibration.fitted import Calibration
from service.engine.runtimes.protocol import ServedModel
from service.engine.support_cache import SupportSize


@dataclass(frozen=True, slots=True)
class Facts:
    """What an ingress knows of a model that it does not have."""

    model: ServedModel
    kind: str
    precision: str
    provider: str
    buckets: tuple[int, ...]
    why: str
    clips_s: Mapping[str, float]
    refused: Mapping[str, str]
    supports_apart: bool
    size: SupportSize
    slice_frames: int
    alone_s: float
    made_by: str  # hash of what makes supports


@dataclass(frozen=True, slots=True)
class Pulse:
    """How an engine fares, as `Engine.silent_s`, `drain_rate` and `query_rate`."""

    silent_s: float
    frames_s: float
    query_frames_s: float


@dataclass(frozen=True, slots=True)
class RemoteRuntime:
    """What is told of the runtime that is elsewhere."""

    kind: str
    precision: str
    provider: str
    buckets: tuple[int, ...]
    name: str
    fingerprint: str
    device: str
    needs_text: bool
    calibration: Calibration


def runtime_of(facts: Facts) -> RemoteRuntime:
    """Tell of the runtime of a model that is elsewhere."""
    model = facts.model
    return RemoteRuntime(
        kind=facts.kind,
        precision=facts.precision,
        provider=facts.provider,
        buckets=facts.buckets,
        name=model.name,
        fingerprint=model.fingerprint,
        device=model.device,
        needs_text=model.needs_text,
        calibration=model.calibration,
    )
