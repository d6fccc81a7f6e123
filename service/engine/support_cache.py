"""Encoded supports at hand: least recently used out first, one build at a time for each.

What somebody uses is pinned: it stays until nobody does, though the budget be overshot.
"""

import asyncio
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple

from model.episode import EncodedSupport
from service.background import spawn
from service.engine.runtimes.protocol import ServedModel
from service.errors import TaskTooLargeError
from service.stores.errors import TaskNotFoundError

log = logging.getLogger("kshot.engine")


class SupportKey(NamedTuple):
    """What encoded supports depend on."""

    task_id: str
    revision: int
    fingerprint: str  # of the weights


Event = Literal["hits", "misses", "evictions"]
Build = Callable[[], Awaitable[EncodedSupport]]


class SupportCache:
    """A cache by bytes; it belongs to the event loop.

    Args:
        max_bytes: Device memory for the tensors of all entries; 0 keeps what is pinned alone.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self.counts: Counter[Event] = Counter()
        self.evicted: Callable[[float], None] = lambda _: None  # told the seconds without use
        self._entries: OrderedDict[SupportKey, EncodedSupport] = OrderedDict()
        self._used: dict[SupportKey, float] = {}
        self._pins: Counter[SupportKey] = Counter()
        self._builds: dict[SupportKey, asyncio.Task[EncodedSupport]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def peek(self, key: SupportKey) -> EncodedSupport | None:
        """Return an entry if it is at hand."""
        if (entry := self._entries.get(key)) is not None:
            self._entries.move_to_end(key)
            self._used[key] = time.monotonic()
        return entry

    def newest(self, task_id: str) -> EncodedSupport | None:
        """Return the supports of a task's newest revision that is at hand."""
        known = [key for key in self._entries if key.task_id == task_id]
        return self._entries[max(known, key=lambda key: key.revision)] if known else None

    @contextmanager
    def pinned(self, key: SupportKey) -> Iterator[None]:
        """Keep an entry, now or when it comes, as long as the context lasts."""
        self._pins[key] += 1
        try:
            yield
        finally:
            self._pins[key] -= 1
            if not self._pins[key]:
                del self._pins[key]
            self._trim()

    async def get(self, key: SupportKey, build: Build) -> EncodedSupport:
        """Return an entry, built by whoever asks first; the build outlives those who wait."""
        if (entry := self.peek(key)) is not None:
            self.counts["hits"] += 1
            return entry
        self.counts["misses"] += 1
        if (task := self._builds.get(key)) is None:
            task = spawn(self._build(key, build))
            self._builds[key] = task
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            waiter = asyncio.current_task()
            if waiter is not None and waiter.cancelling():
                raise
            raise TaskNotFoundError(
                f"Task {key.task_id} was deleted meanwhile; register it again."
            ) from None

    def put(self, key: SupportKey, entry: EncodedSupport) -> None:
        """Keep an entry, and let the least recently used go."""
        self._drop(key)
        self._entries[key] = entry
        self._used[key] = time.monotonic()
        self.bytes += entry.bytes
        self._trim()

    def age(self, key: SupportKey) -> None:
        """Let an entry be the first to leave: nobody has asked for it yet."""
        if key in self._entries:
            self._entries.move_to_end(key, last=False)

    def forget(self, task_id: str, *, below_revision: int | None = None) -> None:
        """Drop a task's entries and builds; or only those of its older revisions."""

        def stale(key: SupportKey) -> bool:
            young = below_revision is not None and key.revision >= below_revision
            return key.task_id == task_id and not young

        for key in filter(stale, list(self._entries)):
            self._drop(key)
        if below_revision is None:
            for key in filter(stale, list(self._builds)):
                self._builds[key].cancel()

    def free(self) -> None:
        """Let everything go that nobody uses, for good: the device is out of memory."""
        for key in [key for key in self._entries if key not in self._pins]:
            self._drop(key)

    async def close(self) -> None:
        """Stop the builds and drop everything."""
        builds = list(self._builds.values())
        for task in builds:
            task.cancel()
        await asyncio.gather(*builds, return_exceptions=True)
        self._entries.clear()
        self._used.clear()
        self.bytes = 0

    async def _build(self, key: SupportKey, build: Build) -> EncodedSupport:
        try:
            entry = await build()
            self.put(key, entry)
            return entry
        finally:
            self._builds.pop(key, None)

    def _trim(self) -> None:
        """Evict down to the budget, the least recently used first, whatever is not pinned."""
        if self.bytes <= self.max_bytes:
            return
        for key in [key for key in self._entries if key not in self._pins]:
            self.evicted(time.monotonic() - self._used[key])
            self._drop(key)
            self.counts["evictions"] += 1
            if self.bytes <= self.max_bytes:
                return

    def _drop(self, key: SupportKey) -> None:
        if (entry := self._entries.pop(key, None)) is not None:
            del self._used[key]
            self.bytes -= entry.bytes


@dataclass(frozen=True, slots=True)
class SupportSize:
    """Bytes of a task's encoded supports, by what they grow with."""

    a_class: int
    a_clip: int

    def of(self, classes: Sequence[int]) -> int:
        """Return the bytes of a task.

        Args:
            classes: Class index of each support clip.
        """
        return len(set(classes)) * self.a_class + len(classes) * self.a_clip

    def check(self, classes: Sequence[int], most: int) -> None:
        """Refuse a task whose encoded supports are more than the budget of all of them.

        Args:
            classes: Class index of each support clip.
            most: The budget; 0 limits no task.

        Raises:
            TaskTooLargeError: It is too large.
        """
        if most and (wanted := self.of(classes)) > most:
            raise TaskTooLargeError(
                f"The encoded supports of {len(classes)} clips take {wanted:,} bytes and the limit "
                f"is {most:,}; register fewer clips or labels, or raise "
                "KSHOT_SUPPORT_CACHE_BYTES."
            )


def support_size(more: EncodedSupport, less: EncodedSupport, model: ServedModel) -> SupportSize:
    """Read off two tasks, which differ in one clip, what supports take.

    Args:
        more: Has one clip more, and as many classes.
        less: Has a clip a class.
        model: Text is as wide as features, and not yet in either.
    """
    classes, features = len(less.counts), less.classes.prototype_NTE.shape[-1]
    a_clip = more.bytes - less.bytes
    text = 4 * model.texts * features if model.has_text else 0
    return SupportSize(less.bytes // classes - a_clip + text, a_clip)
