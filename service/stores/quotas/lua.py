"""How scripts in Redis count what tenants hold: functions, and the keys and values that they take.

Scripts that commit tasks begin with `FUNCTIONS`, so that a task and its count change in one step.
`quotas.redis` has the keys.
"""

from typing import Any

from service.stores.errors import quota_full
from service.stores.quotas.kept import Quotas, tenant_of
from service.stores.records import TaskRecord, owner_of

FUNCTIONS = """
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
-- a tenant that never comes back lets nothing go: both keys live as long as the last of its tasks
local function live_as_long(held, ends)
  if redis.call('HLEN', held) - 1 > redis.call('ZCARD', ends) then
    redis.call('PERSIST', held)
    redis.call('PERSIST', ends)
    return
  end
  local last = redis.call('ZRANGE', ends, -1, -1, 'WITHSCORES')[2]
  redis.call('PEXPIREAT', held, last)
  redis.call('PEXPIREAT', ends, last)
end
local function drop(held, ends, id)
  redis.call('ZREM', ends, id)
  local size = redis.call('HGET', held, id)
  if not size then return end
  redis.call('HDEL', held, id)
  redis.call('HINCRBY', held, ':bytes', 0 - size)
  if redis.call('HLEN', held) == 1 then redis.call('DEL', held) end
end
local function let_go(held, ends, id)
  drop(held, ends, id)
  if redis.call('EXISTS', held) == 1 then live_as_long(held, ends) end
end
-- at most 100, so that each commit takes a part of the work; returns whether there may be more
local function let_ended_go(held, ends)
  local ended = redis.call('ZRANGEBYSCORE', ends, '-inf', now_ms(), 'LIMIT', 0, 100)
  for _, id in ipairs(ended) do drop(held, ends, id) end
  return #ended == 100
end
local function in_all(held)
  local bytes = redis.call('HGET', held, ':bytes')
  if not bytes then return 0, 0 end
  return redis.call('HLEN', held) - 1, tonumber(bytes)
end
local function most_of(quotas, tenant, kind, usual)
  return tonumber(redis.call('HGET', quotas, tenant .. ':' .. kind) or usual)
end
local function size_of(pictures)
  local size = 0
  for _, name in ipairs(redis.call('HKEYS', pictures)) do
    size = size + redis.call('HSTRLEN', pictures, name)
  end
  return size
end
local function hold(held, ends, id, size, till)
  let_ended_go(held, ends)
  drop(held, ends, id)
  redis.call('HSET', held, id, size)
  redis.call('HINCRBY', held, ':bytes', size)
  if till ~= '' then redis.call('ZADD', ends, till, id) end
  live_as_long(held, ends)
end
-- counts a task that no commit has counted
local function reckon(held, ends, task, pictures, id)
  if redis.call('HEXISTS', held, id) == 1 then return end
  local left, till = redis.call('PTTL', task), ''
  if left > 0 then till = now_ms() + left end
  hold(held, ends, id, size_of(pictures), till)
end
-- what a task that would take `size` bytes has no room for; at: place in ARGV of `values_of`
local function full(held, ends, quotas, size, at)
  if ARGV[at + 3] ~= '1' then return nil end
  while let_ended_go(held, ends) do end
  local tasks, bytes = in_all(held)
  local before = redis.call('HGET', held, ARGV[at])
  local most = most_of(quotas, ARGV[at + 1], 'tasks', ARGV[at + 4])
  if not before and most >= 0 and tasks + 1 > most then return 'full tasks ' .. most end
  local more = size - tonumber(before or 0)
  most = most_of(quotas, ARGV[at + 1], 'bytes', ARGV[at + 5])
  if more > 0 and most >= 0 and bytes + more > most then return 'full bytes ' .. most end
  return nil
end
"""


def keys_of(prefix: str, owner: str) -> list[str]:
    """Return the keys of what a tenant holds, of when that ends, and of all limits."""
    tenant = tenant_of(owner)
    return [f"{prefix}:held:{tenant}", f"{prefix}:ends:{tenant}", f"{prefix}:quotas"]


def keys_for(prefix: str, task_id: str) -> list[str]:
    """Return the same for the tenant of a task."""
    return keys_of(prefix, owner_of(task_id))


def values_of(record: TaskRecord, usual: Quotas | None) -> list[Any]:
    """Return what a commit says of a task: id, tenant, end, whether limits hold, and the usual."""
    limits = usual_of(usual or Quotas())[:2]
    tenant, asked = tenant_of(owner_of(record.task_id)), int(usual is not None)
    return [record.task_id, tenant, end_of(record), asked, *limits]


def usual_of(usual: Quotas) -> list[int]:
    """Return limits as scripts take them, in the order of `KINDS`."""
    return [-1 if most is None else most for most in usual.values]


def end_of(record: TaskRecord) -> int | str:
    """Return when a task ends, unix time in milliseconds; empty where it does not."""
    return "" if record.expires_at is None else round(1e3 * record.expires_at)


def check_room(status: bytes) -> None:
    """Return unless a script found no room.

    Raises:
        QuotaFullError: It found none.
    """
    said, *rest = status.split()
    if said == b"full":
        raise quota_full(rest[0].decode(), int(rest[1]))
