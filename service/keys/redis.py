"""Keys, and what single tenants may use, in a Redis: hashes beside the tasks."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import cast

from service.keys.grants import by_tenant, stored
from service.keys.keeping import in_order, opened, sealed
from service.keys.key import KeyRecord
from service.stores.quotas.kept import Own
from service.stores.quotas.redis import count_all
from service.stores.redis import RedisUrl, connect, translated
from service.stores.redis_commit import Commits, Durability, durability_of

# KEYS: of keys
# ARGV: id, sealed record
PUT_KEY = "redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) return 'done'"
# KEYS: the quotas
# ARGV: tenant; then a kind and its limit, several times. Without these all go.
PUT_LIMITS = """
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


class RedisKeys:
    """A hash of keys: sealed records by id."""

    def __init__(self, url: str) -> None:
        options = RedisUrl.parse(url)
        self._durable = options.durable
        self._client = connect(options)
        self._key = f"{options.prefix}:keys"

    async def get(self, key_id: str) -> KeyRecord | None:
        """Return a key."""
        with translated():
            # as RedisStore does: a cancelled command would leave its reply to the next caller
            found = await asyncio.shield(self._get(key_id))
        return None if found is None else opened(key_id, found)

    async def put(self, record: KeyRecord) -> None:
        """Keep a key."""
        with translated():
            durability = await durability_of(self._client) if self._durable else Durability.NONE
            await Commits(self._client, durability).run(
                PUT_KEY, [self._key], [record.key_id, sealed(record)]
            )

    async def list(self) -> Sequence[KeyRecord]:
        """Return all keys."""
        with translated():
            found = cast("dict[bytes, bytes]", await self._client.hgetall(self._key))
        return in_order(opened(key_id.decode(), record) for key_id, record in found.items())

    async def close(self) -> None:
        """Let go of the connections."""
        await self._client.aclose()

    async def _get(self, key_id: str) -> bytes | None:
        return cast("bytes | None", await self._client.hget(self._key, key_id))


class RedisGrants:
    """A hash of limits by tenant and kind."""

    def __init__(self, url: str) -> None:
        options = RedisUrl.parse(url)
        self._durable = options.durable
        self._client = connect(options)
        self._prefix = options.prefix

    async def put(self, tenant: str, own: Own) -> None:
        """Count the tasks that are there, then set limits."""
        values = [str(part) for pair in stored(own).items() for part in pair]
        with translated():
            durability = await durability_of(self._client) if self._durable else Durability.NONE
            commits = Commits(self._client, durability)
            if own:
                await count_all(self._client, self._prefix)
            await commits.run(PUT_LIMITS, [f"{self._prefix}:quotas"], [tenant, *values])

    async def list(self) -> Mapping[str, Own]:
        """Return all limits."""
        with translated():
            found = await self._client.hgetall(f"{self._prefix}:quotas")
        rows = [
            (*name.decode().split(":"), int(most))
            for name, most in cast("dict[bytes, bytes]", found).items()
        ]
        return by_tenant(cast("list[tuple[str, str, int]]", rows))

    async def close(self) -> None:
        """Let go of the connections."""
        await self._client.aclose()
