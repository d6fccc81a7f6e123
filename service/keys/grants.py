"""What an operator lets single tenants use: kept in the store that has the tasks."""

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, cast

from service.keys.keeping import beside
from service.stores.opening import REDIS_SCHEMES
from service.stores.quotas.kept import NO_LIMIT, Own, read_own
from service.stores.quotas.redis import count_all
from service.stores.redis import RedisUrl, connect, translated
from service.stores.redis_commit import Commits, Durability, durability_of

TABLE = "quotas (tenant, kind, most, PRIMARY KEY (tenant, kind))"
Rows = Mapping[str, int]
# KEYS: the quotas
# ARGV: tenant; then a kind and its limit, several times. Without these all go.
PUT = """
if #ARGV == 1 then
  for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
    local tenant = string.match(name, '^[^:]+')
    if tenant == ARGV[1] then redis.call('HDEL', KEYS[1], name) end
  end
end
for place = 2, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[1] .. ':' .. ARGV[place], ARGV[place + 1])
end
return 'done'
"""


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
            rows = [(tenant, kind, most) for kind, most in _stored(own).items()]
            db.executemany("INSERT OR REPLACE INTO quotas VALUES (?, ?, ?)", rows)

        await beside(self._path, TABLE, work)

    async def list(self) -> Mapping[str, Own]:
        """Return all limits."""

        def work(db: sqlite3.Connection) -> list[tuple[str, str, int]]:
            return db.execute("SELECT tenant, kind, most FROM quotas").fetchall()

        return _by_tenant(await beside(self._path, TABLE, work))

    async def close(self) -> None:
        """Nothing is held between two operations."""


class RedisGrants:
    """A hash beside the tasks."""

    def __init__(self, url: str) -> None:
        options = RedisUrl.parse(url)
        self._durable = options.durable
        self._client = connect(options)
        self._prefix = options.prefix

    async def put(self, tenant: str, own: Own) -> None:
        """Count the tasks that are there, then set limits."""
        values = [str(part) for pair in _stored(own).items() for part in pair]
        with translated():
            durability = await durability_of(self._client) if self._durable else Durability.NONE
            commits = Commits(self._client, durability)
            if own:
                await count_all(self._client, self._prefix)
            await commits.run(PUT, [f"{self._prefix}:quotas"], [tenant, *values])

    async def list(self) -> Mapping[str, Own]:
        """Return all limits."""
        with translated():
            found = await self._client.hgetall(f"{self._prefix}:quotas")
        rows = [
            (*name.decode().split(":"), int(most))
            for name, most in cast("dict[bytes, bytes]", found).items()
        ]
        return _by_tenant(cast("list[tuple[str, str, int]]", rows))

    async def close(self) -> None:
        """Let go of the connections."""
        await self._client.aclose()


def open_grants(url: str) -> Grants:
    """Return the limits that a store keeps, which is there."""
    if url.startswith(REDIS_SCHEMES):
        return RedisGrants(url)
    return SqliteGrants(Path(url.partition(":")[2]))


def _stored(own: Own) -> dict[str, int]:
    return {kind: NO_LIMIT if most is None else most for kind, most in own.items()}


def _by_tenant(rows: list[tuple[str, str, int]]) -> dict[str, Own]:
    tenants = sorted({tenant for tenant, *_ in rows})
    return {
        tenant: read_own((kind, most) for of, kind, most in rows if of == tenant)
        for tenant in tenants
    }
