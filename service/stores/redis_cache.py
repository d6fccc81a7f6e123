"""What a Redis store keeps beside tasks: cached texts, encoded supports, and when tasks were used.

All of it can be lost, so no write waits for the disk. Keys, under the store's prefix:

    text:<name>  sealed text       supports:<id>  hash: name, sealed supports
    used         sorted set: ids of tasks by the time of their last use
"""

from collections.abc import Callable, Mapping
from typing import cast

from redis.asyncio import Redis

from service.stores import records, sealing
from service.stores.records import TaskRecord
from service.stores.redis_commit import milliseconds, retried

USES = 10_000  # kept at most, the latest

# KEYS: task, supports
# ARGV: revision, name, value
KEEP = """
if redis.call('HGET', KEYS[1], 'revision') ~= ARGV[1] then return 'gone' end
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[2], 'name', ARGV[2], 'value', ARGV[3])
local left = redis.call('PTTL', KEYS[1])
if left > 0 then redis.call('PEXPIRE', KEYS[2], left) end
return 'done'
"""

# KEYS: used, and the tasks
# ARGV: most, and for each task its id and the time
NOTE = """
for i = 2, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 1 then
    redis.call('ZADD', KEYS[1], 'GT', ARGV[2 * i - 1], ARGV[2 * i - 2])
  end
end
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - ARGV[1])
return 'done'
"""

# KEYS: of uses
# ARGV: how keys of tasks begin, limit
RECENT = """
local found = {}
for _, id in ipairs(redis.call('ZREVRANGE', KEYS[1], 0, -1)) do
  if #found == tonumber(ARGV[2]) then break end
  if redis.call('EXISTS', ARGV[1] .. id) == 1 then
    found[#found + 1] = id
  else
    redis.call('ZREM', KEYS[1], id)
  end
end
return found
"""


class RedisCache:
    """Operations on what can be lost; must not be cancelled while they run (see `Shield`)."""

    def __init__(self, client: Redis, *, prefix: str, now: Callable[[], float]) -> None:
        self._client = client
        self._prefix = prefix
        self._now = now

    async def get_text(self, key: str) -> bytes | None:
        """Return a value that is there, whole and in its time."""
        name = sealing.text_name(key)

        async def read() -> bytes | None:
            return cast("bytes | None", await self._client.get(self._key("text", name)))

        return sealing.read_text(name, await retried(read), self._now())

    async def put_text(self, key: str, value: bytes, ttl_s: float) -> None:
        """Keep a value."""
        name = sealing.text_name(key)
        sealed = sealing.seal_text(name, value, self._now() + ttl_s)
        await self._client.set(self._key("text", name), sealed, px=milliseconds(ttl_s))

    async def get_supports(self, task_id: str, name: str) -> bytes | None:
        """Return a task's supports that were kept under this name and are whole."""
        if not records.is_id(task_id):
            return None

        async def read() -> list[bytes | None]:
            key = self._key("supports", task_id)
            return cast("list[bytes | None]", await self._client.hmget(key, ["name", "value"]))

        kept_as, sealed = await retried(read)
        if kept_as != name.encode():
            return None
        return sealing.read_supports(task_id, name, sealed)

    async def put_supports(self, record: TaskRecord, name: str, value: bytes) -> None:
        """Keep the supports of a task, if it still stands as this record says."""
        sealed = sealing.seal_supports(record.task_id, name, value)
        keys = [self._key(kind, record.task_id) for kind in ("task", "supports")]
        await self._client.eval(KEEP, len(keys), *keys, str(record.revision), name, sealed)

    async def note_uses(self, used: Mapping[str, float]) -> None:
        """Keep when tasks that are there were used last."""
        keys = [self._key("used"), *(self._key("task", task_id) for task_id in used)]
        times = [part for task_id, at in used.items() for part in (task_id, repr(at))]
        await self._client.eval(NOTE, len(keys), *keys, str(USES), *times)

    async def recent(self, limit: int) -> list[str]:
        """Return the ids of tasks, the one that was used last first; forget those that are gone."""

        async def read() -> list[bytes]:
            used, begin = self._key("used"), self._key("task", "")
            return cast("list[bytes]", await self._client.eval(RECENT, 1, used, begin, str(limit)))

        return [task_id.decode() for task_id in await retried(read)]

    def _key(self, *parts: str) -> str:
        return ":".join((self._prefix, *parts))
