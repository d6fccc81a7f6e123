"""What an operator lets single tenants use: kept in the store that has the tasks."""

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from service.keys.keeping import beside
from service.stores.quotas.kept import NO_LIMIT, Own, read_own

TABLE = "quotas (tenant, kind, most, PRIMARY KEY (tenant, kind))"


class Grants(Protocol):
    """Keeps the limits of single tenants; every method may raise `StoreUnavailableError`."""

    async def put(self, tenant: str, own: Own) -> None:
        """Set limits of a tenant, beside those it has; without any, all of them go."""
        ...

    async def list(self) -> Mapping[str, Own]:
        """Return the limits of each tenant that has some, by its name."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class SqliteGrants:
    """A table in the file of the embedded store, used beside a running service."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def put(self, tenant: str, own: Own) -> None:
        """Set limits."""

        def work(db: sqlite3.Connection) -> None:
            if not own:
                db.execute("DELETE FROM quotas WHERE tenant = ?", (tenant,))
            rows = [(tenant, kind, most) for kind, most in stored(own).items()]
            db.executemany("INSERT OR REPLACE INTO quotas VALUES (?, ?, ?)", rows)

        await beside(self._path, TABLE, work)

    async def list(self) -> Mapping[str, Own]:
        """Return all limits."""

        def work(db: sqlite3.Connection) -> list[tuple[str, str, int]]:
            return db.execute("SELECT tenant, kind, most FROM quotas").fetchall()

        return by_tenant(await beside(self._path, TABLE, work))

    async def close(self) -> None:
        """Nothing is held between two operations."""


def stored(own: Own) -> dict[str, int]:
    """Return limits as they are stored."""
    return {kind: NO_LIMIT if most is None else most for kind, most in own.items()}


def by_tenant(rows: list[tuple[str, str, int]]) -> dict[str, Own]:
    """Return the limits of stored rows: tenant, kind, most."""
    tenants = sorted({tenant for tenant, *_ in rows})
    return {
        tenant: read_own((kind, most) for of, kind, most in rows if of == tenant)
        for tenant in tenants
    }
