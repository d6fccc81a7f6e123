"""What tenants use, in the SQLite store's file.

Tasks and their bytes are rows beside each task. Rates are counted in memory: one process has the
file, and a minute is not worth a wait for the disk.
"""

import secrets
from collections.abc import Callable
from dataclasses import replace

from service.stores.inboxes.sqlite import Run
from service.stores.quotas.kept import WINDOW_S, Amounts, Quotas, Standing
from service.stores.quotas.rows import held_by, quotas_of
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
