"""The use case of remembering queries, and of learning from what people say they are.

A query becomes an example under its own id, in one revision of the task; so of two replicas that
are told what it is, the second one finds it answered.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from model.media.keeping import decode_pictures, encode_pictures, motion_of
from model.text import label_key
from service.decoding.pool import ClipRequest
from service.engine.engine import Engine
from service.errors import TaskIncompatibleError
from service.stores.errors import StoreError
from service.stores.inboxes.kept import Remembered, bounds_of
from service.stores.inboxes.policy import InboxPolicy, NoneOfThese
from service.stores.protocol import TaskStore
from service.stores.records import ClipRecord, TaskRecord, is_id
from service.tasks.allowance import Deadline
from service.tasks.changes.change import Asked, Changed, Changer, NewClips
from service.tasks.changes.edits import AddClips, Edit, check_revision
from service.tasks.classify import ClipAnswer, TaskAnswer
from service.tasks.inbox.errors import QueryAnsweredError, QueryNotFoundError
from service.tasks.inputs import ClipInput, digest

MOST_NONE = 200  # queries that are none of a task's labels, of which the score is kept

log = logging.getLogger("kshot.tasks")


class Inbox:
    """Remembers queries of tasks, and takes what they are.

    Args:
        store: Where they are kept.
        engine: Whose pictures they are.
        changer: Makes examples of them.
        keep_s: How long each is kept.
    """

    def __init__(
        self, *, store: TaskStore, engine: Engine, changer: Changer, keep_s: float
    ) -> None:
        self.store = store
        self.engine = engine
        self.changer = changer
        self.keep_s = keep_s

    async def remember(
        self,
        answer: TaskAnswer,
        inputs: Sequence[ClipInput],
        deadline: Deadline,
        *,
        whatever: bool,
    ) -> dict[int, str]:
        """Keep the clips of an answer; one that cannot be kept harms no answer.

        Args:
            answer: What they are held to be.
            inputs: As they were sent.
            deadline: Of the request.
            whatever: Whether all are kept; else those that the task's policy wants.

        Returns:
            The id of each query that is kept, by its place in the request.
        """
        policy, ids = answer.record.inbox, dict[int, str]()
        bounds = bounds_of(policy)
        sent = {clip.index: clip for clip in inputs}
        wanted = [each for each in answer.clips if whatever or _wanted(each, policy)]
        try:
            async with asyncio.timeout(max(0.0, deadline.left_s)):
                for each in wanted:
                    query, pictures = await asyncio.to_thread(
                        self._kept, answer, each, sent[each.index]
                    )
                    task_id = answer.record.task_id
                    if await self.store.inbox.add(task_id, query, pictures, bounds):
                        ids[each.index] = query.query_id
        except (StoreError, TimeoutError) as error:
            log.warning("Queries could not be remembered (%s)", type(error).__name__)
        return ids

    async def list(self, task_id: str) -> tuple[TaskRecord, list[Remembered]]:
        """Return a task, and its queries that nobody has answered, the least certain first."""
        record = await self.store.get(task_id)
        queries = await self.store.inbox.list(task_id)
        left = [query for query in queries if not record.has_answered(query.query_id)]
        return record, sorted(left, key=lambda query: (query.score, -query.at))

    async def pictures(self, task_id: str, query_id: str) -> tuple[bytes, ...]:
        """Return the pictures of a query.

        Raises:
            QueryNotFoundError: It is not there; QueryAnsweredError: it is answered.
        """
        return (await self._found(await self.store.get(task_id), query_id))[1]

    async def learn(self, asked: Asked, query_id: str, label: str) -> Changed:
        """Make a query an example of a label.

        Raises:
            QueryNotFoundError: It is not there; QueryAnsweredError: it is answered.
            RevisionStaleError: The task is not at an expected revision.
            RequestError: The label does not take it.
        """
        record = await self.store.get(asked.task_id)
        query, pictures = await self._found(record, query_id)
        frames_THWC = await asyncio.to_thread(decode_pictures, pictures)
        self._check_frames(frames_THWC)
        clips = NewClips(
            (query.clip,), pictures={query_id: pictures}, frames={query_id: frames_THWC}
        )
        add = AddClips(label, clips.records, self.changer.limits)
        changed = await self.changer.add_kept(asked, Once(query_id, add), clips)
        await self._drop(asked.task_id, query_id)
        return changed

    async def count_none(self, asked: Asked, query_id: str) -> Changed:
        """Keep that a query is none of the labels, for the threshold; its pictures go."""
        query, _ = await self._found(await self.store.get(asked.task_id), query_id)
        none = NoneOfThese(query_id=query_id, nearest=query.nearest, model=query.model)
        changed = await self.changer.edit(asked, Once(query_id, CountNone(none)))
        await self._drop(asked.task_id, query_id)
        return changed

    async def dismiss(self, asked: Asked, query_id: str) -> Changed:
        """Drop a query; the task stays as it is."""
        record = await self.store.get(asked.task_id)
        check_unanswered(record, query_id)
        check_revision(record, asked.expected)
        if not (is_id(query_id) and await self.store.inbox.remove(asked.task_id, query_id)):
            raise _no_query(query_id)
        return Changed(record)

    async def answered(self, task_id: str, query_id: str, label: str | None) -> Changed | None:
        """Return the task if a query of it has been answered so; None if it has not."""
        record = await self.store.get(task_id)
        if label is None:
            none = any(none.query_id == query_id for none in record.none_of_these)
            return Changed(record) if none else None
        said = [
            record.labels[clip.label].label for clip in record.clips if clip.clip_id == query_id
        ]
        same = [label_key(known) == label_key(label) for known in said]
        return Changed(record, (query_id,)) if any(same) else None

    async def _found(
        self, record: TaskRecord, query_id: str
    ) -> tuple[Remembered, tuple[bytes, ...]]:
        check_unanswered(record, query_id)
        found = None
        if is_id(query_id):
            found = await self.store.inbox.get(record.task_id, query_id)
        if found is None:
            raise _no_query(query_id)
        return found

    async def _drop(self, task_id: str, query_id: str) -> None:
        """Drop a query that is answered; where that fails, it is dropped in its time."""
        try:
            await self.store.inbox.remove(task_id, query_id)
        except StoreError as error:
            log.warning("An answered query could not be dropped (%s)", error.code)

    def _kept(
        self, answer: TaskAnswer, each: ClipAnswer, sent: ClipInput
    ) -> tuple[Remembered, tuple[bytes, ...]]:
        """Return what is kept of a clip; this takes milliseconds."""
        assert isinstance(sent.source, ClipRequest)  # else it would have no answer
        pictures, now = encode_pictures(each.clip.frames_THWC), time.time()
        names = [label.label for label in answer.record.labels]
        scores = [float(score) for score in each.probabilities_N]
        ranking = sorted(zip(names, scores, strict=True), key=lambda pair: -pair[1])
        query_id = f"q{secrets.token_hex(12)}"
        clip = ClipRecord(
            clip_id=query_id,
            label=names.index(ranking[0][0]),
            frames_s=tuple(max(0.0, float(time_s)) for time_s in each.clip.times_s),
            duration_s=float(each.clip.duration_s),
            codec=each.clip.codec,
            distinct=each.clip.distinct,
            sha256=digest(sent.source),
            warnings=each.clip.warnings,
            name=each.name,
            motion=motion_of(decode_pictures(pictures)),
        )
        query = Remembered(
            query_id=query_id,
            at=now,
            until=now + self.keep_s,
            revision=answer.record.revision,
            model=self.engine.model.fingerprint,
            clip=clip,
            ranking=tuple(ranking),
            nearest=float(each.scores.nearest),
            threshold=float(answer.threshold.value),
            unknown=bool(each.unknown),
            size=sum(map(len, pictures)),
        )
        return query, pictures

    def _check_frames(self, frames_THWC: np.ndarray) -> None:
        """Refuse pictures that another checkpoint took.

        Raises:
            TaskIncompatibleError: They are.
        """
        model = self.engine.model
        if frames_THWC.shape != (model.frames, model.size, model.size, 3):
            raise TaskIncompatibleError(
                "Another checkpoint answered this query, and its pictures do not fit the one that "
                "is served now; dismiss it, or send the clip itself."
            )


@dataclass(frozen=True, slots=True)
class Once:
    """An edit that answers a query, which can be done once."""

    query_id: str
    edit: Edit

    def __call__(self, record: TaskRecord) -> TaskRecord:
        """Return the record that follows.

        Raises:
            QueryAnsweredError: It is answered.
        """
        check_unanswered(record, self.query_id)
        return self.edit(record)


@dataclass(frozen=True, slots=True)
class CountNone:
    """One more query that is none of the labels."""

    none: NoneOfThese

    def __call__(self, record: TaskRecord) -> TaskRecord:
        """Return the record that follows."""
        known = (*record.none_of_these, self.none)
        return replace(record, none_of_these=known[-MOST_NONE:])


def check_unanswered(record: TaskRecord, query_id: str) -> None:
    """Refuse to answer a query twice.

    Raises:
        QueryAnsweredError: It is an example of the task, or counted as none of its labels.
    """
    if record.has_answered(query_id):
        raise QueryAnsweredError(
            f"Query {query_id[:64]!r} has been answered already: it is a clip of the task, or "
            "counted as none of its labels; remove that clip if it was wrong."
        )


def _wanted(answer: ClipAnswer, policy: InboxPolicy | None) -> bool:
    if policy is None:
        return False
    return bool(answer.unknown) or max(answer.probabilities_N) < policy.below


def _no_query(query_id: str) -> QueryNotFoundError:
    return QueryNotFoundError(
        f"The task remembers no query {query_id[:64]!r}: it was dismissed, newer ones took its "
        "room, or its time is over; see its inbox."
    )
