"""What a change makes of a task: from the record that stands, the record that follows.

An edit is asked again where somebody else was faster, so it depends on the record that it is given
and on what the client sent, and on nothing else.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from model.text import label_key
from service.errors import LabelDuplicateError, TooManyClipsError, TooManyLabelsError
from service.limits import Limits
from service.stores.errors import RevisionConflictError
from service.stores.records import ClipRecord, LabelRecord, TaskRecord
from service.tasks.changes.errors import (
    ClipNotFoundError,
    LabelNotFoundError,
    LastClipError,
    LastLabelsError,
    RevisionStaleError,
)

Edit = Callable[[TaskRecord], TaskRecord]
Revisions = frozenset[int]  # for which a change is meant


def clip_ids(seed: str, count: int) -> list[str]:
    """Return ids for the clips of one request, by what is drawn for that request."""
    drawn = [hashlib.sha256(f"{seed}/{place}".encode()).hexdigest() for place in range(count)]
    return [f"c{digest[:12]}" for digest in drawn]


def check_revision(record: TaskRecord, expected: Revisions | None) -> None:
    """Refuse a change that is meant for another revision than that of the task.

    Raises:
        RevisionStaleError: It is.
    """
    if expected is not None and record.revision not in expected:
        raise stale(record.revision, expected)


def stale(stored: int, expected: Revisions | None) -> RevisionStaleError:
    """Return the refusal of a change that is meant for another revision."""
    meant = " or ".join(map(str, sorted(expected or ()))) or "none that a task can have"
    return RevisionStaleError(
        f"The task is at revision {stored} and the change was meant for {meant}; read the task "
        "again, and repeat the change if it is still wanted.",
        stored,
    )


def place_of_label(record: TaskRecord, label: str) -> int:
    """Return where a label stands in a task, in whatever spelling.

    Raises:
        LabelNotFoundError: It has no such label.
    """
    for place, known in enumerate(record.labels):
        if label_key(known.label) == label_key(label):
            return place
    raise LabelNotFoundError(f"The task has no label {label[:100]!r}; it has {_listed(record)}.")


def clip_of(record: TaskRecord, clip_id: str) -> ClipRecord:
    """Return a support clip of a task.

    Raises:
        ClipNotFoundError: It has no such clip.
    """
    for clip in record.clips:
        if clip.clip_id == clip_id:
            return clip
    raise no_clip(clip_id)


def no_clip(clip_id: str) -> ClipNotFoundError:
    """Return the refusal of a clip that the task does not have."""
    return ClipNotFoundError(
        f"The task has no clip {clip_id[:64]!r}; read the task to see its own."
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """Another name, end or unknown policy, by field of the record."""

    fields: Mapping[str, Any]

    def __call__(self, record: TaskRecord) -> TaskRecord:
        """Return the record that follows."""
        return replace(record, **self.fields)


@dataclass(frozen=True, slots=True)
class RemoveClip:
    """A support clip less."""

    clip_id: str

    def __call__(self, record: TaskRecord) -> TaskRecord:
        """Return the record that follows.

        Raises:
            ClipNotFoundError: There is no such clip.
            LastClipError: Its label would keep none.
        """
        gone = clip_of(record, self.clip_id)
        if sum(clip.label == gone.label for clip in record.clips) == 1:
            raise LastClipError(
                f"Clip {self.clip_id} is the last one of label "
                f"{record.labels[gone.label].label!r}; add another first, or remove the label."
            )
        return replace(record, clips=tuple(clip for clip in record.clips if clip is not gone))


@dataclass(frozen=True, slots=True)
class RemoveLabel:
    """A label less, with its clips."""

    label: str
    least: int  # labels of a task

    def __call__(self, record: TaskRecord) -> TaskRecord:
        """Return the record that follows.

        Raises:
            LabelNotFoundError: There is no such label.
            LastLabelsError: The task would keep too few.
        """
        gone = place_of_label(record, self.label)
        if len(record.labels) <= self.least:
            raise LastLabelsError(
                f"The task has {len(record.labels)} labels and needs {self.least}; add another "
                f"before {self.label[:100]!r} is removed, or delete the task."
            )
        clips = tuple(
            replace(clip, label=clip.label - (clip.label > gone))
            for clip in record.clips
            if clip.label != gone
        )
        labels = (*record.labels[:gone], *record.labels[gone + 1 :])
        return replace(record, labels=labels, clips=clips)


@dataclass(frozen=True, slots=True)
class WriteLabel:
    """Another name for a label, or other sentences.

    Args:
        label: As it is called now.
        words: As it shall be called, with its sentences.
        keeps_client_stages: Whether sentences that a client wrote stay.
    """

    label: str
    words: LabelRecord
    keeps_client_stages: bool = False

    def __call__(self, record: TaskRecord) -> TaskRecord:
        """Return the record that follows.

        Raises:
            LabelNotFoundError: There is no such label.
            LabelDuplicateError: Another label is called so.
        """
        place = place_of_label(record, self.label)
        key = label_key(self.words.label)
        for other, known in enumerate(record.labels):
            if other != place and label_key(known.label) == key:
                raise LabelDuplicateError(
                    f"The task has the label {known.label!r} already; choose another name, or "
                    "add the clips to that label."
                )
        words, old = self.words, record.labels[place]
        if self.keeps_client_stages and old.text_source == "client":
            words = replace(old, label=words.label)
        return replace(record, labels=(*record.labels[:place], words, *record.labels[place + 1 :]))


@dataclass(frozen=True, slots=True)
class AddClips:
    """More clips of a label; or a label with its clips, which may be new.

    Args:
        label: The label.
        clips: Whatever place their `label` says.
        limits: Of a task.
        words: Of a label that may be new; its clips, if it is there, go. None only adds.
        words_given: Whether a label that is there takes these words too.
    """

    label: str
    clips: Sequence[ClipRecord]
    limits: Limits
    words: LabelRecord | None = None
    words_given: bool = False

    def __call__(self, record: TaskRecord) -> TaskRecord:
        """Return the record that follows.

        Raises:
            LabelNotFoundError: There is no such label, and it may not be new.
            TooManyLabelsError, TooManyClipsError: The task would be over a limit.
            RevisionConflictError: The task has these clips.
        """
        labels, kept = record.labels, record.clips
        if {clip.clip_id for clip in self.clips} & {clip.clip_id for clip in kept}:
            raise RevisionConflictError("The clips have been added already.", record.revision)
        try:
            place = place_of_label(record, self.label)
        except LabelNotFoundError:
            if self.words is None:
                raise
            place, labels = len(labels), (*labels, self.words)
        else:
            if self.words is not None:
                kept = tuple(clip for clip in kept if clip.label != place)
                if self.words_given:
                    labels = (*labels[:place], self.words, *labels[place + 1 :])
        new = tuple(replace(clip, label=place) for clip in self.clips)
        return _within(replace(record, labels=labels, clips=(*kept, *new)), self.limits)


def _within(record: TaskRecord, limits: Limits) -> TaskRecord:
    """Return a record that has grown.

    Raises:
        TooManyLabelsError, TooManyClipsError: It is over a limit.
    """
    if len(record.labels) > limits.labels[1]:
        raise TooManyLabelsError(
            f"The task would have {len(record.labels)} labels and may have {limits.labels[1]}; "
            "remove one first."
        )
    place, shots = Counter(clip.label for clip in record.clips).most_common(1)[0]
    if shots > limits.shots[1]:
        raise TooManyClipsError(
            f"Label {record.labels[place].label!r} would have {shots} clips and may have "
            f"{limits.shots[1]}; remove some first."
        )
    if len(record.clips) > limits.support_clips:
        raise TooManyClipsError(
            f"The task would have {len(record.clips)} clips and may have {limits.support_clips}; "
            "remove some first."
        )
    return record


def _listed(record: TaskRecord) -> str:
    shown = [repr(label.label) for label in record.labels[:5]]
    more = len(record.labels) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
