"""The engine as an ingress has it: the same methods, and the device is elsewhere.

Dimensions: S Q clips, N classes, A stages, T frames, H W pixels, C colours, E feature width.
"""

import asyncio
import contextlib
import hashlib
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from deploy.ray.facts import Facts, Pulse
from model.backbones.wording import TextFault
from model.diagnosis.splits import Split
from model.episode import EncodedSupport, MatchScores
from model.errors import KshotError
from model.passes.kept_support import from_bytes, to_bytes
from model.text import StageTexts
from service.background import spawn
from service.engine.cost import CostModel, Forecast
from service.engine.engine import Engine
from service.engine.passes.batching import usual_batch_frames
from service.engine.queue import Batcher
from service.engine.registration import Progress, silent
from service.engine.saliency_work import Explained
from service.engine.window_work import Reel, Window
from service.engine.work import Classified, WatchPass
from service.settings import Settings

PULSE_S = 15.0  # between two looks at whether an engine answers, and how fast it is
HERE = torch.device("cpu")


class Ask(Protocol):
    """Asks an engine, whichever is free."""

    async def __call__(self, method: str, *arguments: object) -> Any:  # noqa: ANN401
        """Return what the method returns.

        Raises:
            KshotError: What it raises; ServerStoppingError: no engine answers.
        """

    def now(self, method: str, *arguments: object) -> Any:  # noqa: ANN401
        """Return it to a thread that waits."""

    async def engines(self) -> int:
        """Return how many there are."""


class RemoteEngine(Engine):
    """An engine whose device, queue and batches are at a host.

    Encoded supports are kept here, as the store and the cache need them; a host is sent those that
    it lacks. A video's windows are scored as clips, as no host is bound to a video.

    Args:
        ask: Asks a host.
        source: The checkpoint, as `KSHOT_CHECKPOINT` has it.
        facts: Of the model.
        settings: Of the process.
    """

    def __init__(self, ask: Ask, source: str, facts: Facts, settings: Settings) -> None:
        self.model = replace(facts.model, device=str(HERE))  # where its tensors are here
        self.cost = CostModel()
        self.batcher = Batcher(
            budget_frames=settings.batch_frames or usual_batch_frames(HERE),
            clip_frames=facts.model.frames,
            cost=self.cost,
            max_wait_s=0.0,
        )
        self.forecast = Forecast(self.batcher, self.cost, facts.slice_frames, facts.alone_s)
        self._support_bytes = settings.support_cache_bytes
        self._support_size = facts.size
        self._ask = ask
        self._source = source
        self._apart = facts.supports_apart
        self._digests: dict[int, str] = {}  # of supports that live, by their id
        self._rates = 0.0, 0.0
        self._beat = time.monotonic()
        self._pulse: asyncio.Task[None] | None = None

    @property
    def supports_apart(self) -> bool:
        """Whether each support is encoded by itself."""
        return self._apart

    @property
    def silent_s(self) -> float:
        """Seconds since a host last answered."""
        return time.monotonic() - self._beat

    @property
    def drain_rate(self) -> float:
        """Frames a second that all hosts have done lately; 0 before anything is known."""
        return self._rates[0]

    @property
    def query_rate(self) -> float:
        """Likewise while they classified."""
        return self._rates[1]

    @property
    def memory_failures(self) -> int:
        """Of the device: a host counts its own."""
        return 0

    async def start(self) -> None:
        """Begin to look whether hosts answer."""
        self._pulse = spawn(self._beats())

    async def close(self) -> None:
        """Look no more."""
        if self._pulse is not None:
            self._pulse.cancel()

    def watch_with(self, watch: WatchPass) -> None:
        """Passes are the hosts'; nobody here sees them."""

    def relieve_with(self, free: Callable[[], None]) -> None:
        """No device is here to be relieved."""

    def text_fault(self, label: str, stages: StageTexts) -> TextFault | None:
        """Say why the text tower cannot read a class's text; a thread waits for that."""
        fault: TextFault | None = self._ask.now("text_fault", self._source, label, stages)
        return fault

    async def classify(
        self,
        frames_QTHWC: np.ndarray | Sequence[np.ndarray],
        support: EncodedSupport,
        *,
        tenant: str = "",
        deadline: float | None = None,
    ) -> list[Classified]:
        """Score query clips of one task."""
        found: list[Classified] = await self._with_support(
            "classify", (list(frames_QTHWC),), support, lambda: (tenant, _left_s(deadline))
        )
        return found

    async def explain(
        self,
        frames_THWC: np.ndarray,
        support: EncodedSupport,
        label: int,
        *,
        tenant: str = "",
        deadline: float | None = None,
    ) -> Explained:
        """Tell where one label's score comes from, in one clip."""
        found: Explained = await self._with_support(
            "explain", (frames_THWC,), support, lambda: (label, tenant, _left_s(deadline))
        )
        return found

    async def encode_support(
        self,
        frames_STHWC: np.ndarray,
        classes: Sequence[int],
        text_NAE: Tensor | None,
        progress: Progress = silent,
        *,
        work: Literal["register", "rebuild"] = "register",
        tenant: str = "",
        deadline: float | None = None,
        known: Mapping[int, Tensor] | None = None,
    ) -> EncodedSupport:
        """Encode the supports of one task."""
        content = await self._asked(
            "encode_support",
            np.ascontiguousarray(frames_STHWC),
            list(classes),
            None if text_NAE is None else text_NAE.numpy(),
            work,
            tenant,
            _left_s(deadline),
            {place: one.numpy() for place, one in (known or {}).items()},
        )
        progress(len(frames_STHWC))
        return await asyncio.to_thread(from_bytes, content, HERE)

    async def encode_features(
        self, frames_STHWC: np.ndarray, progress: Progress = silent, *, tenant: str = ""
    ) -> Tensor:
        """Encode clips that are of no task yet."""
        features = await self._asked("encode_features", frames_STHWC, tenant)
        progress(len(frames_STHWC))
        return torch.from_numpy(features.copy())

    async def score_splits(
        self, support: EncodedSupport, splits: Sequence[Split], *, tenant: str = ""
    ) -> list[np.ndarray]:
        """Score held-out clips of a task by its other clips."""
        found: list[np.ndarray] = await self._with_support(
            "score_splits", (), support, lambda: (list(splits), tenant)
        )
        return found

    async def encode_text(
        self, labels: Sequence[str], stages: Sequence[StageTexts], *, tenant: str = ""
    ) -> Tensor:
        """Encode stage texts; returns text_NAE."""
        text_NAE = await self._asked("encode_text", list(labels), list(stages), tenant)
        return torch.from_numpy(text_NAE.copy())

    async def write_support(self, support: EncodedSupport) -> bytes:
        """Write supports down."""
        return await asyncio.to_thread(to_bytes, support)

    async def read_support(self, content: bytes) -> EncodedSupport:
        """Read what `write_support` wrote."""
        return await asyncio.to_thread(from_bytes, content, HERE)

    async def score_windows(
        self,
        reel: Reel,
        numbers: Sequence[int],
        frames_NHWC: np.ndarray,
        windows: Sequence[Window],
        needed_from: int,
        *,
        tenant: str = "",
        deadline: float | None = None,
    ) -> list[MatchScores]:
        """Score windows of a video, each as a clip of its own."""
        reel.held |= zip(numbers, torch.from_numpy(frames_NHWC), strict=True)
        clips = [np.stack([reel.held[n].numpy() for n in window]) for window in windows]
        for number in [number for number in reel.held if number < needed_from]:
            del reel.held[number]
        if not clips:
            return []
        found = await self.classify(clips, reel.support, tenant=tenant, deadline=deadline)
        return [one.scores for one in found]

    async def _asked(self, method: str, *arguments: object) -> Any:  # noqa: ANN401
        answer = await self._ask(method, self._source, *arguments)
        self._beat = time.monotonic()
        return answer

    async def _with_support(
        self,
        method: str,
        before: tuple[object, ...],
        support: EncodedSupport,
        after: Callable[[], tuple[object, ...]],  # called anew for each ask
    ) -> Any:  # noqa: ANN401
        """Ask by the digest of supports, and send these to a host that does not have them."""
        digest = await self._digest(support)
        found = await self._asked(method, *before, digest, None, *after())
        if found is None:
            content = await asyncio.to_thread(to_bytes, support)
            found = await self._asked(method, *before, digest, content, *after())
        return found

    async def _digest(self, support: EncodedSupport) -> str:
        """Return the name of supports, the same at each ingress."""
        known = self._digests.get(id(support))
        if known is None:
            content = await asyncio.to_thread(to_bytes, support)
            known = self._digests[id(support)] = hashlib.sha256(content).hexdigest()
            weakref.finalize(support, self._digests.pop, id(support), None)
        return known

    async def _beats(self) -> None:
        while True:
            with contextlib.suppress(KshotError):
                pulse: Pulse = await self._ask("pulse", self._source)
                if pulse.silent_s < PULSE_S:
                    self._beat = time.monotonic()
                engines = await self._ask.engines()
                self._rates = engines * pulse.frames_s, engines * pulse.query_frames_s
            await asyncio.sleep(PULSE_S)


def _left_s(deadline: float | None) -> float | None:
    """Return the seconds that are left now."""
    return None if deadline is None else deadline - time.monotonic()
