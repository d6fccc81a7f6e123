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
-- what ends goes by itself with the last of it, also of a tenant that never comes back
local function live_as_long(ending, ends)
  local last = redis.call('ZRANGE', ends, -1, -1, 'WITHSCORES')[2]
  if not last then return end
  redis.call('PEXPIREAT', ending, last)
  redis.call('PEXPIREAT', ends, last)
end
local function drop(held, ending, ends, id)
  redis.call('ZREM', ends, id)
  for _, sizes in ipairs({held, ending}) do
    local size = redis.call('HGET', sizes, id)
    if size then
      redis.call('HDEL', sizes, id)
      redis.call('HINCRBY', sizes, ':bytes', 0 - size)
      if redis.call('HLEN', sizes) == 1 then redis.call('DEL', sizes) end
    end
  end
end
local function let_go(held, ending, ends, id)
  drop(held, ending, ends, id)
  live_as_long(ending, ends)
end
-- at most 100, so that each commit takes a part of the work; returns whether there may be more
local function let_ended_go(held, ending, ends)
  local ended = redis.call('ZRANGEBYSCORE', ends, '-inf', now_ms(), 'LIMIT', 0, 100)
  for _, id in ipairs(ended) do drop(held, ending, ends, id) end
  return #ended == 100
end
local function in_all(held, ending)
  local tasks, bytes = 0, 0
  for _, sizes in ipairs({held, ending}) do
    local sum = redis.call('HGET', sizes, ':bytes')
    if sum then tasks, bytes = tasks + redis.call('HLEN', sizes) - 1, bytes + tonumber(sum) end
  end
  return tasks, bytes
end
local function size_held(held, ending, id)
  return redis.call('HGET', held, id) or redis.call('HGET', ending, id)
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
local function hold(held, ending, ends, id, size, till)
  let_ended_go(held, ending, ends)
  drop(held, ending, ends, id)
  local sizes = till == '' and held or ending
  redis.call('HSET', sizes, id, size)
  redis.call('HINCRBY', sizes, ':bytes', size)
  if till ~= '' then redis.call('ZADD', ends, till, id) end
  live_as_long(ending, ends)
end
-- counts a task that no commit has counted, or not among those that end
local function reckon(held, ending, ends, task, pictures, id)
  local left, till = redis.call('PTTL', task), ''
  if left > 0 then till = now_ms() + left end
  if redis.call('HEXISTS', till == '' and held or ending, id) == 1 then return end
  hold(held, ending, ends, id, size_of(pictures), till)
end
-- what a task that would take `size` bytes has no room for; at: place in ARGV of `values_of`
local function full(held, ending, ends, quotas, size, at)
  if ARGV[at + 3] ~= '1' then return nil end
  while let_ended_go(held, ending, ends) do end
  local tasks, bytes = in_all(held, ending)
  local before = size_held(held, ending, ARGV[at])
  local most = most_of(quotas, ARGV[at + 1], 'tasks', ARGV[at + 4])
  if not before and most >= 0 and tasks + 1 > most then return 'full tasks ' .. most end
  local more = size - tonumber(before or 0)
  most = most_of(quotas, ARGV[at + 1], 'bytes', ARGV[at + 5])
  if more > 0 and most >= 0 and bytes + more > most then return 'full bytes ' .. most end
  return nil
end
"""


def keys_of(prefix: str, owner: str) -> list[str]:
    """Return the keys of what a tenant holds, endless and ending, of when, and of all limits."""
    counts = [f"{prefix}:{kind}:{tenant_of(owner)}" for kind in ("held", "ending", "ends")]
    return [*counts, f"{prefix}:quotas"]


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
