"""Tasks that have arrived: their clips are decoded, before the answer or behind a 202."""

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from model.errors import KshotError
from model.media.keeping import decode_pictures, encode_pictures, motion_of
from service.background import spawn
from service.decoding.pool import DecodePool
from service.decoding.sandbox import NICENESS
from service.errors import (
    ClipFault,
    ClipsRefusedError,
    DecoderBusyError,
    NotReadyError,
    RequestError,
    TaskFailedError,
)
from service.stores.errors import (
    RevisionConflictError,
    StoreCorruptError,
    TaskExpiredError,
    TaskNotFoundError,
)
from service.stores.protocol import TaskStore
from service.stores.records import TaskRecord, owner_of
from service.tasks import uploads
from service.tasks.allowance import Credits
from service.tasks.encoding import Preparation
from service.tasks.inputs import ClipInput, decode_clips
from service.tasks.quota.keeper import Purse
from service.tasks.supports import Supports

LOOK_S = 30.0  # between two looks for tasks that nobody decodes
LEFT_S = 60.0  # a task that waited so long was left by another replica, or failed here
MOST_TRIES = 3  # of a task whose clips the machine has no time for

log = logging.getLogger("kshot.tasks")


@dataclass(frozen=True, slots=True)
class Decoded:
    """What decoding made of a task."""

    record: TaskRecord
    pictures: dict[str, tuple[bytes, ...]]  # what is stored of each clip, by id
    frames: dict[str, np.ndarray]  # what a rebuild will read of that, uint8 [T, H, W, C]


class Arrivals:
    """Decodes the clips of new tasks, and finishes those that were answered before that.

    What an earlier process left, or a replica that is gone, is taken up again. Two replicas may
    decode one task; the store takes the pictures of the first.

    Args:
        store: Has the uploads.
        pool: Decodes them.
        supports: Encodes what was decoded.
    """

    def __init__(self, *, store: TaskStore, pool: DecodePool, supports: Supports) -> None:
        self.store = store
        self.pool = pool
        self.supports = supports
        self._running: dict[str, asyncio.Task[None]] = {}
        self._tries: Counter[str] = Counter()
        self._keeper = ThreadPoolExecutor(1, "keeper", initializer=_go_last)
        self._looking: asyncio.Task[None] | None = None

    def start(self, *, after: "Arrivals | None" = None) -> None:
        """Begin to look for tasks that nobody decodes.

        Args:
            after: What looks for them until now; the tasks that it decodes it finishes.
        """
        if after is not None and after._looking is not None:
            after._looking.cancel()
        self._looking = spawn(self._look(time.time() if after is None else 0.0))

    async def close(self) -> None:
        """Decode no more; what is left is taken up after the next start."""
        running = [*self._running.values(), *([self._looking] if self._looking else [])]
        for work in running:
            work.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        self._keeper.shutdown(wait=False)

    async def decode(
        self, record: TaskRecord, inputs: Sequence[ClipInput], preparation: Preparation
    ) -> Decoded:
        """Decode the clips of an uploaded task.

        Raises:
            ClipsRefusedError: What is left is no task.
            DecoderBusyError: The machine had too little time for a clip.
        """

        def one_more() -> None:
            preparation.decoded += 1

        names = [label.label for label in record.labels]
        labels = {clip.index: names[clip.label] for clip in record.clips if clip.index is not None}
        owner = owner_of(record.task_id)
        clips, faults = await decode_clips(
            self.pool, inputs, "register", labels, one_more, tenant=owner
        )
        record = uploads.decoded(uploads.without(record, faults), clips)
        preparation.clips = preparation.decoded = len(record.clips)
        loop, done = asyncio.get_running_loop(), Decoded(record, {}, {})
        known = []
        for clip in record.clips:  # one by one: whoever leaves leaves the rest
            assert clip.index is not None
            frames_THWC = clips.pop(clip.index).frames_THWC
            kept = await loop.run_in_executor(self._keeper, _keep, frames_THWC)
            done.pictures[clip.clip_id], done.frames[clip.clip_id], motion = kept
            known.append(replace(clip, motion=motion))
        return replace(done, record=replace(record, clips=tuple(known)))

    def follow(
        self,
        record: TaskRecord,
        decoding: "asyncio.Task[Decoded]",
        preparation: Preparation,
        credits: Credits | None = None,
        purse: Purse | None = None,
    ) -> "asyncio.Task[None]":
        """Finish a task whose uploads are stored; the credits go back when that has ended."""
        task_id = record.task_id
        self.supports.preparations.setdefault(task_id, preparation)
        finishing = self._finish(record, decoding, preparation, credits, purse)
        work = self._running[task_id] = self.supports.start(task_id, finishing)

        def ended(_: "asyncio.Task[None]") -> None:
            decoding.cancel()
            if self._running.get(task_id) is work:
                del self._running[task_id]
            if credits is not None:
                credits.give_back()

        work.add_done_callback(ended)
        return work

    async def settled(self, record: TaskRecord, wait_s: float) -> TaskRecord:
        """Wait until the clips of an uploaded task are decoded, and return its record then.

        Raises:
            NotReadyError: It takes longer.
            TaskFailedError: Its clips cannot be used.
        """
        if record.state == "uploaded":
            work = self._running.get(record.task_id) or self._take_up(record)
            await asyncio.wait({work}, timeout=wait_s)
            record = await self.supports.record(record.task_id)
        if record.state == "uploaded":
            raise NotReadyError(
                f"The clips of task {record.task_id} are still being decoded; ask again.",
                retry_after_s=1,
            )
        if record.state == "failed":
            raise TaskFailedError(
                f"Task {record.task_id} failed and has no clips: {record.failure}"
            )
        return record

    async def _finish(
        self,
        record: TaskRecord,
        decoding: "asyncio.Task[Decoded]",
        preparation: Preparation,
        credits: Credits | None,
        purse: Purse | None,
    ) -> None:
        try:
            done = await self._outcome(record, decoding, purse)
            newer = replace(done.record, revision=record.revision + 1)
            await self.store.replace(
                newer, expected_revision=record.revision, pictures=done.pictures
            )
        except (RevisionConflictError, TaskNotFoundError, TaskExpiredError):
            self.supports.unprepared(record.task_id, preparation)
            return  # another was faster, or it was deleted
        except KshotError as error:
            log.warning("Task %s is not decoded yet (%s)", record.task_id, error.code)
            self.supports.unprepared(record.task_id, preparation)
            return
        self._tries.pop(record.task_id, None)
        if newer.state == "failed" or credits is None:
            self.supports.unprepared(record.task_id, preparation)  # encoded when it is asked for
            return
        credits.correct(bytes=0, decode_ms=0, frames=len(done.frames) * self.pool.frames)
        await self.supports.prepare(newer, done.frames, preparation, 0.0, credits.hand_over())

    async def _outcome(
        self, record: TaskRecord, decoding: "asyncio.Task[Decoded]", purse: Purse | None
    ) -> Decoded:
        """Return what becomes of an uploaded task: decoded, or failed.

        Raises:
            KshotError: Neither yet: a part of the service is away or busy.
        """
        error: RequestError | StoreCorruptError
        faults: tuple[ClipFault, ...] = ()
        try:
            return await decoding
        except ClipsRefusedError as refused:
            error, faults = refused, refused.clips
        except DecoderBusyError as busy:
            self._tries[record.task_id] += 1
            if purse is not None:
                purse.give_back()
            if self._tries[record.task_id] < MOST_TRIES:
                raise  # and it is taken up again, without a purse
            error = busy
        except StoreCorruptError as corrupt:
            error = corrupt
        log.warning("Task %s failed (%s)", record.task_id, error.code)
        return Decoded(uploads.failed(record, str(error), faults), {}, {})

    def _take_up(self, record: TaskRecord) -> "asyncio.Task[None]":
        """Decode an uploaded task from what is stored of it, unless that has just been done."""
        preparation = Preparation(len(record.clips))

        async def again() -> Decoded:
            stored = await self.store.pictures(record.task_id)
            now = await self.store.get(record.task_id)
            if now.revision != record.revision:  # then these may be pictures, not uploads
                raise RevisionConflictError("The clips are decoded already.", now.revision)
            return await self.decode(record, uploads.inputs_of(record, stored), preparation)

        return self.follow(record, spawn(again()), preparation)

    async def _look(self, started_at: float) -> None:
        """Take up, one by one, what was uploaded before this process or waited too long."""
        while True:
            try:
                for task_id in await self.store.uploaded():
                    with contextlib.suppress(TaskNotFoundError, TaskExpiredError):
                        record = await self.store.get(task_id)
                        left = record.created_at < max(started_at, time.time() - LEFT_S)
                        if left and record.state == "uploaded" and task_id not in self._running:
                            await asyncio.wait({self._take_up(record)})
            except KshotError as error:
                log.warning("Uploaded tasks could not be looked for (%s)", error.code)
            await asyncio.sleep(LOOK_S)


def _keep(frames_THWC: np.ndarray) -> tuple[tuple[bytes, ...], np.ndarray, float]:
    """Return what is stored of a clip, what a rebuild will read of it, and its motion.

    The first encoding then starts from the pixels that each later one starts from.
    """
    pictures = encode_pictures(frames_THWC)
    kept_THWC = decode_pictures(pictures)
    return pictures, kept_THWC, motion_of(kept_THWC)


def _go_last() -> None:
    """Let everything else in the process go before this thread."""
    with contextlib.suppress(OSError):  # only on Linux has a thread a priority of its own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
