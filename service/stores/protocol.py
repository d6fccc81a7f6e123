"""What the service may ask of any task store, and how the stores keep cancelled requests whole."""

import asyncio
from collections.abc import Collection, Coroutine, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from service.background import spawn
from service.stores.inboxes.kept import InboxStore
from service.stores.once.kept import OnceStore
from service.stores.quotas.kept import Quotas, QuotaStore
from service.stores.records import TaskRecord

Result = TypeVar("Result")
# What a store is asked, to be timed and traced; tests hold it to the protocol.
OPS = (
    *("create", "get", "pictures", "replace", "uploaded", "delete", "list"),
    *("get_text", "put_text", "get_supports", "put_supports", "note_uses", "recent", "ping"),
    *("keyed", "ids", "limited"),
)
Pictures = Mapping[str, tuple[bytes, ...]]  # by clip id


class TaskStore(Protocol):
    """Keeps tasks, their pictures, and caches of what is derived: texts and encoded supports.

    Every method may raise `StoreUnavailableError`; every read may raise `StoreCorruptError`. A
    write that was cancelled or not acknowledged happened whole or not at all.
    """

    @property
    def inbox(self) -> InboxStore:
        """Queries that tasks remember; they go with their task."""
        ...

    @property
    def once(self) -> OnceStore:
        """Requests that their clients may send again, and the first answers to them."""
        ...

    @property
    def quotas(self) -> QuotaStore:
        """What tenants may use, and have used."""
        ...

    async def create(
        self, record: TaskRecord, pictures: Pictures, usual: Quotas | None = None
    ) -> None:
        """Keep a new task; when this returns, it survives the machine's loss of power.

        Args:
            record: The task.
            pictures: For each of its clips, by id, the sampled frames as encoded pictures; the
                parts of its upload where the task is `uploaded`.
            usual: Limits of tenants that have none of their own; None asks for no limit.

        Raises:
            RevisionConflictError: the id is in use.
            QuotaFullError: its tenant has no room for it.
        """
        ...

    async def get(self, task_id: str) -> TaskRecord:
        """Return a task.

        Raises:
            TaskNotFoundError: never made, deleted, or expired more than a day ago.
            TaskExpiredError: expired less than a day ago.
        """
        ...

    async def pictures(
        self, task_id: str, clip_ids: Collection[str] | None = None
    ) -> dict[str, tuple[bytes, ...]]:
        """Return the pictures of a task, byte for byte; raises what `get` raises.

        Args:
            task_id: The task.
            clip_ids: Those that are wanted; what is no clip of the task any more is left out. None
                wants all that the task has now.
        """
        ...

    async def replace(
        self,
        record: TaskRecord,
        *,
        expected_revision: int,
        pictures: Pictures | None = None,
        usual: Quotas | None = None,
    ) -> None:
        """Put a new revision in the place of `expected_revision`; durable when it returns.

        Args:
            record: The new revision.
            expected_revision: Of the stored record.
            pictures: Of the clips that the stored record lacks; those of clips that it alone has
                go. Of an uploaded task that has been decoded, all: they take the uploads' place.
            usual: As `create`.

        Raises:
            QuotaFullError: the task grows, and its tenant has no room for that.
            RevisionConflictError: somebody else was faster; its `stored` is the revision there.
            TaskNotFoundError, TaskExpiredError: as `get`.
        """
        ...

    async def uploaded(self) -> Sequence[str]:
        """Return the ids of the tasks that are `uploaded`; some may have gone meanwhile."""
        ...

    async def delete(self, task_id: str, *, expected_revision: int | None = None) -> bool:
        """Remove a task and its pictures for good; False when there was none alive.

        Raises:
            RevisionConflictError: the task is at another revision than the expected one.
        """
        ...

    async def list(
        self, *, limit: int, cursor: str | None, owner: str = ""
    ) -> tuple[list[TaskRecord], str | None]:
        """Return a page of a tenant's living tasks, newest first, and the next page's cursor.

        Tasks made meanwhile do not move the pages behind a cursor. A damaged task is left out.

        Raises:
            CursorError: a cursor that no store gave out.
        """
        ...

    async def get_text(self, key: str) -> bytes | None:
        """Return a cached value; None when there is none, it expired or it is damaged."""
        ...

    async def put_text(self, key: str, value: bytes, *, ttl_s: float) -> None:
        """Cache a value for `ttl_s` seconds; a cache may forget earlier."""
        ...

    async def get_supports(self, task_id: str, name: str) -> bytes | None:
        """Return the encoded supports of a task that were kept under a name.

        None when none were, when others took their place, or when they are damaged.
        """
        ...

    async def put_supports(self, record: TaskRecord, name: str, value: bytes) -> None:
        """Keep a task's encoded supports in the place of others, as long as the task stands so.

        Nothing is kept for a task that is gone or at another revision. A cache may forget earlier.

        Args:
            record: The task.
            name: What they depend on beside the task; ASCII without white space, 200 at most.
            value: The supports.
        """
        ...

    async def note_uses(self, used: Mapping[str, float]) -> None:
        """Keep when tasks were used last, unix time by id; ids of no task are left out."""
        ...

    async def recent(self, limit: int) -> Sequence[str]:
        """Return the ids of tasks, the one that was used last first; without use, none."""
        ...

    async def ids(self) -> Sequence[str]:
        """Return the ids of all tenants' tasks, newest first; some may have gone meanwhile."""
        ...

    async def keyed(self) -> bool:
        """Tell whether an API key was ever made for this store."""
        ...

    async def limited(self) -> bool:
        """Tell whether a tenant has quotas of its own."""
        ...

    async def ping(self) -> None:
        """Return when the store answers."""
        ...

    async def close(self) -> None:
        """Let running operations end, then let go of files and connections."""
        ...


class Shield:
    """Runs operations to their end, also when the request that asked for them is cancelled.

    A cancelled Redis command would leave its reply on the connection for the next caller
    (redis-py issues 2624 and 2665), and a cancelled SQLite operation goes on in its thread anyway.
    """

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    async def run(self, operation: Coroutine[Any, Any, Result]) -> Result:
        """Return the operation's result; when cancelled, leave it to finish by itself."""
        return await asyncio.shield(self.start(operation))

    def start(self, operation: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        """Run an operation without waiting for it."""
        task = spawn(operation)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def drain(self) -> None:
        """Wait until every operation has ended."""
        while self._running:
            await asyncio.wait(self._running)
