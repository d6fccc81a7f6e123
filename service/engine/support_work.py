"""What the engine does for the supports of tasks, in steps between which queries go first.

Dimensions: S clips, N classes, A stages, T frames, H W pixels, C colours, E feature width.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from model.diagnosis.splits import Split
from model.episode import EncodedSupport
from model.passes.kept_support import from_bytes, to_bytes
from model.text import StageTexts
from service.engine.cost import Forecast
from service.engine.device import DeviceThread
from service.engine.queue import Batcher
from service.engine.registration import Progress, Registration, ends, silent
from service.engine.runtimes.protocol import Runtime, ServedModel
from service.engine.support_cache import SupportSize
from service.engine.work import Outcome, Step, Work

Made = TypeVar("Made")


class SupportWork:
    """The part of an `Engine` that makes, reads and writes encoded supports."""

    model: ServedModel
    forecast: Forecast
    batcher: Batcher
    asked: Callable[[Sequence[Work]], None] | None = None  # told of works before they wait
    _recognizer: Runtime
    _thread: DeviceThread
    _support_bytes: int
    _support_size: SupportSize

    @property
    def supports_apart(self) -> bool:
        """Whether each support is encoded by itself, so that known features may be used again."""
        return self._recognizer.supports_apart

    def check_size(self, classes: Sequence[int]) -> None:
        """Refuse a task whose encoded supports do not fit; see `SupportSize.check`."""
        self._support_size.check(classes, self._support_bytes)

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
        """Encode the supports of one task, in slices between which queries go first.

        Args:
            frames_STHWC: RGB uint8, of the clips that are not known.
            classes: Class index of each clip.
            text_NAE: From `encode_text`, or None to score by video alone.
            progress: Told the number of clips done, from the device thread.
            work: Registrations go before rebuilds.
            tenant: Whose work it is; tenants share the device fairly.
            deadline: Instant of `time.monotonic()` after which nobody wants the result.
            known: Frame features of clips by their place, where `supports_apart`.

        Raises:
            DeadlineError: The deadline has passed; DeadlineUnmetError: it cannot be met.
            DeviceMemoryError: The device has no memory for it.
        """
        self.forecast.admit(work, len(frames_STHWC) * self.model.frames, tenant, deadline)
        registration = Registration(
            self._recognizer, frames_STHWC, classes, text_NAE, progress, known or {}
        )
        done: asyncio.Future[EncodedSupport] = asyncio.get_running_loop().create_future()
        steps = registration.steps(
            self.forecast.slice_frames, kind=work, tenant=tenant, deadline=deadline, done=done
        )
        with self._queued(steps):
            return await done

    async def encode_features(
        self, frames_STHWC: np.ndarray, progress: Progress = silent, *, tenant: str = ""
    ) -> Tensor:
        """Encode clips that are yet of no task, where `supports_apart`; returns features_STE."""
        registration = Registration(self._recognizer, frames_STHWC, (), None, progress)
        done: asyncio.Future[Tensor] = asyncio.get_running_loop().create_future()
        steps = registration.steps(
            self.forecast.slice_frames, kind="register", tenant=tenant, deadline=None, done=done
        )
        with self._queued(steps):
            return await done

    async def score_splits(
        self, support: EncodedSupport, splits: Sequence[Split], *, tenant: str = ""
    ) -> list[np.ndarray]:
        """Score held-out clips of a task by its other clips, after all else that waits.

        Args:
            support: The task; its clips are at hand, so none is encoded.
            splits: Which clips are held out.
            tenant: Whose work it is.

        Returns:
            Logits [query, class] of each split.
        """
        clips, runtime = support.clips, self._recognizer
        assert clips is not None
        if not splits:
            return []
        features_STE, text_NAE = clips.features_STE, support.text_NAE
        found: list[np.ndarray] = []

        def score(split: Split, _: int) -> Outcome | None:
            classes = [clips.classes[place] for place in split.supports]
            scores = runtime.score_features(
                features_STE[list(split.supports)],
                torch.tensor(classes, device=features_STE.device),
                features_STE[list(split.queries)],
                text_NAE,
            )
            found.append(scores.logits_QN.float().cpu().numpy())
            return Outcome(found) if len(found) == len(splits) else None

        done: asyncio.Future[list[np.ndarray]] = asyncio.get_running_loop().create_future()
        steps = [
            Step(kind="rebuild", frames=1, tenant=tenant, done=done, run=partial(score, split))
            for split in splits
        ]
        with self._queued(steps):
            return await done

    def support_bytes(self, classes: Sequence[int]) -> int:
        """Return the bytes of a task's encoded supports, by the class index of each clip."""
        return self._support_size.of(classes)

    async def write_support(self, support: EncodedSupport) -> bytes:
        """Write supports down, as `model.passes.kept_support` does."""
        return await self._on_device(lambda: to_bytes(support))

    async def read_support(self, content: bytes) -> EncodedSupport:
        """Read what `write_support` wrote onto the device.

        Raises:
            EpisodeError: These are no supports.
        """
        device = self._recognizer.device
        return await self._on_device(lambda: from_bytes(content, device))

    async def encode_text(
        self, labels: Sequence[str], stages: Sequence[StageTexts], *, tenant: str = ""
    ) -> Tensor:
        """Encode stage texts; returns text_NAE."""
        of_slice = max(
            1, 2 * self.forecast.slice_frames
        )  # a class's sentences cost about half a frame
        parts = [
            await self._on_device(
                partial(self._recognizer.encode_text, labels[start:stop], stages[start:stop]),
                frames=max(1, (stop - start) // 2),
                tenant=tenant,
            )
            for start, stop in ends(len(labels), of_slice)
        ]
        return torch.cat(parts)

    async def _on_device(
        self, run: Callable[[], Made], *, frames: int = 1, tenant: str = ""
    ) -> Made:
        """Call something in the device's thread, as work of a registration."""
        done: asyncio.Future[Made] = asyncio.get_running_loop().create_future()
        step = Step(
            kind="register",
            frames=frames,
            tenant=tenant,
            done=done,
            run=lambda _: Outcome(run()),
        )
        with self._queued([step]):
            return await done

    @contextmanager
    def _queued(self, works: Sequence[Work]) -> Iterator[None]:
        """Queue works; what is left of them at the end nobody wants."""
        if self.asked is not None:
            self.asked(works)
        try:
            self._thread.put(works)
            yield
        finally:
            for work in works:
                work.done.cancel()
            self.batcher.withdraw(works)
