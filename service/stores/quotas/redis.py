"""What tenants use, in Redis, for any number of replicas.

Keys, under the store's prefix:

    quotas           hash: the most of a kind, by `<tenant>:<kind>`
    held:<tenant>    hash: bytes by id of task that does not end, and their sum as `:bytes`
    ending:<tenant>  hash: the same of tasks that end; lives as long as the last of them
    ends:<tenant>    sorted set: their ids, by unix time in milliseconds; lives as long
    rates:<tenant>   hash: what was charged in the minute that runs, and its name; lives that minute
    reckoned-apart   there once tasks from before all this are counted

Rates stay out of the append-only file and of replicas: a minute is not worth a wait for the disk
with each request, and begins anew where Redis does.
"""

import re
import secrets
from collections.abc import Iterable
from typing import Any, cast

from redis.asyncio import Redis

from service.stores import records
from service.stores.inboxes.redis import Run
from service.stores.quotas import lua
from service.stores.quotas.kept import KINDS, WINDOW_S, Amounts, Quotas, Standing, tenant_of
from service.stores.redis_commit import milliseconds

PAGE = 500  # tasks that are reckoned at once

# A Redis at its `maxmemory` refuses a script's first write if it takes memory; this one takes none,
# and what follows is let through (EVAL in Redis' documentation), so that quotas still hold then.
EVEN_IF_FULL = "redis.call('HDEL', KEYS[1], '')"

# KEYS: rates, then those of `lua.keys_of`
# ARGV: tenant, name of a new minute, its ms; what is asked for; usual limits
CHARGE = f"""{lua.FUNCTIONS}
while let_ended_go(KEYS[2], KEYS[3], KEYS[4]) do end
local tasks, bytes = in_all(KEYS[2], KEYS[3])
local found = redis.call('HMGET', KEYS[1], 'clip_ms', 'frames', 'window')
local used = {{tasks, bytes, tonumber(found[1] or 0), tonumber(found[2] or 0)}}
local answer, granted = {{}}, 1
for place, kind in ipairs({{'tasks', 'bytes', 'clip_ms', 'frames'}}) do
  local asked, most = tonumber(ARGV[3 + place]), most_of(KEYS[5], ARGV[1], kind, ARGV[7 + place])
  if asked > 0 and most >= 0 and used[place] + asked > most then granted = 0 end
  answer[place] = most
end
local window = found[3]
redis.set_repl(redis.REPL_NONE)
{EVEN_IF_FULL}
if granted == 1 and (ARGV[6] ~= '0' or ARGV[7] ~= '0') then
  used[3] = redis.call('HINCRBY', KEYS[1], 'clip_ms', ARGV[6])
  used[4] = redis.call('HINCRBY', KEYS[1], 'frames', ARGV[7])
  if not window then
    window = ARGV[2]
    redis.call('HSET', KEYS[1], 'window', window)
    redis.call('PEXPIRE', KEYS[1], ARGV[3])
  end
end
for place = 1, 4 do answer[4 + place] = used[place] end
answer[9], answer[10], answer[11] = granted, redis.call('PTTL', KEYS[1]), window or ''
return answer
"""

# KEYS: the rates
# ARGV: name of a minute, clip_ms, frames
GIVE_BACK = f"""
redis.set_repl(redis.REPL_NONE)
{EVEN_IF_FULL}
if redis.call('HGET', KEYS[1], 'window') == ARGV[1] then
  redis.call('HINCRBY', KEYS[1], 'clip_ms', 0 - ARGV[2])
  redis.call('HINCRBY', KEYS[1], 'frames', 0 - ARGV[3])
end
return 'done'
"""

# KEYS: task, pictures, held, ending, ends; and the id as ARGV
RECKON = f"""{lua.FUNCTIONS}
if redis.call('EXISTS', KEYS[1]) == 1 then
  reckon(KEYS[3], KEYS[4], KEYS[5], KEYS[1], KEYS[2], ARGV[1])
else
  let_go(KEYS[3], KEYS[4], KEYS[5], ARGV[1])
end
return 'done'
"""


async def count_all(client: Redis, prefix: str) -> None:
    """Count tasks that no commit has counted, and no more those that are gone, page by page.

    An older version makes and deletes tasks uncounted, while it is replaced one by one too.
    """
    begin, index = "-", f"{prefix}:index"
    while found := await client.zrangebylex(index, begin, "+", start=0, num=PAGE):
        places = [place.decode() for place in cast("list[bytes]", found)]
        await _reckon(client, prefix, map(records.task_at, places))
        begin = f"({places[-1]}"
    for kind in ("held", "ending"):
        async for sizes in client.scan_iter(match=_literal(f"{prefix}:{kind}:") + "*", count=PAGE):
            ids = [name.decode() for name in cast("list[bytes]", await client.hkeys(sizes))]
            for first in range(0, len(ids), PAGE):
                await _reckon(client, prefix, filter(records.is_id, ids[first : first + PAGE]))


async def _reckon(client: Redis, prefix: str, task_ids: Iterable[str]) -> None:
    pipeline = client.pipeline(transaction=False)
    for task_id in task_ids:
        keys = [f"{prefix}:{kind}:{task_id}" for kind in ("task", "pictures")]
        keys += lua.keys_for(prefix, task_id)[:3]
        pipeline.eval(RECKON, len(keys), *keys, task_id)
    await pipeline.execute()


def _literal(text: str) -> str:
    """Escape what a pattern of Redis would read as more than itself."""
    return re.sub(r"([][*?\\^-])", r"\\\1", text)


class RedisQuotas:
    """A `QuotaStore` in Redis.

    Args:
        client: The connections.
        prefix: Of all keys.
        run: Runs each operation.
        window_s: How long a minute is.
    """

    def __init__(self, client: Redis, prefix: str, run: Run, window_s: float = WINDOW_S) -> None:
        self._client = client
        self._prefix = prefix
        self._run = run
        self.window_s = window_s

    async def charge(self, owner: str, asked: Amounts, usual: Quotas) -> Standing:
        """Charge a tenant, in one script."""
        keys = [self._rates(owner), *lua.keys_of(self._prefix, owner)]
        minute = [secrets.token_hex(8), milliseconds(self.window_s)]
        values: list[Any] = [tenant_of(owner), *minute, *asked.values, *lua.usual_of(usual)]

        async def charge() -> list[Any]:
            return cast("list[Any]", await self._client.eval(CHARGE, len(keys), *keys, *values))

        *numbers, granted, left_ms, window = await self._run(charge())
        most = {kind: None if n < 0 else n for kind, n in zip(KINDS, numbers[:4], strict=True)}
        used = dict(zip(KINDS, numbers[4:], strict=True))
        left_s = max(0, left_ms) / 1e3
        return Standing(Quotas(**most), Amounts(**used), window.decode(), left_s, granted == 1)

    async def give_back(self, owner: str, rates: Amounts, window: str) -> None:
        """Return what was charged."""

        async def give() -> None:
            values = [window, str(rates.clip_ms), str(rates.frames)]
            await self._client.eval(GIVE_BACK, 1, self._rates(owner), *values)

        await self._run(give())

    async def reckon(self) -> None:
        """Count tasks from before this was counted; once."""

        async def reckon() -> None:
            done = f"{self._prefix}:reckoned-apart"
            if not await self._client.exists(done):
                await count_all(self._client, self._prefix)
                await self._client.set(done, 1)

        await self._run(reckon())

    def _rates(self, owner: str) -> str:
        return f"{self._prefix}:rates:{tenant_of(owner)}"
