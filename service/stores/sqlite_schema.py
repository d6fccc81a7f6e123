"""The tables of the embedded store."""

APPLICATION_ID = 0x6B73686F  # "ksho": tells our files from other SQLite databases
SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE tasks (task_id TEXT PRIMARY KEY, place TEXT NOT NULL, expires_at REAL, record BLOB);
CREATE INDEX tasks_by_place ON tasks (place);
CREATE INDEX tasks_by_expiry ON tasks (expires_at) WHERE expires_at IS NOT NULL;
CREATE TABLE pictures (task_id TEXT, clip_id TEXT, packed BLOB, PRIMARY KEY (task_id, clip_id));
CREATE TABLE tombstones (task_id TEXT PRIMARY KEY, expired_at REAL NOT NULL);
CREATE TABLE texts (name TEXT PRIMARY KEY, expires_at REAL NOT NULL, value BLOB);
CREATE INDEX texts_by_expiry ON texts (expires_at);
"""
NO_TASK = "WHERE task_id NOT IN (SELECT task_id FROM tasks)"
TABLES = {"tasks", "pictures", "tombstones", "texts"}
# Since 2026-11-28; older versions leave these tables alone. `uploaded`: whose pictures are uploads
# still. `inbox`: queries that tasks remember. `once`: requests that may be sent again, and
# `answers` what they were answered. `quotas`: the most of a kind that a tenant may use, and `held`
# the tasks that it has. The others: what is derived, and can be lost.
LATER = f"""
CREATE TABLE IF NOT EXISTS uploaded (task_id TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS keys (key_id TEXT PRIMARY KEY, record);
CREATE TABLE IF NOT EXISTS supports (task_id TEXT PRIMARY KEY, name TEXT, value BLOB);
CREATE TABLE IF NOT EXISTS uses (task_id TEXT PRIMARY KEY, used_at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS inbox (task_id, query_id, at REAL, until REAL, size, about, packed,
  PRIMARY KEY (task_id, query_id));
CREATE TABLE IF NOT EXISTS once (name TEXT PRIMARY KEY, until REAL, fingerprint, seed, done);
CREATE TABLE IF NOT EXISTS quotas (tenant, kind, most, PRIMARY KEY (tenant, kind));
CREATE TABLE IF NOT EXISTS held (task_id TEXT PRIMARY KEY, owner, expires_at REAL, bytes);
CREATE INDEX IF NOT EXISTS held_by_owner ON held (owner, expires_at, bytes);
CREATE TABLE IF NOT EXISTS answers (task_id, name, until REAL, value, PRIMARY KEY (task_id, name));
DELETE FROM supports {NO_TASK}; DELETE FROM uses {NO_TASK}; DELETE FROM inbox {NO_TASK};
DELETE FROM answers {NO_TASK}; DELETE FROM held {NO_TASK};
INSERT INTO held SELECT task_id, iif(place LIKE 't/%', substr(place, 3, instr(substr(place, 3), '/')
  - 1), ''), expires_at, (SELECT coalesce(sum(length(packed)), 0) FROM pictures
  WHERE pictures.task_id = tasks.task_id) FROM tasks
  WHERE task_id NOT IN (SELECT task_id FROM held);
"""
