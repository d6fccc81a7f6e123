"""What the use cases ask of the model, as coroutines; one thread behind it owns the device.

Dimensions: S support clips, N classes, A stages, T frames, H W pixels, C colours, E feature width.
"""

import asyncio
import time
from collections.abc import Callable, Generator, Sequence
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from model.recognizer import EncodedSupport
from model.subactions import StageTexts
from service.engine.device_thread import Classified, DeviceThread, Job, Query
from service.engine.facts import ModelFacts, facts_of
from service.engine.runtimes.protocol import Runtime
from service.refusals import DeadlineError

Progress = Callable[[int], None]
ResultT = TypeVar("ResultT")


def _silent(_: int) -> None:
    pass


class Engine:
    """The recognizer, shared by all requests.

    Args:
        recognizer: A runtime, or whatever has the same methods.
        batch_clips: Most queries in one forward pass.
        slice_clips: Support clips between two looks at the query queue.

    Raises:
        MethodError: Its answers would depend on other queries.
    """

    def __init__(self, recognizer: Runtime, *, batch_clips: int, slice_clips: int) -> None:
        recognizer.served()
        self.facts: ModelFacts = facts_of(recognizer)
        self._recognizer = recognizer
        self._slice_clips = slice_clips
        self._thread = DeviceThread(recognizer, batch_clips)

    async def start(self) -> None:
        """Start the device thread and run the model once, so that no client waits for that."""
        self._thread.start()
        frames = np.zeros((2, self.facts.frames, self.facts.size, self.facts.size, 3), np.uint8)
        support = await self.encode_support(frames, [0, 1], None)
        await self.classify(frames[:1], support)

    async def close(self) -> None:
        """Finish the work at hand and stop the thread."""
        await asyncio.to_thread(self._thread.stop)

    @property
    def silent_s(self) -> float:
        """Seconds since the device thread last said that it lives."""
        return self._thread.silent_s

    @property
    def queued_frames(self) -> int:
        """Frames that wait for the device."""
        return self._thread.waiting * self.facts.frames

    @property
    def drain_rate(self) -> float:
        """Frames a second the device has done lately; 0 before anything was measured."""
        return self._thread.drain_rate

    def unknown_words(self, label: str, stages: StageTexts) -> tuple[str, ...]:
        """Name the words of a class that the text tower never saw."""
        return self._recognizer.unknown_words(label, stages)

    async def encode_support(
        self,
        frames_STHWC: np.ndarray,
        classes: Sequence[int],
        text_NAE: Tensor | None,
        progress: Progress = _silent,
        *,
        work: Literal["register", "rebuild"] = "register",  # noqa: ARG002  the batcher sorts by it next
        tenant: str = "",  # noqa: ARG002  the batcher sorts by it next
        deadline: float | None = None,
    ) -> EncodedSupport:
        """Encode the supports of one task, in slices between which queries go first.

        Args:
            frames_STHWC: RGB uint8.
            classes: Class index of each clip.
            text_NAE: From `encode_text`, or None to score by video alone.
            progress: Told the number of clips done, from the device thread.
            work: Registrations go before rebuilds.
            tenant: Whose work it is; tenants share the device fairly.
            deadline: Instant of `time.monotonic()` after which nobody wants the result.

        Raises:
            DeadlineError: The deadline has passed.
        """
        _check(deadline)
        return await self._job(self._support_steps(frames_STHWC, classes, text_NAE, progress))

    async def encode_text(self, labels: Sequence[str], stages: Sequence[StageTexts]) -> Tensor:
        """Encode stage texts; returns text_NAE."""
        return await self._job(self._text_steps(labels, stages))

    async def classify(
        self,
        frames_QTHWC: np.ndarray,
        support: EncodedSupport,
        *,
        tenant: str = "",  # noqa: ARG002  the batcher sorts by it next
        deadline: float | None = None,
    ) -> list[Classified]:
        """Score query clips of one task; each goes its own way through the batches.

        Args:
            frames_QTHWC: RGB uint8.
            support: The task.
            tenant: Whose work it is; tenants share the device fairly.
            deadline: Instant of `time.monotonic()` after which nobody wants the result.

        Raises:
            DeadlineError: The deadline has passed.
        """
        _check(deadline)
        loop = asyncio.get_running_loop()
        queries = [Query(frames, support, loop.create_future()) for frames in frames_QTHWC]
        try:
            for query in queries:
                self._thread.put(query)
            return await asyncio.gather(*(query.done for query in queries))
        finally:
            for query in queries:
                query.done.cancel()

    async def _job(self, steps: Generator[None, None, ResultT]) -> ResultT:
        done: asyncio.Future[ResultT] = asyncio.get_running_loop().create_future()
        self._thread.put(Job(steps, done))
        return await done

    def _support_steps(
        self,
        frames_STHWC: np.ndarray,
        classes: Sequence[int],
        text_NAE: Tensor | None,
        progress: Progress,
    ) -> Generator[None, None, EncodedSupport]:
        tokens: list[Tensor] = []
        for start in range(0, len(frames_STHWC), self._slice_clips):
            part = frames_STHWC[start : start + self._slice_clips]
            tokens.append(self._recognizer.trunk(part))
            progress(start + len(part))
            yield
        text = None if text_NAE is None else text_NAE.to(self._recognizer.device)
        return self._recognizer.encode_support(torch.cat(tokens), classes, text)

    def _text_steps(
        self, labels: Sequence[str], stages: Sequence[StageTexts]
    ) -> Generator[None, None, Tensor]:
        yield
        return self._recognizer.encode_text(labels, stages)


def _check(deadline: float | None) -> None:
    if deadline is not None and time.monotonic() >= deadline:
        raise DeadlineError("The deadline has passed; allow more time, or ask again later.")
