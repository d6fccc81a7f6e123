"""The use case of changing a task: each change is a revision, durable when it is acknowledged.

New clips are decoded, and encoded where that needs no other clip, before the task is touched. Then
the record that stands is read, edited and put back by comparing revisions, again and again where
somebody else was faster. Queries that run keep the revision on which they began.
"""

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from weakref import WeakValueDictionary

import numpy as np
from torch import Tensor

from model.episode import EncodedSupport
from model.text import StageTexts
from service.background import spawn
from service.limits import Limits
from service.stores.errors import RevisionConflictError
from service.stores.protocol import Pictures, TaskStore
from service.stores.records import ClipRecord, LabelRecord, RefusedClip, TaskRecord, new_id
from service.tasks import uploads
from service.tasks.allowance import Allowance
from service.tasks.arrivals import Arrivals
from service.tasks.changes import edits
from service.tasks.changes.edits import Edit, Revisions, check_revision
from service.tasks.encoding import Preparation
from service.tasks.inputs import NewLabel, NewTask
from service.tasks.quota.keeper import asked_of, keeping
from service.tasks.supports import Supports
from service.tasks.texts import TaskTexts

TOGETHER = (
    "In this method a clip is encoded with the other clips of its task, or with the text of its "
    "label, so all were encoded again."
)
NOT_AT_HAND = (
    "The features of some older clips were not at hand, after a restart or because another replica "
    "added them, so these were encoded again."
)


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks for a change, and on what it may be made.

    Args:
        task_id: The task.
        expected: Revisions that the change is meant for; None is any.
        wait_s: How long to wait for the task to be ready again.
        allowance: Of the request; its deadline bounds all until the change is made.
    """

    task_id: str
    expected: Revisions | None
    wait_s: float
    allowance: Allowance


@dataclass(frozen=True, slots=True)
class NewClips:
    """Clips that a change brings, decoded."""

    records: tuple[ClipRecord, ...] = ()
    refused: tuple[RefusedClip, ...] = ()
    pictures: Pictures = field(default_factory=dict)
    frames: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Changed:
    """What a change came to.

    Args:
        record: The task as it stands now.
        added: Ids of new clips.
        refused: Clips that were left out.
        encoded: How many clips were encoded for it.
        why: Why more than the new ones; None where it was these alone.
    """

    record: TaskRecord
    added: tuple[str, ...] = ()
    refused: tuple[RefusedClip, ...] = ()
    encoded: int = 0
    why: str | None = None


class Changer:
    """Changes tasks.

    Args:
        store: Where they are safe.
        arrivals: Decodes new clips.
        supports: Encodes them.
        texts: Words of new labels.
        limits: Of a task.
    """

    def __init__(
        self,
        *,
        store: TaskStore,
        arrivals: Arrivals,
        supports: Supports,
        texts: TaskTexts,
        limits: Limits,
    ) -> None:
        self.store = store
        self.arrivals = arrivals
        self.supports = supports
        self.texts = texts
        self.limits = limits
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def edit(self, asked: Asked, edit: Edit) -> Changed:
        """Make a change that brings no clip.

        Raises:
            RevisionStaleError: The task is not at an expected revision.
            RequestError: The edit cannot be made.
        """
        async with asked.allowance.deadline.bounding("changing the task"):
            await self.supports.recall(await self._standing(asked))
            record = await self._commit(asked, edit, {})
        return await self._ready(asked, record, NewClips(), None)

    async def rename_label(self, asked: Asked, label: str, name: str) -> Changed:
        """Call a label otherwise; sentences that a client wrote stay."""
        (words,) = await self.texts.first([NewLabel(name, None, ())], asked.allowance.owner)
        return await self.edit(asked, edits.WriteLabel(label, words, keeps_client_stages=True))

    async def describe(self, asked: Asked, label: str, stages: StageTexts | None) -> Changed:
        """Give a label other sentences; None goes back to those that it had by itself."""
        record = await self._standing(asked)
        known = record.labels[edits.place_of_label(record, label)].label
        (words,) = await self.texts.first([NewLabel(known, stages, ())], asked.allowance.owner)
        return await self.edit(asked, edits.WriteLabel(label, words))

    async def put_label(self, asked: Asked, new: NewLabel, *, allow_partial: bool) -> Changed:
        """Add a label with its clips, or give one that is there these clips for its own."""
        (words,) = await self.texts.first([new], asked.allowance.owner)
        return await self._grow(asked, new, words, allow_partial=allow_partial)

    async def add_clips(self, asked: Asked, new: NewLabel, *, allow_partial: bool) -> Changed:
        """Add clips to a label.

        Raises:
            LabelNotFoundError: There is no such label.
        """
        return await self._grow(asked, new, None, allow_partial=allow_partial)

    async def added(self, task_id: str, seed: str) -> Changed | None:
        """Return what a request with this seed added, as the task stands; None if nothing."""
        record = await self.store.get(task_id)
        ids = edits.clip_ids(seed, self.limits.shots[1])
        clips = {clip.clip_id for clip in record.clips}
        found = tuple(clip_id for clip_id in ids if clip_id in clips)
        return Changed(record, found) if found else None

    async def _grow(
        self, asked: Asked, new: NewLabel, words: LabelRecord | None, *, allow_partial: bool
    ) -> Changed:
        deadline = asked.allowance.deadline
        given = new.stages is not None
        task = NewTask(name=None, ttl_s=None, allow_partial=allow_partial, labels=(new,))
        async with deadline.bounding("decoding"):
            sent = await asyncio.to_thread(_numbered, task, asked.allowance.seed)
            trial = edits.AddClips(new.label, sent.clips, self.limits, words, given)
            record = await self._standing(asked)
            self.supports.check_size(trial(record))  # before all work
            await self.supports.recall(record)
            if (purse := asked.allowance.purse) is not None:
                pool = self.arrivals.pool
                await purse.charge_clips(pool, new.clips, "register", grows=True)
            clips = await self._decoded(sent, new)
        frames = len(clips.frames) * self.arrivals.pool.frames
        asked.allowance.credits.correct(decode_ms=0, frames=frames)
        edit = edits.AddClips(new.label, clips.records, self.limits, words, given)
        return await self._add(asked, edit, clips)

    async def add_kept(self, asked: Asked, edit: Edit, clips: NewClips) -> Changed:
        """Add clips that are decoded already.

        Raises:
            RevisionStaleError: The task is not at an expected revision.
            RequestError: The edit cannot be made.
        """
        async with asked.allowance.deadline.bounding("changing the task"):
            record = await self._standing(asked)
            self.supports.check_size(edit(record))
            await self.supports.recall(record)
            if (purse := asked.allowance.purse) is not None:
                frames = self.arrivals.pool.frames * len(clips.records)
                await purse.charge(asked_of(0.0, frames, grows=True))
        return await self._add(asked, edit, clips)

    async def _add(self, asked: Asked, edit: Edit, clips: NewClips) -> Changed:
        deadline = asked.allowance.deadline
        features: asyncio.Task[dict[str, Tensor]] | None = None
        if self.supports.engine.supports_apart:
            tenant = asked.allowance.tenant
            features = spawn(self.supports.encoding.features(clips.frames, tenant=tenant))
        try:
            async with deadline.bounding("encoding"):
                if features is not None:
                    await asyncio.wait({features}, timeout=asked.wait_s)
                    if features.done():
                        features.result()  # what the model fails on is not stored
                record = await self._commit(asked, edit, clips.pictures)
        except BaseException:
            if features is not None:
                features.cancel()
            raise
        return await self._ready(asked, record, clips, features)

    async def _decoded(self, sent: TaskRecord, new: NewLabel) -> NewClips:
        preparation = Preparation(len(sent.clips))
        done = await self.arrivals.decode(sent, new.clips, preparation)
        records = tuple(replace(clip, index=None) for clip in done.record.clips)
        return NewClips(records, done.record.refused, done.pictures, done.frames)

    async def _standing(self, asked: Asked) -> TaskRecord:
        """Return the task as it is, decoded, at a revision that is expected.

        Raises:
            RevisionStaleError: It is at another one.
            NotReadyError: It is still being decoded; TaskFailedError: it never will be.
        """
        record = await self.store.get(asked.task_id)
        if record.state != "decoded":
            record = await self.arrivals.settled(record, asked.wait_s)
        check_revision(record, asked.expected)
        return record

    async def _commit(self, asked: Asked, edit: Edit, pictures: Pictures) -> TaskRecord:
        """Edit the task that stands, and put it back; take turns with others who want that."""
        turn = self._turns.setdefault(asked.task_id, asyncio.Lock())
        async with turn:
            while True:
                old = await self._standing(asked)
                new = replace(edit(old), revision=old.revision + 1)
                self.supports.check_size(new)
                await self.texts.check_clipless(new)
                try:
                    with keeping(asked.allowance.purse) as usual:
                        await self.store.replace(
                            new, expected_revision=old.revision, pictures=pictures, usual=usual
                        )
                except RevisionConflictError:
                    continue  # another replica was faster
                return new

    async def _ready(
        self,
        asked: Asked,
        record: TaskRecord,
        clips: NewClips,
        features: "asyncio.Task[dict[str, Tensor]] | None",
    ) -> Changed:
        """Encode what is new, and say what that was."""
        supports, tenant = self.supports, asked.allowance.tenant
        preparation = Preparation(max(1, len(clips.records)))
        preparation.decoded = preparation.clips
        again = 0

        def missing(count: int) -> None:
            nonlocal again
            again = count

        async def build() -> EncodedSupport:
            new = {} if features is None else await features
            return await supports.encoding.again(record, tenant, new, missing)

        credits = asked.allowance.credits.hand_over()
        await supports.changed(record, build, preparation, asked.wait_s, credits)
        new = 0 if features is None else len(clips.records)
        why = None
        if again:
            why = NOT_AT_HAND if supports.engine.supports_apart else TOGETHER
        added = tuple(clip.clip_id for clip in clips.records)
        return Changed(record, added, clips.refused, new + again, why)


def _numbered(task: NewTask, seed: str | None) -> TaskRecord:
    """Make a record of the new clips alone, under ids that no clip of the task ever had."""
    sent = uploads.uploaded(task, new_id(""))
    label = LabelRecord(label=task.labels[0].label, stages=(), text_source="template")
    ids = edits.clip_ids(seed or secrets.token_hex(16), len(sent.clips))
    clips = tuple(
        replace(clip, clip_id=clip_id) for clip, clip_id in zip(sent.clips, ids, strict=True)
    )
    return replace(sent, labels=(label,), clips=clips)
