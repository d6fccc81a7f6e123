"""What tenants hold, as rows that change with their tasks, in one transaction."""

from sqlite3 import Connection

from service.stores.errors import quota_full
from service.stores.quotas.kept import Amounts, Quotas, Standing, read_own, tenant_of
from service.stores.records import TaskRecord, owner_of


def quotas_of(db: Connection, owner: str, usual: Quotas) -> Quotas:
    """Return what a tenant may use."""
    query = "SELECT kind, most FROM quotas WHERE tenant = ?"
    return usual.overridden(read_own(db.execute(query, (tenant_of(owner),)).fetchall()))


def held_by(db: Connection, owner: str, now: float) -> Amounts:
    """Return the living tasks of a tenant, and their bytes."""
    query = (
        "SELECT count(*), coalesce(sum(bytes), 0) FROM held"
        " WHERE owner = ? AND (expires_at IS NULL OR expires_at > ?)"
    )
    tasks, size = db.execute(query, (owner, now)).fetchone()
    return Amounts(tasks=tasks, bytes=size)


def hold(db: Connection, record: TaskRecord, usual: Quotas | None, now: float) -> None:
    """Count a task whose pictures have just been written, in their transaction.

    Args:
        db: On which they were written.
        record: The task.
        usual: The limits of tenants that have none of their own; None asks for no limit.
        now: Unix time.

    Raises:
        QuotaFullError: Its tenant has no room for what it grew by; nothing of it is to be kept.
    """
    task_id, owner = record.task_id, owner_of(record.task_id)
    row = db.execute("SELECT bytes FROM held WHERE task_id = ?", (task_id,)).fetchone()
    query = "SELECT coalesce(sum(length(packed)), 0) FROM pictures WHERE task_id = ?"
    (size,) = db.execute(query, (task_id,)).fetchone()
    if usual is not None:
        grown = Amounts(tasks=int(row is None), bytes=max(0, size - (row[0] if row else 0)))
        standing = Standing(quotas_of(db, owner, usual), held_by(db, owner, now))
        if over := standing.over(grown):
            raise quota_full(over[0], standing.quotas.of(over[0]))
    held = (task_id, owner, record.expires_at, size)
    db.execute("INSERT OR REPLACE INTO held VALUES (?, ?, ?, ?)", held)
