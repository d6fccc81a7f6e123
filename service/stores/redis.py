"""The shared store: tasks in one Redis, for any number of service replicas."""

import contextlib
import logging
import time
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar
from urllib.parse import parse_qsl, urlencode

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from service.stores import sealing
from service.stores.errors import StoreUnavailableError, store_full
from service.stores.inboxes.redis import RedisInbox
from service.stores.once.redis import RedisOnce
from service.stores.protocol import Pictures, Shield
from service.stores.quotas.kept import Quotas
from service.stores.quotas.redis import RedisQuotas
from service.stores.records import TaskRecord
from service.stores.redis_cache import RedisCache
from service.stores.redis_commit import Durability, durability_of, retried
from service.stores.redis_tasks import RedisTasks

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

CONNECT_S = 3.0
REPLY_S = 10.0  # longer than any wait for the append-only file
CONNECTIONS = 32
OUT_OF_MEMORY = "used memory > 'maxmemory'"  # a script has another code for it than a command
CLOSED = "handler is closed"  # what uvloop says of a connection that a reset has just ended

_OURS = {"durability", "prefix"}
_FIXED = {"decode_responses", "protocol"}  # values are bytes, and replies never interleave


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisUrl:
    """A store URL, taken apart."""

    address: str  # what redis-py understands; may hold a password
    durable: bool
    prefix: str

    @classmethod
    def parse(cls, url: str) -> Self:
        """Separate our options from redis-py's.

        Raises:
            StoreUnavailableError: an option with a value that does not exist.
        """
        address, _, query = url.partition("?")
        options = dict(parse_qsl(query, keep_blank_values=True))
        durability = options.get("durability", "full")
        if durability not in {"full", "none"}:
            raise StoreUnavailableError(
                f"There is no durability {durability[:20]!r}; use full or none."
            )
        theirs = {name: value for name, value in options.items() if name not in _OURS | _FIXED}
        return cls(
            address=f"{address}?{urlencode(theirs)}" if theirs else address,
            durable=durability == "full",
            prefix=options.get("prefix", "kshot"),
        )


def connect(url: RedisUrl) -> Redis:
    """Return a client; nothing is sent yet.

    Raises:
        StoreUnavailableError: redis-py does not understand the URL.
    """
    try:
        pool = BlockingConnectionPool.from_url(
            url.address,
            max_connections=CONNECTIONS,
            timeout=REPLY_S,
            socket_connect_timeout=CONNECT_S,
            socket_timeout=REPLY_S,
            # A silent retry on a new connection would confirm a write that the old one lost.
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )
    except (TypeError, ValueError) as error:
        raise StoreUnavailableError(
            "The Redis URL of the store cannot be read; write redis://HOST:PORT/DATABASE."
        ) from error
    return Redis.from_pool(pool)


class RedisStore:
    """A `TaskStore` in Redis; every value is sealed, every operation runs to its end."""

    inbox: RedisInbox
    once: RedisOnce
    quotas: RedisQuotas

    def __init__(self, client: Redis, tasks: RedisTasks, cache: RedisCache) -> None:
        self._client = client
        self._tasks = tasks
        self._cache = cache
        self._shield = Shield()

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        now: Callable[[], float] = time.time,
        chunk_bytes: int = sealing.CHUNK_BYTES,
    ) -> Self:
        """Connect, and make sure that the server keeps what it acknowledges.

        Args:
            url: As `open_store` takes it.
            now: The clock, unix time.
            chunk_bytes: Size of the values that pictures are cut into.

        Raises:
            StoreUnavailableError: no connection, or no durability.
        """
        options = RedisUrl.parse(url)
        client = connect(options)
        try:
            with translated():
                await client.ping()
                durability = await durability_of(client) if options.durable else Durability.NONE
        except BaseException:
            await client.aclose()
            raise
        if durability is Durability.NONE:
            logger.warning("Acknowledged tasks may be lost: the store runs with durability=none")
        tasks = RedisTasks(
            client,
            prefix=options.prefix,
            durability=durability,
            now=now,
            chunk_bytes=chunk_bytes,
        )
        store = cls(client, tasks, RedisCache(client, prefix=options.prefix, now=now))
        store.inbox = RedisInbox(client, options.prefix, now, store._run)
        store.once = RedisOnce(client, options.prefix, store._run)
        store.quotas = RedisQuotas(client, options.prefix, store._run)
        return store

    async def create(
        self, record: TaskRecord, pictures: Pictures, usual: Quotas | None = None
    ) -> None:
        """Keep a new task; durable when this returns."""
        await self._run(self._tasks.create(record, pictures, usual))

    async def get(self, task_id: str) -> TaskRecord:
        """Return a task."""
        return await self._run(self._tasks.get(task_id))

    async def pictures(
        self, task_id: str, clip_ids: Collection[str] | None = None
    ) -> dict[str, tuple[bytes, ...]]:
        """Return the pictures of a task."""
        return await self._run(self._tasks.pictures(task_id, clip_ids))

    async def replace(
        self,
        record: TaskRecord,
        *,
        expected_revision: int,
        pictures: Pictures | None = None,
        usual: Quotas | None = None,
    ) -> None:
        """Put a new revision in the place of `expected_revision`."""
        await self._run(self._tasks.replace(record, expected_revision, pictures or {}, usual))

    async def uploaded(self) -> Sequence[str]:
        """Return the ids of the tasks that are uploaded."""
        return await self._run(self._tasks.uploaded())

    async def delete(self, task_id: str, *, expected_revision: int | None = None) -> bool:
        """Remove a task."""
        return await self._run(self._tasks.delete(task_id, expected_revision))

    async def list(
        self, *, limit: int, cursor: str | None, owner: str = ""
    ) -> tuple[list[TaskRecord], str | None]:
        """Return a page of living tasks, newest first."""
        return await self._run(self._tasks.page(limit, cursor, owner))

    async def get_text(self, key: str) -> bytes | None:
        """Return a cached value."""
        return await self._run(self._cache.get_text(key))

    async def put_text(self, key: str, value: bytes, *, ttl_s: float) -> None:
        """Cache a value."""
        await self._run(self._cache.put_text(key, value, ttl_s))

    async def get_supports(self, task_id: str, name: str) -> bytes | None:
        """Return kept encoded supports."""
        return await self._run(self._cache.get_supports(task_id, name))

    async def put_supports(self, record: TaskRecord, name: str, value: bytes) -> None:
        """Keep encoded supports."""
        await self._run(self._cache.put_supports(record, name, value))

    async def note_uses(self, used: Mapping[str, float]) -> None:
        """Keep when tasks were used last."""
        await self._run(self._cache.note_uses(used))

    async def recent(self, limit: int) -> Sequence[str]:
        """Return the ids of the tasks that were used last."""
        return await self._run(self._cache.recent(limit))

    async def ids(self) -> Sequence[str]:
        """Return the ids of all tasks."""
        return await self._run(self._tasks.ids())

    async def keyed(self) -> bool:
        """Tell whether an API key was ever made."""
        return await self._run(self._tasks.keyed())

    async def limited(self) -> bool:
        """Tell whether a tenant has quotas of its own."""
        return await self._run(self._tasks.limited())

    async def ping(self) -> None:
        """Return when the server answers and keeps what it acknowledges."""
        await self._run(self._ping())

    async def close(self) -> None:
        """Let running operations end, then let go of the connections."""
        self.once.close()
        await self._shield.drain()
        await self._client.aclose()

    async def _ping(self) -> None:
        async def ask() -> None:
            await self._tasks.check()

        await retried(ask)

    async def _run(self, operation: Coroutine[Any, Any, Result]) -> Result:
        async def done() -> Result:
            with translated():
                return await operation

        return await self._shield.run(done())


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn redis-py's errors, the socket's and the loop's into the store's."""
    try:
        yield
    except (RedisError, OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and CLOSED not in str(error):
            raise
        if isinstance(error, ResponseError) and OUT_OF_MEMORY in str(error):
            raise store_full("memory") from error
        raise StoreUnavailableError(
            f"The Redis of the task store does not do its work ({type(error).__name__}); "
            "repeat the request once the operator has seen to it."
        ) from error
