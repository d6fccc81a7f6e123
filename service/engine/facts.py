"""What the service says about its model."""

from dataclasses import dataclass

from service.engine.runtimes.protocol import Runtime


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Read once at start: nothing here changes while the process lives."""

    name: str
    fingerprint: str
    trained: bool
    has_text: bool
    frames: int
    size: int
    query_context: str
    backbone: str
    device: str


def facts_of(recognizer: Runtime) -> ModelFacts:
    """Ask a recognizer for its facts."""
    return ModelFacts(
        name=recognizer.name,
        fingerprint=recognizer.fingerprint,
        trained=recognizer.trained,
        has_text=recognizer.has_text,
        frames=recognizer.config.frames,
        size=recognizer.size,
        query_context=recognizer.config.query_context,
        backbone=recognizer.config.backbone.kind,
        device=str(recognizer.device),
    )
