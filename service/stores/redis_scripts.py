"""What must happen in Redis in one step: scripts, which Redis runs and logs as one transaction.

A living task is a hash (the sealed record, its revision, its place in the index), a hash of sealed
picture chunks, a member of the index, and, when it will expire, a tombstone that outlives it.
"""

# KEYS: aside, pictures, task, expired, index
# ARGV: record, revision, place, chunks, ttl_ms or "", tombstone, tombstone_ttl_ms
CREATE = """
if redis.call('EXISTS', KEYS[3], KEYS[4]) > 0 then return 'taken' end
if redis.call('HLEN', KEYS[1]) ~= tonumber(ARGV[4]) then return 'lost' end
redis.call('DEL', KEYS[2])
if tonumber(ARGV[4]) > 0 then
  redis.call('RENAME', KEYS[1], KEYS[2])
  redis.call('PERSIST', KEYS[2])
end
redis.call('HSET', KEYS[3], 'record', ARGV[1], 'revision', ARGV[2], 'place', ARGV[3])
redis.call('ZADD', KEYS[5], 0, ARGV[3])
if ARGV[5] ~= '' then
  redis.call('PEXPIRE', KEYS[2], ARGV[5])
  redis.call('PEXPIRE', KEYS[3], ARGV[5])
  redis.call('SET', KEYS[4], ARGV[6], 'PX', ARGV[7])
end
return 'done'
"""

# KEYS: pictures, task, expired
# ARGV: expected revision, record, revision, ttl_ms or "", tombstone, tombstone_ttl_ms
REPLACE = """
local stored = redis.call('HGET', KEYS[2], 'revision')
if not stored then return 'absent' end
if stored ~= ARGV[1] then return stored end
redis.call('HSET', KEYS[2], 'record', ARGV[2], 'revision', ARGV[3])
if ARGV[4] ~= '' then
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
  redis.call('PEXPIRE', KEYS[2], ARGV[4])
  redis.call('SET', KEYS[3], ARGV[5], 'PX', ARGV[6])
else
  redis.call('PERSIST', KEYS[1])
  redis.call('PERSIST', KEYS[2])
  redis.call('DEL', KEYS[3])
end
return 'done'
"""

# KEYS: pictures, task, expired, index
DELETE = """
if redis.call('EXISTS', KEYS[2]) == 0 then return 'absent' end
local place = redis.call('HGET', KEYS[2], 'place')
if place then redis.call('ZREM', KEYS[4], place) end
redis.call('DEL', KEYS[2], KEYS[3])
redis.call('UNLINK', KEYS[1])
return 'done'
"""

# KEYS: task, index; and its place there as ARGV
PRUNE = """
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('ZREM', KEYS[2], ARGV[1]) end
return 'done'
"""
