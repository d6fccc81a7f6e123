"""Encoded supports at hand: least recently used out first, one build at a time for each.

Two tiers: the device's memory, under a budget of bytes, and optionally the machine's, to which
supports move when they leave the device and from which they come back without being built again.
What somebody uses is pinned: it stays, though the budget be overshot, until nobody does.
"""

import asyncio
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch

from model.recognizer import EncodedSupport
from service.errors import NotReadyError

HOST = torch.device("cpu")

log = logging.getLogger("kshot.engine")


class SupportKey(NamedTuple):
    """What encoded supports depend on."""

    task_id: str
    revision: int
    fingerprint: str  # of the weights


Build = Callable[[], Awaitable[EncodedSupport]]
Move = Callable[[EncodedSupport, torch.device], Awaitable[EncodedSupport]]


@dataclass(slots=True)
class SupportCounts:
    """What the cache has done so far."""

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    returns: int = 0  # misses that came back from the host tier
    builds: int = 0
    build_s: float = 0.0


@dataclass(frozen=True, slots=True)
class HostTier:
    """The machine's memory behind a device.

    Args:
        max_bytes: Memory for the tensors of all entries.
        move: Copies supports to another device.
        device: Where they come back to.
    """

    max_bytes: int
    move: Move
    device: torch.device


class SupportCache:
    """A cache by bytes; it belongs to the event loop.

    Args:
        max_bytes: Device memory for the tensors of all entries; 0 keeps what is pinned alone.
        host: Where entries go that leave the device; None lets them go for good.
    """

    def __init__(self, max_bytes: int, host: HostTier | None = None) -> None:
        self.max_bytes = max_bytes
        self.host = host
        self.counts = SupportCounts()
        self.bytes = 0
        self.host_bytes = 0
        self._entries: OrderedDict[SupportKey, EncodedSupport] = OrderedDict()
        self._on_host: OrderedDict[SupportKey, EncodedSupport] = OrderedDict()
        self._pins: Counter[SupportKey] = Counter()
        self._builds: dict[SupportKey, asyncio.Task[EncodedSupport]] = {}
        self._leaving: dict[SupportKey, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def peek(self, key: SupportKey) -> EncodedSupport | None:
        """Return an entry if it is at hand."""
        if (entry := self._entries.get(key)) is not None:
            self._entries.move_to_end(key)
            self.counts.hits += 1
        return entry

    def building(self, key: SupportKey) -> bool:
        """Tell whether an entry is on its way."""
        return key in self._builds

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
            return entry
        self.counts.misses += 1
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
        self._drop_from_host(key)
        self._entries[key] = entry
        self.bytes += entry.bytes
        self._trim()

    def forget(self, task_id: str, *, below_revision: int | None = None) -> None:
        """Drop a task's entries and builds; or only those of its older revisions."""

        def stale(key: SupportKey) -> bool:
            young = below_revision is not None and key.revision >= below_revision
            return key.task_id == task_id and not young

        for key in filter(stale, list(self._entries)):
            self._drop(key)
        for key in filter(stale, list(self._on_host)):
            self._drop_from_host(key)
        for key in filter(stale, list(self._leaving)):
            self._leaving.pop(key).cancel()
        if below_revision is None:
            for key in filter(stale, list(self._builds)):
                self._builds[key].cancel()

    def free(self) -> None:
        """Let everything go that nobody uses, for good: the device is out of memory."""
        for key in [key for key in self._entries if key not in self._pins]:
            self._drop(key)
            self.counts.evictions += 1

    async def close(self) -> None:
        """Stop the builds and drop everything."""
        work = [*self._builds.values(), *self._leaving.values()]
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        self._entries.clear()
        self._on_host.clear()
        self.bytes = self.host_bytes = 0

    async def _build(self, key: SupportKey, build: Build) -> EncodedSupport:
        try:
            stored = self._on_host.get(key)
            if self.host is not None and stored is not None:
                entry = await self.host.move(stored, self.host.device)
                self.counts.returns += 1
            else:
                begun = time.monotonic()
                entry = await build()
                self.counts.builds += 1
                self.counts.build_s += time.monotonic() - begun
            self.put(key, entry)
            return entry
        finally:
            self._builds.pop(key, None)

    def _trim(self) -> None:
        """Evict down to the budget, the least recently used first, whatever is not pinned."""
        if self.bytes <= self.max_bytes:
            return
        for key in [key for key in self._entries if key not in self._pins]:
            entry = self._entries[key]
            self._drop(key)
            self.counts.evictions += 1
            if self.host is not None and entry.bytes <= self.host.max_bytes:
                self._leave(key, entry, self.host)
            if self.bytes <= self.max_bytes:
                return

    def _leave(self, key: SupportKey, entry: EncodedSupport, host: HostTier) -> None:
        async def leave() -> None:
            moved = await host.move(entry, HOST)
            if key in self._entries:  # built again meanwhile
                return
            self._drop_from_host(key)
            self._on_host[key] = moved
            self.host_bytes += moved.bytes
            while self.host_bytes > host.max_bytes:
                self._drop_from_host(next(iter(self._on_host)))

        def finished(task: "asyncio.Task[None]") -> None:
            if self._leaving.get(key) is task:
                del self._leaving[key]
            if not task.cancelled() and (error := task.exception()) is not None:
                log.warning("Supports of a task did not reach the machine's memory: %s", error)

        if (before := self._leaving.pop(key, None)) is not None:
            before.cancel()
        self._leaving[key] = asyncio.create_task(leave())
        self._leaving[key].add_done_callback(finished)

    def _drop(self, key: SupportKey) -> None:
        if (entry := self._entries.pop(key, None)) is not None:
            self.bytes -= entry.bytes

    def _drop_from_host(self, key: SupportKey) -> None:
        if (entry := self._on_host.pop(key, None)) is not None:
            self.host_bytes -= entry.bytes


def _retrieve(task: "asyncio.Task[EncodedSupport]") -> None:
    """Look at the outcome, so that a failure nobody waited for is not reported as lost."""
    if not task.cancelled():
        task.exception()
