"""What is kept of a remembered query, and what is asked of every store of them."""

import logging
from collections.abc import Iterable, Sequence
from typing import Annotated, Protocol

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from service.stores import sealing
from service.stores.errors import StoreCorruptError
from service.stores.inboxes.policy import InboxPolicy
from service.stores.records import ClipRecord, Count, Identifier, Seconds

KEEP = 50  # queries of a task that sets no number
MOST_BYTES = 32 * 2**20  # of their pictures

_STRICT = ConfigDict(extra="forbid", strict=True)
Number = Annotated[float, Field(allow_inf_nan=False)]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class Remembered:
    """A query clip that was answered, without its pictures."""

    query_id: Identifier
    at: Seconds  # unix time of the answer
    until: Seconds  # unix time at which it is dropped
    revision: Count  # of the task, when it answered
    model: str  # whose answer it was
    clip: ClipRecord  # as an example would be kept; its id is `query_id`
    ranking: tuple[tuple[str, Number], ...]  # labels and scores, the first one first
    nearest: Number
    threshold: Number
    unknown: bool
    size: Count  # bytes of its pictures

    @property
    def score(self) -> float:
        """How certain the answer was."""
        return self.ranking[0][1]


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much of the queries of one task is kept; the oldest go first."""

    keep: int
    bytes: int


def bounds_of(policy: InboxPolicy | None) -> Bounds:
    """Return how much a task keeps."""
    return Bounds(KEEP if policy is None else policy.keep, MOST_BYTES)


Query = tuple[Remembered, tuple[bytes, ...]]  # with its pictures


class InboxStore(Protocol):
    """Keeps remembered queries as long as their task lives, and no longer than their time.

    Adding is not awaited on the disk: a loss of power may lose the last ones.
    """

    async def add(
        self, task_id: str, query: Remembered, pictures: Sequence[bytes], bounds: Bounds
    ) -> bool:
        """Keep a query, and drop what is out of time or over the bounds.

        Returns:
            Whether it is kept: False where the task is gone, or the query alone is too large.
        """
        ...

    async def list(self, task_id: str) -> list[Remembered]:
        """Return the queries of a task that are in their time; damaged ones are left out."""
        ...

    async def get(self, task_id: str, query_id: str) -> Query | None:
        """Return a query and its pictures; None when it is not there any more.

        Raises:
            StoreCorruptError: It is damaged.
        """
        ...

    async def remove(self, task_id: str, query_id: str) -> bool:
        """Drop a query; False when it was not there."""
        ...


_ADAPTER = TypeAdapter(Remembered)


def to_json(query: Remembered) -> bytes:
    """Return a query as JSON."""
    return _ADAPTER.dump_json(query)


def from_json(document: bytes) -> Remembered:
    """Read a query.

    Raises:
        StoreCorruptError: It is none.
    """
    try:
        return _ADAPTER.validate_json(document)
    except ValidationError as error:
        raise StoreCorruptError("A remembered query cannot be read; dismiss it.") from error


def seal_query(task_id: str, query: Remembered) -> bytes:
    """Return a query as it is stored."""
    return sealing.seal(f"inbox/{task_id}/{query.query_id}", to_json(query))


def seal_pictures(task_id: str, query_id: str, pictures: Sequence[bytes]) -> bytes:
    """Return the pictures of a query as they are stored."""
    packed = sealing.pack_pictures(pictures)
    return sealing.seal(f"inbox-pictures/{task_id}/{query_id}", packed)


def read_query(task_id: str, query_id: str, sealed: object) -> Remembered:
    """Read a query.

    Raises:
        StoreCorruptError: It is damaged.
    """
    return from_json(bytes(sealing.unseal(f"inbox/{task_id}/{query_id}", sealed)))


def read_pictures(task_id: str, query_id: str, sealed: object) -> tuple[bytes, ...]:
    """Read the pictures of a query.

    Raises:
        StoreCorruptError: They are damaged.
    """
    subject = f"inbox-pictures/{task_id}/{query_id}"
    return sealing.unpack_pictures(sealing.unseal(subject, sealed))


def in_time(task_id: str, rows: Iterable[tuple[str, object]], now: float) -> list[Remembered]:
    """Read stored queries by id; leave out what is over time or damaged."""
    found = []
    for query_id, sealed in rows:
        try:
            query = read_query(task_id, query_id, sealed)
        except StoreCorruptError:
            log.exception("A remembered query is damaged and left out: %s", query_id)
            continue
        if now < query.until:
            found.append(query)
    return found
