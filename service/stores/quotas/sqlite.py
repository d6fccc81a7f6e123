"""What tenants use, in the SQLite store's file.

Tasks and their bytes are rows beside each task. Rates are counted in memory: one process has the
file, and a minute is not worth a wait for the disk.
"""

import secrets
from collections.abc import Callable
from dataclasses import replace
from sqlite3 import Connection

from service.stores.errors import quota_full
from service.stores.inboxes.sqlite import Run
from service.stores.quotas.kept import WINDOW_S, Amounts, Quotas, Standing, read_own, tenant_of
from service.stores.records import TaskRecord, owner_of
from service.stores.sqlite_file import SqliteFile

MOST_WINDOWS = 1000  # before those that have ended are dropped


class SqliteQuotas:
    """A `QuotaStore` in one file.

    Args:
        file: The file.
        now: The clock, unix time.
        read: Runs what reads.
        window_s: How long a minute is.
    """

    def __init__(
        self, file: SqliteFile, now: Callable[[], float], read: Run, window_s: float = WINDOW_S
    ) -> None:
        self._file = file
        self._now = now
        self._read = read
        self.window_s = window_s
        self._windows: dict[str, tuple[str, float, Amounts]] = {}  # by owner: name, end, rates

    async def charge(self, owner: str, asked: Amounts, usual: Quotas) -> Standing:
        """Charge a tenant; nothing else runs between the look at its minute and the charge."""

        def look() -> tuple[Quotas, Amounts]:
            now = self._now()
            with self._file.reading() as db:
                return quotas_of(db, owner, usual), held_by(db, owner, now)

        quotas, held = await self._read(look)
        name, end, rates = self._window(owner)
        used = replace(held, clip_ms=rates.clip_ms, frames=rates.frames)
        standing = Standing(quotas, used, name, max(0.0, end - self._now()))
        if standing.over(asked):
            return replace(standing, granted=False)
        if not asked.clip_ms and not asked.frames:
            return standing
        if not name:
            name, end = secrets.token_hex(8), self._now() + self.window_s
        more = Amounts(clip_ms=rates.clip_ms + asked.clip_ms, frames=rates.frames + asked.frames)
        self._windows[owner] = name, end, more
        used = replace(used, clip_ms=more.clip_ms, frames=more.frames)
        return Standing(quotas, used, name, end - self._now())

    async def give_back(self, owner: str, rates: Amounts, window: str) -> None:
        """Return what was charged."""
        name, end, used = self._window(owner)
        if name and name == window:
            less = Amounts(clip_ms=used.clip_ms - rates.clip_ms, frames=used.frames - rates.frames)
            self._windows[owner] = name, end, less

    async def reckon(self) -> None:
        """Do nothing: the file was reckoned when it was opened."""

    def _window(self, owner: str) -> tuple[str, float, Amounts]:
        """Return the minute that runs; without a name where none does."""
        now = self._now()
        if len(self._windows) > MOST_WINDOWS:
            self._windows = {o: each for o, each in self._windows.items() if each[1] > now}
        name, end, used = self._windows.get(owner, ("", 0.0, Amounts()))
        # a clock that was set back must not make a minute longer
        return (name, end, used) if now < end <= now + self.window_s else ("", 0.0, Amounts())


def quotas_of(db: Connection, owner: str, usual: Quotas) -> Quotas:
    """Return what a tenant may use."""
    query = "SELECT kind, most FROM quotas WHERE tenant = ?"
    return usual.overridden(read_own(db.execute(query, (tenant_of(owner),)).fetchall()))


def held_by(db: Connection, owner: str, now: float) -> Amounts:
    """Return the living tasks of a tenant, and their bytes."""
    query = (
        "SELECT count(*), coalesce(sum(bytes), 0) FROM held"
        " WHERE owner = ? AND (expires_at IS NULL OR expires_at > ?)"
    )
    tasks, size = db.execute(query, (owner, now)).fetchone()
    return Amounts(tasks=tasks, bytes=size)


def hold(db: Connection, record: TaskRecord, usual: Quotas | None, now: float) -> None:
    """Count a task whose pictures have just been written, in their transaction.

    Args:
        db: On which they were written.
        record: The task.
        usual: The limits of tenants that have none of their own; None asks for no limit.
        now: Unix time.

    Raises:
        QuotaFullError: Its tenant has no room for what it grew by; nothing of it is to be kept.
    """
    task_id, owner = record.task_id, owner_of(record.task_id)
    row = db.execute("SELECT bytes FROM held WHERE task_id = ?", (task_id,)).fetchone()
    query = "SELECT coalesce(sum(length(packed)), 0) FROM pictures WHERE task_id = ?"
    (size,) = db.execute(query, (task_id,)).fetchone()
    if usual is not None:
        grown = Amounts(tasks=int(row is None), bytes=max(0, size - (row[0] if row else 0)))
        standing = Standing(quotas_of(db, owner, usual), held_by(db, owner, now))
        if over := standing.over(grown):
            raise quota_full(over[0], standing.quotas.of(over[0]))
    held = (task_id, owner, record.expires_at, size)
    db.execute("INSERT OR REPLACE INTO held VALUES (?, ?, ?, ?)", held)
