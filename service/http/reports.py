"""What the service says about itself: bodies of /info, /livez and /readyz."""

from pydantic import BaseModel, Field

from model.calibration.fitted import CalibrationFacts


class ModelView(BaseModel):
    """What answers."""

    name: str = Field(examples=["compact"])
    fingerprint: str
    trained: bool
    text: bool = Field(description="The checkpoint has a text tower.")
    frames: int
    size: int = Field(description="Pixels of the square picture it sees.")
    squash: int | None = Field(
        description="Pixels of the square that whole pictures are squashed to before the crop; "
        "null: they keep their shape.",
    )
    query_context: str
    backbone: str
    calibration: CalibrationFacts


class RuntimeView(BaseModel):
    """What runs the model, and why."""

    kind: str = Field(description="torch or onnx.")
    precision: str = Field(description="What the trunk multiplies in: fp32, bf16 or int8.")
    provider: str = Field(examples=["cpu", "CPUExecutionProvider"])
    device: str
    threads: int
    buckets: tuple[int, ...] = Field(description="Frames of captured passes; empty: any number.")
    why: str = Field(examples=["the only one there is"])
    measured_clips_s: dict[str, float] = Field(description="Trunk, at start-up, by candidate.")
    refused: dict[str, str] = Field(description="Candidates that were left out, and why.")
    versions: dict[str, str] = Field(examples=[{"torch": "2.14.1", "onnxruntime": "1.31.1"}])


class InfoView(BaseModel):
    """What runs here."""

    version: str
    model: ModelView
    runtime: RuntimeView
    decoder: dict[str, str] = Field(examples=[{"av": "18.1.0", "ffmpeg": "8.1.2"}])
    store: str = Field(description="Kind of store, without its address.", examples=["sqlite"])
    descriptions: bool = Field(description="A language model describes labels.")


class Health(BaseModel):
    """Whether the parts do their work."""

    ok: bool
    degraded: bool = Field(False, description="Works, but not all of it.")
    parts: dict[str, bool]
    reasons: dict[str, str] = Field({}, description="Why a part does not do its work.")
