"""Requests that may be sent again, in Redis.

Keys, under the store's prefix, with a time to live:

once:<name>   hash: fingerprint, seed, done      once-held:<name>  who does it now
answers:<id>  hash: sealed answers, by name

Redis writes its append-only file in order, so a reservation is on the disk with the task after it.
"""

import asyncio
import secrets
from collections.abc import Sequence
from typing import Any, cast

from redis.asyncio import Redis

from model.errors import KshotError
from service.background import spawn
from service.stores.inboxes.redis import Run
from service.stores.once import kept
from service.stores.once.kept import Standing
from service.stores.redis_commit import milliseconds, retried

LEASE_S = 12.0  # after which somebody who is gone holds nothing
RENEW_S = 3.0

# KEYS: once, held
# ARGV: fingerprint, seed, keep_ms, holder, lease_ms
BEGIN = """
local found = redis.call('HMGET', KEYS[1], 'fingerprint', 'seed', 'done')
if found[1] and found[1] ~= ARGV[1] then return {'other', found[2]} end
if found[3] then return {'done', found[2]} end
if not redis.call('SET', KEYS[2], ARGV[4], 'NX', 'PX', ARGV[5]) then
  return {'held', found[2] or ARGV[2]}
end
if found[1] then return {'again', found[2]} end
redis.call('HSET', KEYS[1], 'fingerprint', ARGV[1], 'seed', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {'new', ARGV[2]}
"""

# KEYS: once, held, answers, task
# ARGV: holder, name, answer, keep_ms
FINISH = """
if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[2]) end
if redis.call('EXISTS', KEYS[1]) == 0 then return 'late' end
redis.call('HSET', KEYS[1], 'done', 1)
redis.call('PEXPIRE', KEYS[1], ARGV[4])
local left, keep = redis.call('PTTL', KEYS[4]), tonumber(ARGV[4])
if left == -2 then return 'gone' end
if left < 0 or left > keep then left = keep end
redis.call('HSET', KEYS[3], ARGV[2], ARGV[3])
redis.call('PEXPIRE', KEYS[3], left)
return 'kept'
"""

# KEYS: once, held
# ARGV: holder, whether to forget
LEAVE = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 'lost' end
redis.call('DEL', KEYS[2])
if ARGV[2] == '1' and not redis.call('HGET', KEYS[1], 'done') then redis.call('DEL', KEYS[1]) end
return 'left'
"""

# KEYS: that which is held
# ARGV: holder, lease_ms
RENEW = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'lost' end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 'held'
"""


class RedisOnce:
    """A `OnceStore` in Redis, for any number of replicas.

    Args:
        client: The connections.
        prefix: Of all keys.
        run: Runs each operation.
    """

    def __init__(self, client: Redis, prefix: str, run: Run) -> None:
        self._client = client
        self._prefix = prefix
        self._run = run
        self._holder = secrets.token_hex(8)
        self._renewing: dict[str, asyncio.Task[None]] = {}

    async def begin(self, name: str, fingerprint: str, seed: str, *, keep_s: float) -> Standing:
        """Reserve a request, or say how it stands."""
        values = [fingerprint, seed, milliseconds(keep_s), self._holder, milliseconds(LEASE_S)]
        state, stored = cast("list[bytes]", await self._eval(BEGIN, self._keys(name), values))
        standing = Standing(state.decode(), stored.decode())  # type: ignore[arg-type]
        if standing.mine:
            self._stop_renewing(name)
            self._renewing[name] = spawn(self._renew(name))
        return standing

    async def finish(self, name: str, task_id: str, answer: bytes, *, keep_s: float) -> None:
        """Keep an answer."""
        self._stop_renewing(name)
        beside = [f"{self._prefix}:answers:{task_id}", f"{self._prefix}:task:{task_id}"]
        sealed = kept.seal_answer(name, task_id, answer)
        values = [self._holder, name, sealed, milliseconds(keep_s)]
        await self._eval(FINISH, [*self._keys(name), *beside], values)

    async def leave(self, name: str, *, forget: bool) -> None:
        """End a reservation."""
        self._stop_renewing(name)
        await self._eval(LEAVE, self._keys(name), [self._holder, int(forget)])

    async def answer(self, name: str, task_id: str) -> bytes | None:
        """Return an answer that is there."""
        key = f"{self._prefix}:answers:{task_id}"

        async def read() -> bytes | None:
            return cast("bytes | None", await self._client.hget(key, name))

        found = await self._run(retried(read))
        return None if found is None else kept.read_answer(name, task_id, found)

    def close(self) -> None:
        """Renew nothing any more."""
        for name in [*self._renewing]:
            self._stop_renewing(name)

    async def _renew(self, name: str) -> None:
        held = self._keys(name)[1:]
        while True:
            await asyncio.sleep(RENEW_S)
            try:
                values = [self._holder, milliseconds(LEASE_S)]
                if await self._eval(RENEW, held, values) == b"lost":
                    return
            except KshotError:
                continue  # Redis is away; the next time may still be early enough

    def _stop_renewing(self, name: str) -> None:
        if (renewing := self._renewing.pop(name, None)) is not None:
            renewing.cancel()

    async def _eval(self, script: str, keys: list[str], values: Sequence[Any]) -> object:
        async def evaluated() -> object:
            return cast("object", await self._client.eval(script, len(keys), *keys, *values))

        return await self._run(evaluated())

    def _keys(self, name: str) -> list[str]:
        return [f"{self._prefix}:{kind}:{name}" for kind in ("once", "once-held")]
