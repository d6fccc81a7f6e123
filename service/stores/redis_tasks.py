"""Tasks in Redis: the commands behind the Redis store.

Keys, under a prefix (`kshot:` unless the URL says otherwise); a Redis Cluster is not supported:

    task:<id>      hash: sealed record, revision, place     expired:<id>  sealed tombstone
    pictures:<id>  hash: sealed chunks of pictures          index         sorted set of places
    uploaded       set of ids whose pictures are uploads still
    aside:<token>  pictures of a task being created; they have a time to live until the commit
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import cast

from redis.asyncio import Redis

from service.stores import records, redis_commit, sealing
from service.stores.errors import (
    StoreCorruptError,
    StoreUnavailableError,
    TaskExpiredError,
    TaskNotFoundError,
)
from service.stores.protocol import Pictures
from service.stores.quotas import lua
from service.stores.quotas.kept import Quotas
from service.stores.records import TaskRecord
from service.stores.redis_commit import Commits, Durability, milliseconds, retried
from service.stores.sealing import SealedRecords

logger = logging.getLogger(__name__)

PAGE = 100  # records fetched at once for a listing
IDS = 1000


class RedisTasks:
    """Operations on tasks; must not be cancelled while they run (see `Shield`)."""

    def __init__(
        self,
        client: Redis,
        *,
        prefix: str,
        durability: Durability,
        now: Callable[[], float],
        chunk_bytes: int,
    ) -> None:
        self._client = client
        self._prefix = prefix
        self._durability = durability
        self._commits = Commits(client, durability)
        self._now = now
        self._chunk_bytes = chunk_bytes
        self._records = SealedRecords()

    async def ids(self) -> list[str]:
        """Return the ids of all tasks, newest first: a part at a time, as Redis does one thing."""
        found: list[str] = []
        before, index = "+", self._key("index")
        while part := await self._client.zrevrangebylex(index, before, "-", start=0, num=IDS):
            places = [place.decode() for place in cast("list[bytes]", part)]
            found += [records.task_at(place) for place in places]
            before = f"({places[-1]}"
        return found

    async def keyed(self) -> bool:
        """Tell whether there is an API key, also a revoked one."""
        return bool(await self._client.exists(self._key("keys")))

    async def limited(self) -> bool:
        """Tell whether a tenant has quotas of its own."""
        return bool(await self._client.exists(self._key("quotas")))

    async def check(self) -> None:
        """Return when the server answers, and still keeps what it acknowledges."""
        if self._durability is Durability.NONE:
            await self._client.ping()
        else:
            await redis_commit.durability_of(self._client)

    async def create(self, record: TaskRecord, pictures: Pictures, usual: Quotas | None) -> None:
        """Bring the pictures aside, then commit them with the record in one step."""
        task_id = record.task_id
        place = records.place_of(record)
        uploaded = task_id if record.state == "uploaded" else ""
        fields, counted = [sealing.seal_record(record), record.revision, place], self._life(record)
        counted += [uploaded, *lua.values_of(record, usual)]
        records.check_pictures(record, pictures)
        keys = [*self._keys(task_id), self._key("index"), self._key("uploaded")]
        keys += lua.keys_for(self._prefix, task_id)
        async with self._aside(task_id, pictures) as (aside, chunks):
            status = await self._commits.run(
                redis_commit.CREATE, [aside, *keys], [*fields, chunks, *counted]
            )
            lua.check_room(status)
            if status == b"taken":
                raise records.already_taken(task_id)
            if status != b"done":
                raise _lost(task_id)

    async def get(self, task_id: str) -> TaskRecord:
        """Return a living task."""
        if not records.is_id(task_id):
            raise records.absent(task_id, None, self._now())
        _, task, expired = self._keys(task_id)

        async def read() -> tuple[list[bytes | None], bytes | None]:
            # a Redis without memory refuses transactions, and must let itself be read
            pipeline = self._client.pipeline(transaction=False)
            pipeline.hmget(task, ["record", "revision", "place"])
            pipeline.get(expired)
            return cast("tuple[list[bytes | None], bytes | None]", await pipeline.execute())

        fields, tombstone = await retried(read)
        expired_at = None
        if fields[0] is not None:
            record = self._read_record(task_id, fields)
            if not record.expired(self._now()):
                return record
            expired_at = record.expires_at
        elif tombstone is not None:
            expired_at = float(bytes(sealing.unseal(f"expired/{task_id}", tombstone)))
        raise records.absent(task_id, expired_at, self._now())

    async def pictures(
        self, task_id: str, clip_ids: Collection[str] | None = None
    ) -> dict[str, tuple[bytes, ...]]:
        """Return pictures of a living task, fetched clip by clip."""
        record = await self.get(task_id)
        key = self._key("pictures", task_id)

        async def names() -> list[bytes]:
            return cast("list[bytes]", await self._client.hkeys(key))

        stored = [name.decode() for name in await retried(names)]
        found: dict[str, tuple[bytes, ...]] = {}
        for clip_id in (clip.clip_id for clip in record.clips):
            if clip_ids is not None and clip_id not in clip_ids:
                continue
            chunks = await self._chunks(key, [n for n in stored if n.startswith(f"{clip_id}/")])
            if not chunks:
                if (await self.get(task_id)).revision != record.revision:  # or it is deleted
                    return await self.pictures(task_id, clip_ids)
                raise records.missing_pictures(task_id, clip_id)
            found[clip_id] = await asyncio.to_thread(sealing.join_chunks, task_id, clip_id, chunks)
        return found

    async def replace(
        self, record: TaskRecord, expected_revision: int, pictures: Pictures, usual: Quotas | None
    ) -> None:
        """Put a new revision of a task in place, with the pictures of its new clips."""
        task_id = record.task_id
        old = await self.get(task_id)
        change = records.check_successor(old, record, expected_revision, pictures.keys())
        fields = [sealing.seal_record(record), record.revision, *self._life(record)]
        whole, gone = ("whole", []) if change.whole else ("", sorted(change.removed))
        keys = [*self._keys(task_id), self._key("supports", task_id)]
        beside = self._beside(task_id)
        held = lua.keys_for(self._prefix, task_id)
        async with self._aside(task_id, pictures) as (aside, chunks):
            status = await self._commits.run(
                redis_commit.REPLACE,
                [*keys, aside, self._key("uploaded"), *held, *beside],
                [expected_revision, *fields, chunks, whole, *lua.values_of(record, usual), *gone],
            )
            lua.check_room(status)
            if status == b"absent":
                raise records.absent(task_id, None, self._now())
            if status == b"lost":
                raise _lost(task_id)
            if status != b"done":
                raise records.revision_conflict(task_id, int(status), expected_revision)

    async def uploaded(self) -> list[str]:
        """Return the ids of the tasks that are uploaded."""
        keys = [self._key("uploaded"), self._key("task", "")]
        found = await self._client.eval(redis_commit.UPLOADED, len(keys), *keys)
        return [task_id.decode() for task_id in cast("list[bytes]", found)]

    async def delete(self, task_id: str, expected_revision: int | None) -> bool:
        """Remove a task; a damaged one too."""
        try:
            await self.get(task_id)
        except (TaskNotFoundError, TaskExpiredError):
            return False
        except StoreCorruptError:
            logger.warning("Task %s is damaged and is being deleted", task_id)
        self._records.forget(task_id)
        keys = [*self._keys(task_id), self._key("supports", task_id)]
        keys += [self._key("index"), self._key("used"), self._key("uploaded")]
        keys += [*lua.keys_for(self._prefix, task_id)[:3], *self._beside(task_id)]
        expected = "" if expected_revision is None else expected_revision
        status = await self._commits.run(redis_commit.DELETE, keys, [task_id, expected])
        if status not in (b"done", b"absent"):
            raise records.revision_conflict(task_id, int(status), int(expected))
        return status == b"done"

    async def page(
        self, limit: int, cursor: str | None, owner: str = ""
    ) -> tuple[list[TaskRecord], str | None]:
        """Return a page of a tenant's living tasks, newest first."""
        first, behind = records.places_of(owner)
        before = f"({behind if cursor is None else records.from_cursor(cursor, owner)}"
        page: list[TaskRecord] = []
        while rows := await self._rows(f"[{first}", before, min(limit + 1, PAGE)):
            for place, fields in rows:
                record = await self._listed(place, fields)
                if record is None:
                    continue
                if len(page) == limit:
                    return page, records.to_cursor(records.place_of(page[-1]))
                page.append(record)
            before = f"({rows[-1][0]}"
        return page, None

    def _read_record(self, task_id: str, fields: Sequence[bytes | None]) -> TaskRecord:
        sealed, revision, place = fields
        record = self._records.read(task_id, sealed)
        if (revision, place) != (b"%d" % record.revision, records.place_of(record).encode()):
            raise StoreCorruptError(
                f"The stored task {task_id} contradicts itself; delete it and register it again."
            )
        return record

    async def _rows(
        self, first: str, before: str, count: int
    ) -> list[tuple[str, list[bytes | None]]]:
        async def read() -> list[tuple[str, list[bytes | None]]]:
            index = self._key("index")
            found = await self._client.zrevrangebylex(index, before, first, start=0, num=count)
            places = [place.decode() for place in cast("list[bytes]", found)]
            pipeline = self._client.pipeline(transaction=False)
            for place in places:
                task = self._key("task", records.task_at(place))
                pipeline.hmget(task, ["record", "revision", "place"])
            return list(zip(places, await pipeline.execute(), strict=True))

        return await retried(read)

    async def _listed(self, place: str, fields: Sequence[bytes | None]) -> TaskRecord | None:
        task_id = records.task_at(place)
        if fields[0] is None:  # Redis removed it when its time was up
            keys = [self._key("task", task_id), self._key("index")]
            await self._client.eval(redis_commit.PRUNE, len(keys), *keys, place)
            return None
        try:
            record = self._read_record(task_id, fields)
        except StoreCorruptError:
            logger.exception("Task %s is damaged and left out of listings", task_id)
            return None
        return None if record.expired(self._now()) else record

    async def _chunks(self, key: str, names: list[str]) -> dict[str, bytes]:
        async def read() -> list[bytes | None]:
            return cast("list[bytes | None]", await self._client.hmget(key, names))

        values = await retried(read) if names else []
        return {name: value for name, value in zip(names, values, strict=True) if value is not None}

    @contextlib.asynccontextmanager
    async def _aside(self, task_id: str, pictures: Pictures) -> AsyncIterator[tuple[str, int]]:
        """Yield the key at which pictures stand aside, and the number of their chunks."""
        key = self._key("aside", secrets.token_hex(16))
        chunks = await asyncio.to_thread(sealing.split_chunks, task_id, pictures, self._chunk_bytes)
        async with self._commits.aside(key, chunks):
            yield key, len(chunks)

    def _life(self, record: TaskRecord) -> list[str | bytes | int]:
        if record.expires_at is None:
            return ["", "", ""]
        left = record.expires_at - self._now()
        tombstone = sealing.seal(f"expired/{record.task_id}", repr(record.expires_at).encode())
        return [milliseconds(left), tombstone, milliseconds(left + records.TOMBSTONE_S)]

    def _keys(self, task_id: str) -> list[str]:
        return [self._key(kind, task_id) for kind in ("pictures", "task", "expired")]

    def _beside(self, task_id: str) -> list[str]:
        # as `inboxes.redis` has them, and `once.redis` the last
        kinds = ("inbox", "inbox-pictures", "inbox-marks", "answers")
        return [self._key(kind, task_id) for kind in kinds]

    def _key(self, *parts: str) -> str:
        return ":".join((self._prefix, *parts))


def _lost(task_id: str) -> StoreUnavailableError:
    return StoreUnavailableError(
        f"Redis lost pictures of task {task_id} before they were complete; try again."
    )
