"""Encoded supports of one task: from new frames, from the store, or from its pictures again."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from model.episode import EncodedSupport
from model.media.keeping import decode_pictures
from service.engine.engine import Engine
from service.engine.registration import Progress, silent
from service.errors import DeadlineUnmetError, TaskIncompatibleError
from service.stores.errors import RevisionConflictError
from service.stores.protocol import TaskStore
from service.stores.records import TaskRecord, owner_of
from service.tasks.allowance import Deadline
from service.tasks.kept_supports import KeptSupports
from service.tasks.texts import TaskTexts

Frames = Mapping[str, np.ndarray]  # clip id -> uint8 [T, H, W, C]


@dataclass(slots=True)
class Preparation:
    """A task whose clips are being decoded and encoded for the first time."""

    clips: int
    decoded: int = 0
    encoded: int = 0
    failed: bool = False
    begun: float = field(default_factory=time.monotonic)

    @property
    def progress(self) -> float:
        """Share of the work that is done; decoding and encoding count alike."""
        return (self.decoded + self.encoded) / max(1, 2 * self.clips)


@dataclass(slots=True)
class Rebuild:
    """Supports that are being encoded again, and how long that will take.

    Args:
        clips: Of the task.
        expected_s: Of all of it, before the first clip was done.
    """

    clips: int
    expected_s: float
    begun: float = field(default_factory=time.monotonic)
    _first: tuple[float, int] | None = None  # when the first clips were done, and how many
    _last: tuple[float, int] = (0.0, 0)

    def progress(self, done: int) -> None:
        """Note how many clips are done; the device's thread calls it."""
        self._last = time.monotonic(), done
        self._first = self._first or self._last

    @property
    def left_s(self) -> float:
        """Seconds until it is done: at the pace that it has, or as expected until it has one."""
        now, first, (at, done) = time.monotonic(), self._first, self._last
        if first is None or done == first[1]:
            return max(0.0, self.begun + self.expected_s - now)
        of_clip = (at - first[0]) / (done - first[1])
        return max(0.0, at + of_clip * (self.clips - done) - now)


class Encoding:
    """Makes the encoded supports of tasks, and keeps them in the store.

    Args:
        store: Has the pictures.
        engine: Encodes them.
        texts: The tasks' words.
        kept: Supports that were encoded before.
        newest: Tells the supports of a task's newest revision that is at hand.
    """

    def __init__(
        self,
        *,
        store: TaskStore,
        engine: Engine,
        texts: TaskTexts,
        kept: KeptSupports,
        newest: Callable[[str], EncodedSupport | None],
    ) -> None:
        self.store = store
        self.engine = engine
        self.texts = texts
        self.kept = kept
        self.newest = newest
        self._rebuilds: dict[str, Rebuild] = {}
        self._reading_s = 0.0  # of the pictures of a clip, lately
        self.idle = asyncio.Event()  # set while no task is being encoded again
        self.idle.set()

    async def first(
        self, record: TaskRecord, frames: Frames, progress: Progress, tenant: str
    ) -> EncodedSupport:
        """Encode the frames of a new task."""
        support = await self._encode(record, frames, progress, "register", tenant)
        self.kept.keep(record, support)
        return support

    async def features(
        self, frames: Frames, progress: Progress = silent, tenant: str = ""
    ) -> dict[str, Tensor]:
        """Encode clips before they are stored, where supports are encoded apart."""
        self._check_frames("The task", frames)
        frames_STHWC = await asyncio.to_thread(np.stack, [*frames.values()])
        features_STE = await self.engine.encode_features(frames_STHWC, progress, tenant=tenant)
        return dict(zip(frames, features_STE, strict=True))

    async def again(
        self,
        record: TaskRecord,
        tenant: str = "",
        new: Mapping[str, Tensor] | None = None,
        missing: Progress = silent,
    ) -> EncodedSupport:
        """Take what is kept, or was encoded for an earlier revision; encode the stored rest.

        Args:
            record: The task.
            tenant: Whose work it is.
            new: Frame features of its clips that this revision brought; None of one whose
                supports the store may have kept.
            missing: Told how many clips are encoded, before that begins.

        Raises:
            RevisionConflictError: The task has changed, and pictures of this revision are gone.
        """
        if new is None and (support := await self.kept.read(record)) is not None:
            return support
        older = self.newest(record.task_id)
        if older is None or (support := await self._with_new_text(record, older)) is None:
            known = self._known(older) | dict(new or {})
            missing(sum(clip.clip_id not in known for clip in record.clips))
            support = await self._rebuilt(record, tenant, known)
        self.kept.keep(record, support)
        return support

    def _known(self, older: EncodedSupport | None) -> dict[str, Tensor]:
        """Return the features of clips by name, as far as they may be used again."""
        if older is None or older.clips is None or not self.engine.supports_apart:
            return {}
        return dict(zip(older.clips.names, older.clips.features_STE, strict=False))

    async def _with_new_text(
        self, record: TaskRecord, older: EncodedSupport
    ) -> EncodedSupport | None:
        """Return the supports of a revision that has the clips of an older one, if they differ."""
        clips = older.clips
        names = tuple(clip.clip_id for clip in record.clips)
        classes = tuple(clip.label for clip in record.clips)
        if clips is None or not names or (clips.names, clips.classes) != (names, classes):
            return None
        text_NAE = await self.texts.encode(record.labels, owner_of(record.task_id))
        if text_NAE is not None:
            text_NAE = text_NAE.to(older.classes.prototype_NTE.device)
        if not self.engine.model.needs_text:
            return older.with_text(text_NAE)
        before = older.text_NAE
        if text_NAE is None or before is None:
            return older if text_NAE is before else None
        return older if torch.equal(before, text_NAE) else None

    async def _rebuilt(
        self, record: TaskRecord, tenant: str, known: Mapping[str, Tensor]
    ) -> EncodedSupport:
        """Encode the stored pictures of all clips whose features are not known."""
        missing = [clip.clip_id for clip in record.clips if clip.clip_id not in known]
        clips = len(missing)
        expected_s = self.engine.forecast.rebuilt_s(clips, tenant) + clips * self._reading_s
        rebuild = self._rebuilds[record.task_id] = Rebuild(clips, expected_s)
        self.idle.clear()
        try:
            frames = await self._frames(record, missing) if missing else {}
            return await self._encode(record, frames, rebuild.progress, "rebuild", tenant, known)
        finally:
            if self._rebuilds.get(record.task_id) is rebuild:
                del self._rebuilds[record.task_id]
            if not self._rebuilds:
                self.idle.set()

    def check(self, record: TaskRecord, deadline: Deadline) -> None:
        """Refuse to wait for a task whose supports will not be there in time.

        Raises:
            DeadlineUnmetError: They are being encoded, and that will take longer.
        """
        rebuild = self._rebuilds.get(record.task_id)
        if rebuild is None or (needed_s := rebuild.left_s) <= deadline.left_s:
            return
        raise DeadlineUnmetError(
            f"The {rebuild.clips} support clips of task {record.task_id} are being encoded again, "
            f"which takes {needed_s:.1f} s more, and {deadline.left_s:.1f} s are left to the "
            "deadline; it goes on meanwhile, so ask again then, or allow more time.",
            retry_after_s=needed_s,
        )

    async def _frames(self, record: TaskRecord, clip_ids: Sequence[str]) -> Frames:
        begun = time.monotonic()
        pictures = await self.store.pictures(record.task_id, clip_ids)
        if len(pictures) < len(clip_ids):
            raise RevisionConflictError(
                f"Task {record.task_id} is no longer at revision {record.revision}; read it again."
            )
        frames = await asyncio.to_thread(
            lambda: {clip_id: decode_pictures(stored) for clip_id, stored in pictures.items()}
        )
        self._reading_s = (time.monotonic() - begun) / max(1, len(frames))
        return frames

    async def _encode(
        self,
        record: TaskRecord,
        frames: Frames,
        progress: Progress,
        work: Literal["register", "rebuild"],
        tenant: str,
        known: Mapping[str, Tensor] | None = None,
    ) -> EncodedSupport:
        known, model = known or {}, self.engine.model
        self._check_frames(f"Task {record.task_id}", frames)
        names = [clip.clip_id for clip in record.clips]
        in_order = [frames[name] for name in names if name not in known]
        if in_order:
            frames_STHWC = await asyncio.to_thread(np.stack, in_order)  # 64 clips take 0.1 s
        else:
            frames_STHWC = np.empty((0, model.frames, model.size, model.size, 3), np.uint8)
        text_NAE = await self.texts.encode(record.labels, owner_of(record.task_id))
        if not names and (text_NAE is None or not model.text_alone):
            raise TaskIncompatibleError(
                f"Task {record.task_id} has labels without clips, which this checkpoint cannot "
                "tell by text; serve the checkpoint that it was registered with."
            )
        support = await self.engine.encode_support(
            frames_STHWC,
            [clip.label for clip in record.clips],
            text_NAE,
            progress,
            work=work,
            tenant=tenant,
            known={place: known[name] for place, name in enumerate(names) if name in known},
        )
        return support.named(names)

    def _check_frames(self, of: str, frames: Frames) -> None:
        """Refuse frames of another checkpoint.

        Raises:
            TaskIncompatibleError: There are some.
        """
        model = self.engine.model
        want = (model.frames, model.size, model.size, 3)
        for clip in frames.values():
            if clip.shape != want:
                raise TaskIncompatibleError(
                    f"{of} keeps {len(clip)} frames of {clip.shape[1]} pixels and "
                    f"this checkpoint takes {model.frames} of {model.size}; its pictures are safe: "
                    "export it and import it here, or serve a checkpoint that takes its frames."
                )
