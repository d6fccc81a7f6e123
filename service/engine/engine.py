"""What the use cases ask of the model, as coroutines; one thread behind it owns the device.

Dimensions: S support clips, N classes, A stages, T frames, H W pixels, C colours, E feature width.
"""

import asyncio
import concurrent.futures
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from model.backbones.wording import TextFault
from model.episode import EncodedSupport
from model.methods import check_served
from model.text import StageTexts
from service.engine.cost import CostModel, Forecast
from service.engine.device import DeviceThread
from service.engine.queue import Batcher, Closing, Reason
from service.engine.runtimes.protocol import Runtime, served_model
from service.engine.saliency_work import SaliencyWork
from service.engine.slices import measured_slice
from service.engine.support_cache import SupportSize, support_size
from service.engine.work import Classified, Query, WatchPass

Made = TypeVar("Made")
MOST_SLICE_CLIPS = 8  # of a registration, where that is measured
RELIEF_S = 2.0  # longest the device waits for caches to be freed
PROBES = ((0, 0, 1), (0, 1))  # classes of clips: they differ in one clip


class Engine(SaliencyWork):
    """The runtime, shared by all requests.

    Args:
        recognizer: A runtime, or whatever has the same methods.
        batch_frames: Most frames in one batch of queries.
        slice_clips: Support clips between two looks at the queries; 0 measures what is best.
        max_wait_s: Longest a batch waits for more queries while the device is free.
        support_bytes: Budget of all encoded supports; 0 limits no task.
        ahead: Whether the device works by itself, so that it can be given the next full batch
            before it is done; None says yes to CUDA and to lanes.
        lanes: Cores that each take their share of a batch.

    Raises:
        MethodError: Its answers would depend on other queries.
    """

    def __init__(
        self,
        recognizer: Runtime,
        *,
        batch_frames: int,
        slice_clips: int = 8,
        max_wait_s: float = 0.003,
        support_bytes: int = 0,
        ahead: bool | None = None,
        lanes: int = 1,
    ) -> None:
        check_served(recognizer.config)
        self.model = served_model(recognizer)
        self.cost = CostModel()
        self.batcher = Batcher(
            budget_frames=max(batch_frames, self.model.frames),
            clip_frames=self.model.frames,
            cost=self.cost,
            max_wait_s=max_wait_s,
        )
        self.forecast = Forecast(self.batcher, self.cost, slice_clips * self.model.frames)
        self._recognizer = recognizer
        self._support_bytes = support_bytes
        self._support_size = SupportSize(0, 0)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._relief: list[Callable[[], None]] = []
        self._thread = DeviceThread(
            recognizer,
            self.batcher,
            self.cost,
            self._free_memory,
            ahead=recognizer.device.type == "cuda" or lanes > 1 if ahead is None else ahead,
            lanes=lanes,
        )

    async def start(self) -> None:
        """Start the device thread and run the model once, so that no client waits for that."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        if not self.forecast.slice_frames:
            self.forecast.slice_frames = await self._on_device(
                lambda: measured_slice(self._recognizer, MOST_SLICE_CLIPS)
            )
        shape = (len(PROBES[0]), self.model.frames, self.model.size, self.model.size, 3)
        frames = np.zeros(shape, np.uint8)
        more = await self.encode_support(frames, PROBES[0], None)
        begun = time.perf_counter()
        less = await self.encode_support(frames[: len(PROBES[1])], PROBES[1], None)
        self.forecast.alone_s = (time.perf_counter() - begun) / len(frames[: len(PROBES[1])])
        self._support_size = support_size(more, less, self.model)
        await self.classify(frames[:1], less)

    async def close(self) -> None:
        """Finish the work at hand and stop the thread."""
        await asyncio.to_thread(self._thread.stop)

    @property
    def silent_s(self) -> float:
        """Seconds since the device last showed that it works; endless when it cannot any more."""
        return self._thread.silent_s

    @property
    def queued_frames(self) -> int:
        """Frames that wait for the device."""
        return self.batcher.queued_frames

    @property
    def drain_rate(self) -> float:
        """Frames a second the device has done lately; 0 before anything was measured."""
        return self.cost.rate()

    @property
    def query_rate(self) -> float:
        """Likewise while it classified."""
        return self.cost.rate("classify")

    @property
    def dropped(self) -> Mapping[Reason, int]:
        """Works that were not done, by reason: disconnect, deadline, shutdown, failed."""
        return dict(self.batcher.dropped)

    @property
    def closings(self) -> Mapping[Closing, int]:
        """Batches of queries, by what closed them: full, deadline, delay, idle."""
        return dict(self.batcher.closings)

    @property
    def memory_failures(self) -> int:
        """Works that the device had no memory for, though some was freed."""
        return self._thread.memory_failures

    @property
    def support_size(self) -> SupportSize:
        """What the supports of a task take, as the start found it."""
        return self._support_size

    def watch_with(self, watch: WatchPass) -> None:
        """Have `watch` told of each pass, in the device's thread."""
        self._thread.watches.append(watch)

    def relieve_with(self, free: Callable[[], None]) -> None:
        """Have `free` called, in the event loop, whenever the device runs out of memory."""
        self._relief.append(free)

    def text_fault(self, label: str, stages: StageTexts) -> TextFault | None:
        """Say why the text tower cannot read a class's text; any thread may ask."""
        return self._recognizer.text_fault(label, stages)

    async def classify(
        self,
        frames_QTHWC: np.ndarray | Sequence[np.ndarray],
        support: EncodedSupport,
        *,
        tenant: str = "",
        deadline: float | None = None,
    ) -> list[Classified]:
        """Score query clips of one task; each goes its own way through the batches.

        Args:
            frames_QTHWC: RGB uint8.
            support: The task.
            tenant: Whose work it is; tenants share the device fairly.
            deadline: Instant of `time.monotonic()` after which nobody wants the result.

        Raises:
            DeadlineError: The deadline has passed; DeadlineUnmetError: it cannot be met.
            DeviceMemoryError: The device has no memory for it.
        """
        loop = asyncio.get_running_loop()
        self.forecast.admit("classify", len(frames_QTHWC) * self.model.frames, tenant, deadline)
        answers: list[asyncio.Future[Classified]] = [loop.create_future() for _ in frames_QTHWC]
        queries = [
            Query(
                kind="classify",
                frames=self.model.frames,
                tenant=tenant,
                deadline=deadline,
                done=answer,
                frames_THWC=frames_THWC,
                support=support,
            )
            for frames_THWC, answer in zip(frames_QTHWC, answers, strict=True)
        ]
        with self._queued(queries):
            return await asyncio.gather(*answers)

    def _free_memory(self) -> None:
        """Let caches go, from the device thread; they belong to the event loop."""
        if self._loop is None or self._loop.is_closed():
            return
        freed: concurrent.futures.Future[None] = concurrent.futures.Future()

        def free() -> None:
            for relief in self._relief:
                relief()
            freed.set_result(None)

        self._loop.call_soon_threadsafe(free)
        concurrent.futures.wait([freed], timeout=RELIEF_S)
