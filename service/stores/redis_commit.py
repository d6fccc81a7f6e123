"""Commits to Redis: scripts that run in one step, and how a store learns that they are on the disk.

A living task is a hash (the sealed record, its revision, its place in the index), a hash of sealed
picture chunks, a member of the index, and, when it will expire, a tombstone that outlives it. A
script is one transaction, also in the append-only file.

From 7.2 on, WAITAOF waits until the append-only file is on the disk. Older servers, such as
Debian's 7.0, must run with `appendfsync always`, which fsyncs before it replies; that is asked
again with each write, since a server can be replaced or reconfigured behind its address.
"""

import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from enum import Enum
from typing import Any, TypeVar, cast

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from service.stores import sealing
from service.stores.errors import StoreError, StoreUnavailableError
from service.stores.quotas.lua import FUNCTIONS

Result = TypeVar("Result")

WAIT_MS = 5000
_REMEDY = "or add ?durability=none to the URL to accept losing acknowledged tasks."


# KEYS: aside, pictures, task, expired, index, uploaded; held, ending, ends, quotas
# ARGV: record, revision, place, chunks, ttl_ms or "", tombstone, tombstone_ttl_ms, id if uploaded;
#       from 9 on `quotas.lua.values_of`
CREATE = f"""{FUNCTIONS}
if redis.call('EXISTS', KEYS[3], KEYS[4]) > 0 then return 'taken' end
if redis.call('HLEN', KEYS[1]) ~= tonumber(ARGV[4]) then return 'lost' end
local size = size_of(KEYS[1])
local over = full(KEYS[7], KEYS[8], KEYS[9], KEYS[10], size, 9)
if over then return over end
hold(KEYS[7], KEYS[8], KEYS[9], ARGV[9], size, ARGV[11])
redis.call('DEL', KEYS[2])
if tonumber(ARGV[4]) > 0 then
  redis.call('RENAME', KEYS[1], KEYS[2])
  redis.call('PERSIST', KEYS[2])
end
redis.call('HSET', KEYS[3], 'record', ARGV[1], 'revision', ARGV[2], 'place', ARGV[3])
redis.call('ZADD', KEYS[5], 0, ARGV[3])
if ARGV[8] ~= '' then redis.call('SADD', KEYS[6], ARGV[8]) end
if ARGV[5] ~= '' then
  redis.call('PEXPIRE', KEYS[2], ARGV[5])
  redis.call('PEXPIRE', KEYS[3], ARGV[5])
  redis.call('SET', KEYS[4], ARGV[6], 'PX', ARGV[7])
end
return 'done'
"""

# KEYS: pictures, task, expired, supports, aside, uploaded; held, ending, ends, quotas; then
#       what is kept beside a task
# ARGV: expected revision, record, revision, ttl_ms or "", tombstone, tombstone_ttl_ms,
#       chunks aside, "whole" where all old pictures go; from 9 on `quotas.lua.values_of`; then the
#       clips whose pictures go
REPLACE = f"""{FUNCTIONS}
local stored = redis.call('HGET', KEYS[2], 'revision')
if not stored then return 'absent' end
if stored ~= ARGV[1] then return stored end
if redis.call('HLEN', KEYS[5]) ~= tonumber(ARGV[7]) then return 'lost' end
local gone, names, size = {{}}, {{}}, size_of(KEYS[5])
for place = 15, #ARGV do gone[ARGV[place]] = true end
for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
  if ARGV[8] == 'whole' or gone[string.match(name, '^[^/]+')] then
    names[#names + 1] = name
  else
    size = size + redis.call('HSTRLEN', KEYS[1], name)
  end
end
reckon(KEYS[7], KEYS[8], KEYS[9], KEYS[2], KEYS[1], ARGV[9])
local over = full(KEYS[7], KEYS[8], KEYS[9], KEYS[10], size, 9)
if over then return over end
hold(KEYS[7], KEYS[8], KEYS[9], ARGV[9], size, ARGV[11])
if ARGV[8] == 'whole' then
  redis.call('UNLINK', KEYS[1])
  redis.call('SREM', KEYS[6], ARGV[9])
else
  for _, name in ipairs(names) do redis.call('HDEL', KEYS[1], name) end
end
if redis.call('EXISTS', KEYS[1]) == 0 then
  if tonumber(ARGV[7]) > 0 then redis.call('RENAME', KEYS[5], KEYS[1]) end
else
  for _, name in ipairs(redis.call('HKEYS', KEYS[5])) do
    redis.call('HSET', KEYS[1], name, redis.call('HGET', KEYS[5], name))
  end
  redis.call('UNLINK', KEYS[5])
end
redis.call('HSET', KEYS[2], 'record', ARGV[2], 'revision', ARGV[3])
redis.call('UNLINK', KEYS[4])
if ARGV[4] ~= '' then
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
  redis.call('PEXPIRE', KEYS[2], ARGV[4])
  redis.call('SET', KEYS[3], ARGV[5], 'PX', ARGV[6])
  for place = 11, #KEYS do
    if redis.call('PTTL', KEYS[place]) > tonumber(ARGV[4]) then
      redis.call('PEXPIRE', KEYS[place], ARGV[4])
    end
  end
else
  redis.call('PERSIST', KEYS[1])
  redis.call('PERSIST', KEYS[2])
  redis.call('DEL', KEYS[3])
end
return 'done'
"""

# KEYS: pictures, task, expired, supports, index, used, uploaded; held, ending, ends; then what
#       is kept beside a task
# ARGV: the id of the task, expected revision or ""
DELETE = f"""{FUNCTIONS}
if redis.call('EXISTS', KEYS[2]) == 0 then return 'absent' end
local stored = redis.call('HGET', KEYS[2], 'revision')
if ARGV[2] ~= '' and stored ~= ARGV[2] then return stored end
local place = redis.call('HGET', KEYS[2], 'place')
if place then redis.call('ZREM', KEYS[5], place) end
redis.call('ZREM', KEYS[6], ARGV[1])
redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
redis.call('UNLINK', KEYS[1])
redis.call('SREM', KEYS[7], ARGV[1])
let_go(KEYS[8], KEYS[9], KEYS[10], ARGV[1])
for place = 11, #KEYS do redis.call('UNLINK', KEYS[place]) end
return 'done'
"""

# KEYS: task, index; and its place there as ARGV
PRUNE = """
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('ZREM', KEYS[2], ARGV[1]) end
return 'done'
"""


# KEYS: uploaded, and what stands before the id in the key of a task
UPLOADED = """
local alive = {}
for _, id in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  if redis.call('EXISTS', KEYS[2] .. id) == 1 then
    table.insert(alive, id)
  else
    redis.call('SREM', KEYS[1], id)
  end
end
return alive
"""


ASIDE_S = 900  # a commit that comes later finds its pictures gone, and says so


class Durability(Enum):
    """How a store learns that a write is on the disk."""

    NONE = "none"
    WAITAOF = "waitaof"
    ALWAYS = "always"

    def ask(self, pipeline: Pipeline) -> None:
        """Add, behind the writes, the command whose reply tells."""
        if self is Durability.WAITAOF:
            pipeline.execute_command("WAITAOF", 1, 0, WAIT_MS)
        elif self is Durability.ALWAYS:
            pipeline.config_get("append*")

    def check(self, replies: Sequence[Any]) -> None:
        """Return when the reply to `ask` promises safety.

        Raises:
            StoreUnavailableError: it does not; the write may be there and may get lost.
        """
        if self is Durability.WAITAOF and replies[-1][0] < 1:
            raise StoreUnavailableError(
                f"Redis did not bring the task to its disk within {WAIT_MS} ms; try again later."
            )
        if self is Durability.ALWAYS and not _always(replies[-1]):
            raise StoreUnavailableError(
                "Redis no longer runs with appendonly yes and appendfsync always; set both again."
            )


class Commits:
    """Runs scripts, each together with what tells that its writes are on the disk."""

    def __init__(self, client: Redis, durability: Durability) -> None:
        self.client = client
        self.durability = durability

    async def run(self, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> bytes:
        """Run a script and return its status once it is safe."""
        # One pipeline is one connection: the confirmation counts the writes of its own alone.
        pipeline = self.client.pipeline(transaction=False)
        pipeline.eval(script, len(keys), *keys, *arguments)
        self.durability.ask(pipeline)
        status, *confirmation = await pipeline.execute()
        self.durability.check(confirmation)
        return cast("bytes", status)

    @asynccontextmanager
    async def aside(self, key: str, chunks: Mapping[str, bytes]) -> AsyncIterator[None]:
        """Bring pictures aside, for a commit that takes them; what it leaves there is dropped."""
        try:
            for batch in sealing.batches(chunks):
                pipeline = self.client.pipeline(transaction=True)
                pipeline.hset(key, items=[part for chunk in batch.items() for part in chunk])
                pipeline.expire(key, ASIDE_S)
                await pipeline.execute()
            yield
        except (RedisError, StoreError, ValueError):
            with suppress(RedisError):  # else its time to live removes it
                await self.client.unlink(key)
            raise


async def durability_of(client: "Redis") -> Durability:
    """Find how this server makes writes durable.

    Raises:
        StoreUnavailableError: it does not, or may evict tasks; the message says what to set.
    """
    server: Mapping[str, Any] = await client.info()
    if int(server.get("aof_enabled", 0)) != 1:
        raise StoreUnavailableError(
            f"Redis keeps no append-only file; start it with --appendonly yes, {_REMEDY}"
        )
    policy = str(server.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction":  # also without maxmemory, which may be set at any time
        raise StoreUnavailableError(
            f"Redis may evict tasks (maxmemory-policy {policy}); start it with --maxmemory-policy "
            f"noeviction, or CONFIG SET maxmemory-policy noeviction, {_REMEDY}"
        )
    config = await _append_settings(client)
    if _version(server) >= (7, 2):
        if config is not None and config.get("appendfsync") == "no":
            raise StoreUnavailableError(
                f"Redis never fsyncs its append-only file; set appendfsync everysec, {_REMEDY}"
            )
        return Durability.WAITAOF
    if config is None:
        raise StoreUnavailableError(
            "Redis before 7.2 has to show appendfsync always and CONFIG GET is refused; allow "
            f"that command, use Redis 7.2 or later, {_REMEDY}"
        )
    if not _always(config):
        raise StoreUnavailableError(
            f"Redis before 7.2 runs with appendfsync {config.get('appendfsync')}; set it to always,"
            f" use Redis 7.2 or later, {_REMEDY}"
        )
    return Durability.ALWAYS


async def _append_settings(client: "Redis") -> dict[str, str] | None:
    try:
        return _texts(await client.config_get("append*"))
    except (NoPermissionError, ResponseError):  # managed servers hide CONFIG
        return None


def _always(config: Mapping[Any, Any]) -> bool:
    settings = _texts(config)
    return settings.get("appendonly") == "yes" and settings.get("appendfsync") == "always"


def _texts(config: Mapping[Any, Any]) -> dict[str, str]:
    def text(value: object) -> str:
        return value.decode() if isinstance(value, bytes) else str(value)

    return {text(key): text(value) for key, value in config.items()}


def _version(server: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", str(server.get("redis_version", "0"))))


async def retried(read: Callable[[], Awaitable[Result]]) -> Result:
    """Read again, once, when the connection turns out to be gone."""
    try:
        return await read()
    except RedisConnectionError:
        return await read()


def milliseconds(seconds: float) -> int:
    """Return a time to live as Redis takes it: whole, and at least 1."""
    return max(1, math.ceil(seconds * 1000))
