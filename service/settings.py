"""Where the process runs: every field is set by KSHOT_<NAME>; docs/settings.md has the table."""

import difflib
import os
import re
from pathlib import Path
from typing import Annotated, Literal, Self

import av
from pydantic import (
    AliasChoices,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from model.backbones.sources import DEFAULT_CACHE
from model.media.container import DEMUXERS, MediaLimits
from service.decoding.sandbox import SandboxLimits
from service.errors import SettingsError

PREFIX = "KSHOT_"
OF_CLIENTS = {"KSHOT_URL", "KSHOT_API_KEY"}  # a shell may have them for the client beside it
MIB = 2**20
CLIP = MediaLimits()  # the defaults of what one clip may be


def _split(value: object) -> object:
    """Read `a, b` as a list of words."""
    return [word.strip() for word in value.split(",")] if isinstance(value, str) else value


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]


class Settings(BaseSettings):
    """Frozen settings of one service process."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", populate_by_name=True, env_ignore_empty=True
    )

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    store: str = Field(
        "sqlite:.kshot/kshot.db",
        description="Where tasks live: `sqlite:PATH`, or `redis://HOST:PORT/DB` shared by "
        "replicas.",
    )
    open: bool = Field(
        False,
        description="Serve without API keys on an address that others reach, as long as there is "
        "no key.",
    )
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="Form of log lines: `json`, `text`, or `auto`: text on a terminal."
    )
    checkpoint: str = Field(
        "causal",
        description="What is served: `causal`, `compact`, a short name such as `clip`, a "
        "checkpoint folder, `open_clip:NAME@WEIGHTS` or `timm:NAME`.",
    )
    backbone_weights: Path | None = Field(
        None, description="File with a backbone's weights (safetensors, npz), for no hub."
    )
    models_dir: Path | None = Field(
        None,
        description="Folder of the checkpoint folders that `POST /v1/admin/model` may serve in the "
        "place of this one; unset allows none.",
    )
    model_cache: Path = Field(DEFAULT_CACHE, description="Folder of downloaded weights.")
    device: str = Field(
        "auto", description="`auto`, `cpu`, `cuda` or `cuda:N`; auto takes CUDA where there is one."
    )
    threads: int = Field(0, ge=0, description="CPU threads of the model; 0 leaves it to torch.")
    runtime: Literal["auto", "torch", "onnx"] = Field(
        "auto",
        description="What runs the model: `torch`, `onnx`, or `auto`: the "
        "fastest at start-up whose scores agree.",
    )
    onnx: Path | None = Field(
        None,
        description="What `python -m model.export` wrote; default: `onnx` in the checkpoint's "
        "folder, where there is one.",
    )
    decode_workers: int = Field(
        0,
        ge=0,
        le=256,
        description="Sandboxed decoder processes; 0 is one a usable core and one more. "
        "Registrations leave one free.",
    )
    decode_memory_bytes: int = Field(
        2048 * MIB, ge=256 * MIB, description="Address space of one decoder process."
    )
    decode_wall_s: float = Field(
        45.0, gt=0, description="Longest a decoder has for one clip on a busy machine; then 503."
    )
    decode_cpu_s: int = Field(
        30, ge=1, description="CPU seconds of a decoder for one clip; then 422."
    )
    batch_frames: int = Field(
        0,
        ge=0,
        description="Most frames of one batch of queries; 0 is 256 on CUDA, 16 a core elsewhere.",
    )
    max_wait_ms: float = Field(
        3.0, ge=0, description="Longest a small batch waits for more while the device is free."
    )
    slice_clips: int = Field(
        0,
        ge=0,
        description="Support clips encoded between two looks at the query queue; 0 measures what "
        "holds up a query by a quarter of its time.",
    )
    support_cache_bytes: int = Field(
        1024 * MIB, ge=0, description="Encoded supports kept; the least recently used leave first."
    )
    kept_support_bytes: int = Field(
        4 * MIB,
        ge=0,
        le=256 * MIB,
        description="Encoded supports of one task that the store keeps, at most; larger ones are "
        "encoded again after a restart, 0 keeps none.",
    )
    inbox_s: float = Field(
        7 * 86_400.0, gt=0, description="How long a query is kept that a task remembers."
    )
    idempotency_s: float = Field(
        86_400.0, gt=0, description="How long the answer to an Idempotency-Key is given again."
    )
    wait_s: float = Field(
        20.0, ge=0, description="Longest POST /tasks and classify wait for a task to be ready."
    )
    deadline_s: float = Field(
        10.0, gt=0, description="Longest a classify request takes that has no X-Request-Timeout-Ms."
    )
    max_deadline_s: float = Field(
        60.0, gt=0, description="Most of X-Request-Timeout-Ms; what registrations have without it."
    )
    timeline_deadline_s: float = Field(
        600.0, gt=0, description="Longest a timeline takes; X-Request-Timeout-Ms may say less."
    )
    heartbeat_s: float = Field(
        120.0, gt=0, description="Silence of the device thread after which /livez fails."
    )
    stop_grace_s: int = Field(10, ge=0, description="Seconds running requests get on SIGTERM.")

    openai_api_key: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("OPENAI_API_KEY", "openai_api_key"),
        description="Key for label descriptions; read from OPENAI_API_KEY, without the prefix.",
    )
    llm_base_url: str | None = Field(
        None, description="OpenAI-compatible endpoint for label descriptions, such as a local vLLM."
    )
    llm_model: str = Field("gpt-4o-mini", description="Model asked for label descriptions.")
    text_ttl_s: float = Field(
        30 * 86_400.0, gt=0, description="How long cached descriptions and text features live."
    )

    max_request_bytes: int = Field(256 * MIB, ge=1, description="Body of one request.")
    max_inflight_bytes: int = Field(
        1024 * MIB, ge=2, description="Bodies of all running requests together; more is a 503."
    )
    max_inflight_decode_s: float = Field(
        60.0, gt=0, description="Seconds of decoding of all running requests, by estimate."
    )
    max_inflight_frames: int = Field(
        16384, ge=2, description="Frames for the device of all running requests, by estimate."
    )
    stored_upload_bytes: int = Field(
        64 * MIB,
        ge=0,
        description="Clips of one registration that are stored as they were sent, so that its 202 "
        "need not wait until they are decoded; larger ones are decoded first.",
    )
    tenant_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Part of these that one client holds while others ask; then 429.",
    )
    quota_tasks: int | None = Field(None, ge=0, description="Most tasks of a tenant; unset: any.")
    quota_bytes: int | None = Field(None, ge=0, description="Most bytes of a tenant's tasks.")
    quota_clip_seconds: float | None = Field(
        None, ge=0, description="Most seconds of video that a tenant sends in a minute."
    )
    quota_frames: int | None = Field(
        None, ge=0, description="Most frames for the device that a tenant asks for in a minute."
    )
    min_upload_bytes_s: int = Field(
        64 * 1024, ge=0, description="Slowest upload, bytes a second; slower is a 408."
    )
    upload_patience_s: float = Field(
        10.0, gt=0, description="Seconds of waiting for a body before its speed counts."
    )
    max_clip_bytes: int = Field(CLIP.max_bytes, ge=1, description="One clip as a file part.")
    max_base64_bytes: int = Field(8 * MIB, ge=1, description="One clip in JSON, decoded.")
    containers: Words = Field(
        CLIP.containers,
        description="Containers taken; mp4 means mov too, webm mkv, ts mts and m2ts.",
    )
    codecs: Words = Field(CLIP.codecs, description="Video codecs taken.")
    min_clip_s: float = Field(CLIP.min_duration_s, ge=0, description="Shortest clip.")
    max_clip_s: float = Field(CLIP.max_duration_s, gt=0, description="Longest clip.")
    max_timeline_s: float = Field(900.0, gt=0, description="Longest video of a timeline.")
    max_timelines: int = Field(2, ge=1, description="Timelines at once; more is a 503.")
    max_watchers: int = Field(256, ge=1, description="Readers of tasks' events at once.")
    max_pixels: int = Field(CLIP.max_pixels, ge=1, description="Pixels of one picture.")
    max_frames: int = Field(CLIP.max_frames, ge=1, description="Frames of one clip.")
    max_streams: int = Field(CLIP.max_streams, ge=1, description="Streams in one container.")
    min_pictures: int = Field(
        CLIP.min_pictures, ge=1, description="Fewest pictures of a clip given as pictures."
    )
    max_pictures: int = Field(
        CLIP.max_pictures, ge=1, description="Most pictures of a clip given as pictures."
    )
    max_labels: int = Field(50, ge=2, le=200, description="Labels of one task; the least is 2.")
    max_shots: int = Field(16, ge=1, le=64, description="Support clips of one label.")
    max_support_clips: int = Field(200, ge=2, le=1000, description="Support clips of one task.")
    max_query_clips: int = Field(16, ge=1, le=64, description="Clips of one classify request.")
    max_label_chars: int = Field(100, ge=1, le=200, description="Characters of one label.")
    max_name_chars: int = Field(200, ge=1, description="Characters of a task's name.")
    max_ttl_s: float = Field(
        365 * 86_400.0,
        gt=0,
        description="Longest life a client may ask for; none asked is forever.",
    )

    @field_validator("containers", "codecs")
    @classmethod
    def _known(cls, words: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        known = set(DEMUXERS) if info.field_name == "containers" else av.codecs_available
        if unknown := [word for word in words if word not in known]:
            near = difflib.get_close_matches(unknown[0], [*CLIP.containers, *CLIP.codecs], n=1)
            raise PydanticCustomError(
                "unknown_word",
                "nothing reads {word}; {remedy}",
                {
                    "word": repr(unknown[0]),
                    "remedy": f"write {near[0]}" if near else "see docs/settings.md",
                },
            )
        return words

    @field_validator("max_clip_s", "max_pictures")
    @classmethod
    def _not_under_the_least(cls, most: float, info: ValidationInfo) -> float:
        least = info.data.get(str(info.field_name).replace("max_", "min_"))
        if least is not None and most < least:
            name = f"{PREFIX}{info.field_name}".upper().replace("MAX_", "MIN_")
            raise PydanticCustomError(
                "under_the_least", "{name} is {least}", {"name": name, "least": least}
            )
        return most

    def shown(self) -> str:
        """Return what differs from the defaults, for the log, without keys and passwords."""
        text = self.model_dump_json(exclude_defaults=True)
        return re.sub(r"//[^@/\s]*@", "//***@", text)

    @property
    def sandbox(self) -> SandboxLimits:
        """What one decoder process may use."""
        return SandboxLimits(
            memory_bytes=self.decode_memory_bytes,
            cpu_s=self.decode_cpu_s,
            wall_s=self.decode_wall_s,
        )

    @classmethod
    def from_env(cls) -> Self:
        """Read the environment; an unknown KSHOT_ variable is an error, not a shrug.

        Raises:
            SettingsError: A variable is unknown, or its value does not fit.
        """
        known = {PREFIX + name.upper() for name in cls.model_fields if name != "openai_api_key"}
        for name in sorted(os.environ):
            if name in OF_CLIENTS:
                continue
            if name.upper().startswith(PREFIX) and name.upper() not in known:
                near = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.0)
                raise SettingsError(
                    f"{name} is no setting of this service; take it away, or write {near[0]}."
                )
        try:
            return cls()
        except ValidationError as error:
            first = error.errors()[0]
            name = PREFIX + "_".join(str(part) for part in first["loc"]).upper()
            raise SettingsError(
                f"{name} is {first['input']!r}, which does not do: {first['msg']}."
            ) from error
