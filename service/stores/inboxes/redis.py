"""Remembered queries in Redis.

Keys, under the store's prefix, with a time to live:

inbox:<id>           hash: sealed queries, by id      inbox-marks:<id>  hash: time, end and size
inbox-pictures:<id>  hash: sealed pictures, by id
"""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar, cast

from redis.asyncio import Redis

from service.stores.inboxes import kept
from service.stores.inboxes.kept import Bounds, Remembered
from service.stores.redis_commit import milliseconds, retried

Result = TypeVar("Result")

# KEYS: task, queries, pictures, marks
# ARGV: id, query, pictures, mark, now, most, most bytes, ttl_ms
ADD = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 'absent' end
for place = 2, 4 do redis.call('HSET', KEYS[place], ARGV[1], ARGV[place]) end
local found, flat = {}, redis.call('HGETALL', KEYS[4])
for place = 1, #flat, 2 do
  local at, till, size = string.match(flat[place + 1], '(%S+) (%S+) (%S+)')
  if tonumber(till) <= tonumber(ARGV[5]) then
    for key = 2, 4 do redis.call('HDEL', KEYS[key], flat[place]) end
  else
    found[#found + 1] = {flat[place], tonumber(at), tonumber(size)}
  end
end
table.sort(found, function(a, b)
  if a[2] == b[2] then return a[1] > b[1] end
  return a[2] > b[2]
end)
local held = 0
for count, one in ipairs(found) do
  held = held + one[3]
  if count > tonumber(ARGV[6]) or held > tonumber(ARGV[7]) then
    for key = 2, 4 do redis.call('HDEL', KEYS[key], one[1]) end
  end
end
local left, life = redis.call('PTTL', KEYS[1]), tonumber(ARGV[8])
if left < 0 or left > life then left = life end
for key = 2, 4 do redis.call('PEXPIRE', KEYS[key], left) end
if redis.call('HEXISTS', KEYS[4], ARGV[1]) == 1 then return 'kept' end
return 'full'
"""

# KEYS: queries, pictures, marks; and the id as ARGV
REMOVE = """
local there = redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
return there
"""


class Run(Protocol):
    """Runs an operation to its end, also when its caller is cancelled."""

    async def __call__(self, operation: Coroutine[Any, Any, Result], /) -> Result:
        """Return its result."""
        ...


def keys_of(prefix: str, task_id: str) -> list[str]:
    """Return the keys of a task's queries, their pictures and their marks."""
    return [f"{prefix}:{kind}:{task_id}" for kind in ("inbox", "inbox-pictures", "inbox-marks")]


class RedisInbox:
    """An `InboxStore` in Redis.

    Args:
        client: The connections.
        prefix: Of all keys.
        now: The clock, unix time.
        run: Runs each operation.
    """

    def __init__(self, client: Redis, prefix: str, now: Callable[[], float], run: Run) -> None:
        self._client = client
        self._prefix = prefix
        self._now = now
        self._run = run

    async def add(
        self, task_id: str, query: Remembered, pictures: Sequence[bytes], bounds: Bounds
    ) -> bool:
        """Keep a query, and drop what is over the bounds."""
        keys = [f"{self._prefix}:task:{task_id}", *keys_of(self._prefix, task_id)]
        values: list[Any] = [
            query.query_id,
            kept.seal_query(task_id, query),
            kept.seal_pictures(task_id, query.query_id, pictures),
            f"{query.at!r} {query.until!r} {query.size}",
            repr(self._now()),
            bounds.keep,
            bounds.bytes,
            milliseconds(query.until - self._now()),
        ]

        async def add() -> bool:
            return bool(await self._client.eval(ADD, len(keys), *keys, *values) == b"kept")

        return await self._run(add())

    async def list(self, task_id: str) -> list[Remembered]:
        """Return the queries of a task that are in their time."""

        async def read() -> dict[bytes, bytes]:
            key = keys_of(self._prefix, task_id)[0]
            return cast("dict[bytes, bytes]", await self._client.hgetall(key))

        found = await self._run(retried(read))
        rows = [(name.decode(), sealed) for name, sealed in found.items()]
        return kept.in_time(task_id, rows, self._now())

    async def get(self, task_id: str, query_id: str) -> tuple[Remembered, tuple[bytes, ...]] | None:
        """Return a query and its pictures."""

        async def read() -> list[bytes | None]:
            pipeline = self._client.pipeline(transaction=False)
            for key in keys_of(self._prefix, task_id)[:2]:
                pipeline.hget(key, query_id)
            return cast("list[bytes | None]", await pipeline.execute())

        about, packed = await self._run(retried(read))
        if about is None or packed is None:
            return None
        found = kept.read_query(task_id, query_id, about)
        if found.until <= self._now():
            return None
        return found, kept.read_pictures(task_id, query_id, packed)

    async def remove(self, task_id: str, query_id: str) -> bool:
        """Drop a query."""
        keys = keys_of(self._prefix, task_id)

        async def remove() -> bool:
            return bool(await self._client.eval(REMOVE, len(keys), *keys, query_id) == 1)

        return await self._run(remove())
