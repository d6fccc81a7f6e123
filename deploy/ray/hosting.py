"""An engine that ingresses ask over the network; it knows no Ray.

Each call names the checkpoint that it means, and a host loads what it does not have yet: so an
ingress that serves another checkpoint, or is of another deployment, never gets answers of a model
that it did not ask for. Tensors come and go as numpy arrays, encoded supports as safetensors.

Dimensions: S Q clips, N classes, A stages, T frames, H W pixels, C colours, E feature width.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch

from deploy.ray.facts import Facts, Pulse
from model.backbones.wording import TextFault
from model.diagnosis.splits import Split
from model.episode import EncodedSupport, Memory
from model.passes.kept_support import from_bytes, to_bytes
from model.text import StageTexts
from service.assembly import cache_of, engine_of
from service.background import spawn
from service.container import choose_runtime
from service.engine.engine import Engine
from service.engine.passes.choice import Choice
from service.engine.runtimes.protocol import Precision, supports_from
from service.engine.saliency_work import Explained
from service.engine.support_cache import SupportCache, SupportKey
from service.engine.work import Classified
from service.errors import EngineError
from service.settings import Settings

IDLE_S = 120.0  # after which a model goes that nobody asks for, where there is another
DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}

log = logging.getLogger("kshot.ray")


@dataclass(slots=True)
class Hosted:
    """A model that is loaded."""

    engine: Engine
    choice: Choice
    cache: SupportCache
    used: float = field(default_factory=time.monotonic)


class EngineHost:
    """Computes for ingresses.

    Args:
        settings: Of the service; its checkpoint is loaded at the start.
        choose: Loads a checkpoint and chooses what runs it.
    """

    def __init__(
        self, settings: Settings, choose: Callable[[Settings], Choice] = choose_runtime
    ) -> None:
        self.settings = settings
        self.choose = choose
        self._hosted: dict[str, asyncio.Task[Hosted]] = {}

    async def facts(self, source: str) -> Facts:
        """Load a checkpoint, unless that is done, and tell of it."""
        hosted = await self._of(source)
        engine, runtime = hosted.engine, hosted.choice.runtime
        return Facts(
            model=engine.model,
            kind=runtime.kind,
            precision=runtime.precision,
            provider=runtime.provider,
            buckets=runtime.buckets,
            why=hosted.choice.why,
            clips_s=dict(hosted.choice.clips_s),
            refused=dict(hosted.choice.refused),
            supports_apart=engine.supports_apart,
            size=engine.support_size,
            slice_frames=engine.forecast.slice_frames,
            alone_s=engine.forecast.alone_s,
            made_by=supports_from(runtime),
        )

    async def pulse(self, source: str) -> Pulse:
        """Tell how the device fares, and how fast it has been lately."""
        engine = (await self._of(source)).engine
        return Pulse(engine.silent_s, engine.drain_rate, engine.query_rate)

    async def check(self) -> None:
        """Load the checkpoint of the settings if there is none; let go of what is idle.

        Raises:
            EngineError: A device has shown no sign of life lately.
        """
        if not self._hosted:
            await self._of(self.settings.checkpoint)
        await self._let_idle_go()
        for hosted in self._loaded().values():
            if (silent_s := hosted.engine.silent_s) >= self.settings.heartbeat_s:
                raise EngineError(f"The device has shown no sign of life for {silent_s:.0f} s.")

    async def classify(
        self,
        source: str,
        frames: Sequence[np.ndarray],
        digest: str,
        support: bytes | None,
        tenant: str,
        left_s: float | None,
    ) -> list[Classified] | None:
        """Score clips, as `Engine.classify`; None asks for the supports, which are not here."""
        deadline = deadline_of(left_s)
        hosted = await self._of(source)
        found = await self._support(hosted, digest, support)
        if found is None:
            return None
        return await hosted.engine.classify(frames, found, tenant=tenant, deadline=deadline)

    async def explain(
        self,
        source: str,
        frames_THWC: np.ndarray,
        digest: str,
        support: bytes | None,
        label: int,
        tenant: str,
        left_s: float | None,
    ) -> Explained | None:
        """Tell where a score comes from; None asks for the supports, which are not here."""
        deadline = deadline_of(left_s)
        hosted = await self._of(source)
        found = await self._support(hosted, digest, support)
        if found is None:
            return None
        return await hosted.engine.explain(
            frames_THWC, found, label, tenant=tenant, deadline=deadline
        )

    async def encode_support(
        self,
        source: str,
        frames_STHWC: np.ndarray,
        classes: Sequence[int],
        text_NAE: np.ndarray | None,
        work: Literal["register", "rebuild"],
        tenant: str,
        left_s: float | None,
        known: Mapping[int, np.ndarray],
    ) -> bytes:
        """Encode supports, as `Engine.encode_support`."""
        deadline = deadline_of(left_s)
        engine = (await self._of(source)).engine
        device = torch.device(engine.model.device)
        support = await engine.encode_support(
            frames_STHWC,
            classes,
            None if text_NAE is None else torch.from_numpy(text_NAE.copy()),
            work=work,
            tenant=tenant,
            deadline=deadline,
            known={n: torch.from_numpy(one.copy()).to(device) for n, one in known.items()},
        )
        return await asyncio.to_thread(to_bytes, support)

    async def encode_features(
        self, source: str, frames_STHWC: np.ndarray, tenant: str
    ) -> np.ndarray:
        """Encode clips that are of no task yet."""
        engine = (await self._of(source)).engine
        return (await engine.encode_features(frames_STHWC, tenant=tenant)).float().cpu().numpy()

    async def score_splits(
        self,
        source: str,
        digest: str,
        support: bytes | None,
        splits: Sequence[Split],
        tenant: str,
    ) -> list[np.ndarray] | None:
        """Score clips of a task by others; None asks for the supports, which are not here."""
        hosted = await self._of(source)
        found = await self._support(hosted, digest, support)
        if found is None:
            return None
        return await hosted.engine.score_splits(found, splits, tenant=tenant)

    async def encode_text(
        self, source: str, labels: Sequence[str], stages: Sequence[StageTexts], tenant: str
    ) -> np.ndarray:
        """Encode stage texts; returns text_NAE."""
        engine = (await self._of(source)).engine
        return (await engine.encode_text(labels, stages, tenant=tenant)).float().cpu().numpy()

    async def text_fault(self, source: str, label: str, stages: StageTexts) -> TextFault | None:
        """Say why the text tower cannot read a class's text."""
        return (await self._of(source)).engine.text_fault(label, stages)

    async def close(self) -> None:
        """Stop what is loaded."""
        for hosted in self._loaded().values():
            await hosted.engine.close()

    async def _of(self, source: str) -> Hosted:
        """Return a model, loaded by whoever asks first."""
        if (opening := self._hosted.get(source)) is None:
            opening = self._hosted[source] = spawn(self._opened(source))
        try:
            hosted = await asyncio.shield(opening)
        except Exception:
            if self._hosted.get(source) is opening:
                del self._hosted[source]  # so that it can be tried again
            raise
        hosted.used = time.monotonic()
        return hosted

    async def _opened(self, source: str) -> Hosted:
        settings = self.settings
        if source != settings.checkpoint:
            settings = settings.model_copy(update={"checkpoint": source, "onnx": None})
        choice = await asyncio.to_thread(self.choose, settings)
        engine = engine_of(choice.runtime, settings)
        try:
            await engine.start()
        except BaseException:
            await engine.close()
            raise
        return Hosted(engine, choice, cache_of(engine, settings))

    def _loaded(self) -> dict[str, Hosted]:
        """Return the models that are there, the one that was asked for last at the end."""
        done = {
            source: opening.result()
            for source, opening in self._hosted.items()
            if opening.done() and not opening.cancelled() and not opening.exception()
        }
        return dict(sorted(done.items(), key=lambda one: one[1].used))

    async def _let_idle_go(self) -> None:
        """Close the models that nobody has asked for lately, but never the last."""
        for source, hosted in [*self._loaded().items()][:-1]:
            if time.monotonic() - hosted.used > IDLE_S and not hosted.engine.queued_frames:
                del self._hosted[source]
                await hosted.engine.close()

    async def _support(
        self, hosted: Hosted, digest: str, content: bytes | None
    ) -> EncodedSupport | None:
        key = SupportKey(digest, 0, hosted.engine.model.fingerprint)
        if (found := hosted.cache.peek(key)) is None and content is not None:
            device = torch.device(hosted.engine.model.device)
            found = await asyncio.to_thread(from_bytes, content, device)
            found = as_multiplied(found, hosted.choice.runtime.precision)
            hosted.cache.put(key, found)
        return found


def as_multiplied(support: EncodedSupport, precision: Precision) -> EncodedSupport:
    """Return supports with memories in a precision; the host that made them may have another.

    Each chooses what is fastest there as it starts, and where two are as fast, they differ.
    """
    memories = [
        memory
        and Memory(memory.keys_PHMW.to(DTYPES[precision]), memory.values_PHMW.to(DTYPES[precision]))
        for memory in support.memories
    ]
    return replace(support, memories=tuple(memories))


def deadline_of(left_s: float | None) -> float | None:
    """Return the instant of this machine's clock at which so many seconds are over."""
    return None if left_s is None else time.monotonic() + left_s
