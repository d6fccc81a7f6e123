"""Encoded supports at hand: least recently used out first, one build at a time for each."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from model.recognizer import EncodedSupport
from service.refusals import NotReadyError


class SupportKey(NamedTuple):
    """What encoded supports depend on."""

    task_id: str
    revision: int
    fingerprint: str  # of the weights


Build = Callable[[], Awaitable[EncodedSupport]]


class SupportCache:
    """A cache by bytes; what is larger than all of it is built each time it is asked for.

    Args:
        max_bytes: Memory for the tensors of all entries.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._entries: OrderedDict[SupportKey, EncodedSupport] = OrderedDict()
        self._builds: dict[SupportKey, asyncio.Task[EncodedSupport]] = {}

    def peek(self, key: SupportKey) -> EncodedSupport | None:
        """Return an entry if it is at hand."""
        if key in self._entries:
            self._entries.move_to_end(key)
        return self._entries.get(key)

    def building(self, key: SupportKey) -> bool:
        """Tell whether an entry is on its way."""
        return key in self._builds

    async def get(self, key: SupportKey, build: Build) -> EncodedSupport:
        """Return an entry, built by whoever asks first; the build outlives those who wait."""
        if (entry := self.peek(key)) is not None:
            return entry
        if (task := self._builds.get(key)) is None:
            task = asyncio.create_task(self._build(key, build))
            self._builds[key] = task
            task.add_done_callback(_retrieve)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            waiter = asyncio.current_task()
            if waiter is not None and waiter.cancelling():
                raise
            raise NotReadyError("The task was deleted meanwhile; register it again.") from None

    def put(self, key: SupportKey, entry: EncodedSupport) -> None:
        """Keep an entry, and let the least recently used go."""
        self._drop(key)
        if entry.bytes > self.max_bytes:
            return
        self._entries[key] = entry
        self.bytes += entry.bytes
        while self.bytes > self.max_bytes:
            self._drop(next(iter(self._entries)))

    def forget(self, task_id: str, *, below_revision: int | None = None) -> None:
        """Drop a task's entries and builds; or only those of its older revisions."""

        def stale(key: SupportKey) -> bool:
            young = below_revision is not None and key.revision >= below_revision
            return key.task_id == task_id and not young

        for key in [key for key in self._entries if stale(key)]:
            self._drop(key)
        if below_revision is None:
            for key in [key for key in self._builds if stale(key)]:
                self._builds[key].cancel()

    async def close(self) -> None:
        """Stop the builds and drop everything."""
        builds = list(self._builds.values())
        for task in builds:
            task.cancel()
        await asyncio.gather(*builds, return_exceptions=True)
        self._entries.clear()
        self.bytes = 0

    async def _build(self, key: SupportKey, build: Build) -> EncodedSupport:
        try:
            entry = await build()
            self.put(key, entry)
            return entry
        finally:
            self._builds.pop(key, None)

    def _drop(self, key: SupportKey) -> None:
        if (entry := self._entries.pop(key, None)) is not None:
            self.bytes -= entry.bytes


def _retrieve(task: "asyncio.Task[EncodedSupport]") -> None:
    """Look at the outcome, so that a failure nobody waited for is not reported as lost."""
    if not task.cancelled():
        task.exception()
