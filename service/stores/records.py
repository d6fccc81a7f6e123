"""What a store keeps of a task: frozen values, their strict JSON form, and their order in lists.

Features, prototypes and text features are derived and are not here: they rebuild from the
pictures, which are stored beside the record, and from the stage texts in it.
"""

import re
import secrets
import struct
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from service.stores.errors import (
    CursorError,
    RevisionConflictError,
    StoreCorruptError,
    TaskExpiredError,
    TaskNotFoundError,
)
from service.stores.inboxes.policy import InboxPolicy, NoneOfThese, Threshold, raised

SCHEMA_VERSION: Literal[1] = 1
TOMBSTONE_S = 24 * 3600.0  # how long an expired task is told from an unknown one
ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"  # safe as a file name and in a Redis key

Identifier = Annotated[str, Field(pattern=ID_PATTERN)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]

_STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class ClipRecord:
    """One support clip, as its sampled frames were taken from the upload."""

    clip_id: Identifier
    label: Count  # index into the task's labels
    frames_s: tuple[Seconds, ...]  # presentation time of each sampled frame
    duration_s: Seconds
    codec: str  # "pictures" when the client sent pictures
    distinct: Count  # how many different source frames were sampled
    sha256: str  # of the upload, to find duplicates; the upload itself is gone
    warnings: tuple[str, ...] = ()  # sentences: what was wrong with the upload
    name: str | None = None  # of the file, as it was sent
    index: Count | None = None  # in the order of the request; None in records before 2026-11-28
    motion: float | None = None  # mean difference of sampled pictures in a row, of 255


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class RefusedClip:
    """One support clip that cannot be used."""

    index: Count  # in the order of the request
    name: str | None
    label: str | None
    code: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class LabelRecord:
    """One label and the sentences that describe it, one a stage."""

    label: str
    stages: tuple[str, ...]
    text_source: Literal["client", "llm", "template"]


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class TaskRecord:
    """One registered task, without its pictures."""

    task_id: Identifier
    name: str | None = None
    created_at: Seconds  # unix time
    expires_at: Seconds | None = None  # unix time; None lives until it is deleted
    revision: Count = 1
    labels: tuple[LabelRecord, ...]
    clips: tuple[ClipRecord, ...]
    # what is kept of the clips: pictures, or, until they are decoded, the uploads, or nothing
    state: Literal["decoded", "uploaded", "failed"] = "decoded"
    allow_partial: bool = False  # of an uploaded task: whether a clip may still be left out
    refused: tuple[RefusedClip, ...] = ()  # left out, or what made the task fail
    failure: str | None = None  # of a failed task: one sentence
    unknown_below: float | None = None  # cosine below which a query is none; None: the checkpoint's
    inbox: InboxPolicy | None = None
    none_of_these: tuple[NoneOfThese, ...] = ()
    schema_version: Literal[1] = SCHEMA_VERSION

    def expired(self, now: float) -> bool:
        """Tell whether the task's time has run out at unix time `now`."""
        return self.expires_at is not None and self.expires_at <= now

    def has_answered(self, query_id: str) -> bool:
        """Tell whether a remembered query is a clip of the task, or counted as none of it."""
        return any(clip.clip_id == query_id for clip in self.clips) or any(
            none.query_id == query_id for none in self.none_of_these
        )

    def threshold(self, usual: float, model: str) -> Threshold:
        """Return the cosine below which a query is none of the labels.

        Args:
            usual: The checkpoint's.
            model: Which is served.
        """
        if self.unknown_below is not None:
            return Threshold(self.unknown_below, "task")
        if not self.none_of_these:
            return Threshold(usual, "checkpoint")
        value = raised(usual, self.none_of_these, model)
        return Threshold(value, "none_of_these" if value > usual else "checkpoint")


# A task's id begins with its tenant, so that every key under which something of it is kept has the
# tenant in it; tasks of the default tenant, and all before 2026-11-29, have the rest alone.
OWNER = r"[a-z0-9][a-z0-9-]{0,30}"
_OWNED = re.compile(f"({OWNER})_[0-9a-f]{{32}}")
# A place with `-` in it for `:`, so that a URL carries it; the OpenAPI document has the pattern.
CURSOR = r"([0-9a-f]{16})-([A-Za-z0-9][A-Za-z0-9_-]{0,63})"
_ADAPTER = TypeAdapter(TaskRecord)


def is_id(text: str) -> bool:
    """Tell whether `text` can be the id of a task or a clip at all."""
    return re.fullmatch(ID_PATTERN, text) is not None


def new_id(owner: str) -> str:
    """Make the id of a new task of a tenant; the default tenant is the empty string."""
    drawn = secrets.token_hex(16)
    return f"{owner}_{drawn}" if owner else drawn


def owner_of(task_id: str) -> str:
    """Return the tenant of a task, by its id alone."""
    found = _OWNED.fullmatch(task_id)
    return found[1] if found else ""


def to_json(record: TaskRecord) -> bytes:
    """Return the record as JSON that `from_json` reads back as an equal value."""
    return _ADAPTER.dump_json(record)


def from_json(document: bytes) -> TaskRecord:
    """Read a record.

    Raises:
        StoreCorruptError: not JSON, a missing, wrong or unknown field, another schema version.
    """
    try:
        return _ADAPTER.validate_json(document)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in fault["loc"]) or "the document"
        raise StoreCorruptError(
            f"A stored task does not fit schema {SCHEMA_VERSION} at {field} ({fault['type']}); "
            "restore it from a backup or register the task again."
        ) from error


def place_of(record: TaskRecord) -> str:
    """Return a string that sorts, among the tasks of a tenant, as (created_at, task_id) does.

    The bits of a non-negative float, read as a big-endian number, sort as the float does.
    """
    moment = struct.pack(">d", record.created_at + 0.0)  # + 0.0 turns -0.0 into 0.0
    return f"{_begin(owner_of(record.task_id))}{moment.hex()}:{record.task_id}"


def places_of(owner: str) -> tuple[str, str]:
    """Return two strings between which all places of a tenant sort, and no others."""
    begin = _begin(owner)
    return (begin, f"{begin[:-1]}0") if owner else ("", "g")  # `0` is next to `/`


def _begin(owner: str) -> str:
    return f"t/{owner}/" if owner else ""  # `t` sorts behind all digits of a moment


def task_at(place: str) -> str:
    """Return the id of the task at a place."""
    return place.partition(":")[2]


def to_cursor(place: str) -> str:
    """Return the form of a place that is fit for a URL."""
    return place.rpartition("/")[2].replace(":", "-", 1)


def from_cursor(cursor: str, owner: str = "") -> str:
    """Return the place among a tenant's tasks that a cursor stands for.

    Raises:
        CursorError: no store gave this cursor out.
    """
    found = re.fullmatch(CURSOR, cursor)
    if found is None:
        raise CursorError(
            f"The cursor {cursor[:100]!r} is unknown; use next_cursor of the page before."
        )
    return _begin(owner) + ":".join(found.groups())


def check_pictures(record: TaskRecord, clip_ids: Iterable[str]) -> None:
    """Assert that a new task comes with pictures for exactly its clips.

    Raises:
        ValueError: a clip id twice, a clip without pictures, or pictures without a clip.
    """
    wanted = sorted(clip.clip_id for clip in record.clips)
    if sorted(clip_ids) != wanted or len(set(wanted)) != len(wanted):
        raise ValueError(f"Task {record.task_id} needs pictures for exactly the clips {wanted}.")


@dataclass(frozen=True, slots=True)
class PictureChanges:
    """What a new revision does to the pictures of a task."""

    removed: frozenset[str]  # clips whose pictures go
    whole: bool = False  # of an uploaded task that has been decoded: all of them go first


def check_successor(
    old: TaskRecord, new: TaskRecord, expected_revision: int, given: Collection[str] = ()
) -> PictureChanges:
    """Assert that `new` may take the place of the stored record `old`.

    A clip that stays keeps all but its label. All clips of an uploaded task change once, when they
    have been decoded.

    Args:
        old: The stored record.
        new: Its successor.
        expected_revision: Of the stored record.
        given: Ids of the clips that come with pictures.

    Raises:
        RevisionConflictError: the stored revision is not the expected one.
        ValueError: the revision does not grow, something changed that a revision cannot change, or
            the pictures are not those of the clips that are new.
    """
    if old.revision != expected_revision:
        raise revision_conflict(old.task_id, old.revision, expected_revision)
    if new.revision <= expected_revision:
        raise ValueError(f"Revision {new.revision} does not follow {expected_revision}; count up.")
    if new.created_at != old.created_at:
        raise ValueError(f"A revision of task {old.task_id} keeps its creation time.")
    before = {clip.clip_id: clip for clip in old.clips}
    if old.state == "uploaded" != new.state:
        check_pictures(new, given)
        return PictureChanges(frozenset(before), whole=True)
    stay = [clip for clip in new.clips if clip.clip_id in before]
    changed = [clip for clip in stay if replace(before[clip.clip_id], label=clip.label) != clip]
    if changed or old.state != new.state:
        raise ValueError(f"A revision of task {old.task_id} keeps its state and what clips are.")
    ids = {clip.clip_id for clip in new.clips}
    if len(ids) != len(new.clips) or ids - before.keys() != {*given}:
        raise ValueError(f"A revision of task {old.task_id} needs pictures for its new clips.")
    return PictureChanges(frozenset(before.keys() - ids))


def revision_conflict(task_id: str, stored: int, expected: int) -> RevisionConflictError:
    """Return the error of a replace that came too late."""
    return RevisionConflictError(
        f"Task {task_id} is at revision {stored}, not {expected}; read it again and repeat.",
        stored,
    )


def already_taken(task_id: str) -> RevisionConflictError:
    """Return the error of a create under an id that is, or lately was, in use."""
    return RevisionConflictError(f"Task {task_id} exists already; choose another id.")


def missing_pictures(task_id: str, clip_id: str) -> StoreCorruptError:
    """Return the error for a task whose record is there and whose pictures are not."""
    return StoreCorruptError(
        f"The pictures of clip {clip_id} of task {task_id} are missing; "
        "delete the task and register it again."
    )


def absent(
    task_id: str, expired_at: float | None, now: float
) -> TaskExpiredError | TaskNotFoundError:
    """Return the error for a task that is not there, by the time at which it expired, if ever."""
    if expired_at is not None and now < expired_at + TOMBSTONE_S:
        return TaskExpiredError(f"Task {task_id} has expired; register it again.")
    return TaskNotFoundError(
        f"There is no task {task_id[:100]!r}; check the id, or register the task again."
    )
