"""What every task store promises, asked of a SQLite file and of a real Redis alike."""

import asyncio
import contextlib
import dataclasses
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.stores import records
from service.stores.errors import (
    CursorError,
    RevisionConflictError,
    StoreCorruptError,
    StoreError,
    TaskExpiredError,
    TaskNotFoundError,
)
from service.stores.protocol import TaskStore
from service.stores.records import ClipRecord, LabelRecord, TaskRecord, new_id
from service.stores.redis import RedisStore
from service.stores.sqlite import SqliteStore
from tests.redis_server import RedisServer, redis_server
from tests.stored_tasks import a_task, pictures_of

DAY = 24 * 3600
UPLOAD = b"an upload, as it was sent"


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


class Backend(Protocol):
    """One kind of store, and the way behind its back."""

    async def open(self, clock: Clock) -> TaskStore: ...

    def damage(self, task_id: str, what: str) -> None: ...

    def swap_records(self, one: str, other: str) -> None: ...

    def leftovers(self) -> int: ...

    def stored_bytes(self) -> bytes: ...


class SqliteBackend:
    def __init__(self, path: Path) -> None:
        self.path = path

    async def open(self, clock: Clock) -> TaskStore:
        return await SqliteStore.open(self.path, now=clock)

    def damage(self, task_id: str, what: str) -> None:
        places = {"record": ("tasks", "record"), "pictures": ("pictures", "packed")}
        table, column = places.get(what, ("supports", "value"))
        with contextlib.closing(sqlite3.connect(self.path)) as db, db:
            query = f"SELECT rowid, {column} FROM {table} WHERE task_id = ?"
            row, value = db.execute(query, (task_id,)).fetchone()
            update = f"UPDATE {table} SET {column} = ? WHERE rowid = ?"
            db.execute(update, (flipped(value), row))

    def swap_records(self, one: str, other: str) -> None:
        with contextlib.closing(sqlite3.connect(self.path)) as db, db:
            kept = dict(db.execute("SELECT task_id, record FROM tasks"))
            for task_id, source in ((one, other), (other, one)):
                update = "UPDATE tasks SET record = ? WHERE task_id = ?"
                db.execute(update, (kept[source], task_id))

    def leftovers(self) -> int:
        with contextlib.closing(sqlite3.connect(self.path)) as db:
            orphans = (
                "SELECT count(*) FROM pictures WHERE task_id NOT IN (SELECT task_id FROM tasks)"
            )
            return int(db.execute(orphans).fetchone()[0])

    def stored_bytes(self) -> bytes:
        return b"".join(path.read_bytes() for path in self.path.parent.iterdir())


class RedisBackend:
    def __init__(self, server: RedisServer) -> None:
        self.server = server
        with server.client() as client:
            client.flushall()

    async def open(self, clock: Clock) -> TaskStore:
        return await RedisStore.open(self.server.url, now=clock, chunk_bytes=1500)

    def damage(self, task_id: str, what: str) -> None:
        key = f"kshot:{'task' if what == 'record' else what}:{task_id}"
        with self.server.client() as client:
            field = {"record": b"record", "supports": b"value"}.get(what)
            field = field or next(iter(client.hkeys(key)))
            client.hset(key, field, flipped(client.hget(key, field)))

    def swap_records(self, one: str, other: str) -> None:
        with self.server.client() as client:
            values = [client.hget(f"kshot:task:{name}", "record") for name in (one, other)]
            client.hset(f"kshot:task:{one}", "record", values[1])
            client.hset(f"kshot:task:{other}", "record", values[0])

    def leftovers(self) -> int:
        with self.server.client() as client:
            asides = client.keys("kshot:aside:*")
            assert all(client.ttl(key) > 0 for key in asides)
            return len(asides)

    def stored_bytes(self) -> bytes:
        with self.server.client() as client:
            return b"".join(client.dump(key) for key in client.keys("*"))


def flipped(value: bytes) -> bytes:
    """Flip one bit of the last byte."""
    return value[:-1] + bytes([value[-1] ^ 1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture(params=["sqlite", "redis"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    if request.param == "sqlite":
        return SqliteBackend(tmp_path / "store" / "kshot.db")
    return RedisBackend(request.getfixturevalue("server"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(backend: Backend, clock: Clock) -> AsyncIterator[TaskStore]:
    opened = await backend.open(clock)
    yield opened
    await opened.close()


async def keep(store: TaskStore, **fields: object) -> TaskRecord:
    record = a_task(**fields)  # type: ignore[arg-type]
    await store.create(record, pictures_of(record))
    return record


async def pages(store: TaskStore, limit: int) -> list[list[str]]:
    found: list[list[str]] = []
    cursor: str | None = None
    while True:
        page, cursor = await store.list(limit=limit, cursor=cursor)
        found.append([record.task_id for record in page])
        if cursor is None:
            return found


async def listed(store: TaskStore) -> list[str]:
    return [task_id for page in await pages(store, 100) for task_id in page]


async def test_returns_what_was_created_byte_for_byte(store: TaskStore) -> None:
    record = a_task()
    pictures = pictures_of(record) | {"c0": (b"", bytes(range(256)), b"\r\n\x00" * 3000)}
    await store.create(record, pictures)
    assert await store.get(record.task_id) == record
    assert await store.pictures(record.task_id) == pictures


async def test_reopening_sees_the_same(backend: Backend, clock: Clock) -> None:
    first = await backend.open(clock)
    kept = [await keep(first, created_at=100.0 + k) for k in range(5)]
    await first.put_text("key", b"value", ttl_s=60)
    await first.close()
    second = await backend.open(clock)
    try:
        assert await listed(second) == [record.task_id for record in reversed(kept)]
        assert await second.get(kept[2].task_id) == kept[2]
        assert await second.pictures(kept[2].task_id) == pictures_of(kept[2])
        assert await second.get_text("key") == b"value"
    finally:
        await second.close()


async def test_a_task_without_clips_is_a_task(store: TaskStore) -> None:
    record = await keep(store, clips=0)
    assert await store.get(record.task_id) == record
    assert await store.pictures(record.task_id) == {}


@pytest.mark.parametrize("task_id", ["unknown", "", ".", "..", "../x", "a/b", "a\n", "x" * 65, "é"])
async def test_an_unknown_task_is_not_found(store: TaskStore, task_id: str) -> None:
    with pytest.raises(TaskNotFoundError):
        await store.get(task_id)
    with pytest.raises(TaskNotFoundError):
        await store.pictures(task_id)
    assert await store.delete(task_id) is False


async def test_an_id_is_given_once(store: TaskStore) -> None:
    record = await keep(store)
    other = dataclasses.replace(record, name="other")
    with pytest.raises(RevisionConflictError):
        await store.create(other, pictures_of(other))
    assert await store.get(record.task_id) == record


async def test_pictures_must_belong_to_the_clips(store: TaskStore) -> None:
    record = a_task()
    for wrong in ({}, pictures_of(record) | {"c9": (b"x",)}):
        with pytest.raises(ValueError, match="pictures for exactly"):
            await store.create(record, wrong)
    assert await listed(store) == []


async def test_lists_newest_first_in_pages_that_join_exactly(store: TaskStore) -> None:
    kept = [
        await keep(store, created_at=1000.0 + k // 3, task_id=f"t{k % 3}{k}") for k in range(11)
    ]
    order = sorted(kept, key=lambda record: (record.created_at, record.task_id), reverse=True)
    wanted = [record.task_id for record in order]
    for limit in (1, 2, 3, 10, 11, 12):
        found = await pages(store, limit)
        assert [task_id for page in found for task_id in page] == wanted
        assert all(len(page) == limit for page in found[:-1])


async def test_pages_behind_a_cursor_do_not_move(store: TaskStore) -> None:
    kept = [await keep(store, created_at=float(k)) for k in range(6)]
    first, cursor = await store.list(limit=2, cursor=None)
    assert [record.task_id for record in first] == [kept[5].task_id, kept[4].task_id]
    await keep(store, created_at=99.0)
    await store.delete(kept[4].task_id)
    await store.delete(kept[3].task_id)
    second, cursor = await store.list(limit=3, cursor=cursor)
    assert [record.task_id for record in second] == [kept[k].task_id for k in (2, 1, 0)]
    assert cursor is None


@pytest.mark.parametrize("cursor", ["", "x", "%%%", "AAAA", "é" * 9, "a" * 10_000])
async def test_a_cursor_of_nobody_is_refused(store: TaskStore, cursor: str) -> None:
    with pytest.raises(CursorError, match="next_cursor"):
        await store.list(limit=5, cursor=cursor)


async def test_replaces_a_revision_once(store: TaskStore) -> None:
    record = await keep(store)
    text = LabelRecord(label="wave", stages=("Lifts.", "Shakes.", "Lowers."), text_source="llm")
    second = dataclasses.replace(record, revision=2, labels=(text, *record.labels[1:]))
    await store.replace(second, expected_revision=1)
    assert await store.get(record.task_id) == second
    assert await store.pictures(record.task_id) == pictures_of(record)
    with pytest.raises(RevisionConflictError, match="at revision 2, not 1"):
        await store.replace(second, expected_revision=1)
    assert await listed(store) == [record.task_id]


async def keep_uploaded(store: TaskStore, **fields: object) -> TaskRecord:
    record = dataclasses.replace(a_task(**fields), state="uploaded")  # type: ignore[arg-type]
    await store.create(record, {clip.clip_id: (b"{}", UPLOAD) for clip in record.clips})
    return record


async def test_pictures_take_the_place_of_uploads_once_and_nothing_of_these_stays(
    store: TaskStore, backend: Backend
) -> None:
    ready, record = await keep(store), await keep_uploaded(store)
    assert await store.uploaded() == [record.task_id]
    assert (await store.pictures(record.task_id))["c1"] == (b"{}", UPLOAD)
    assert UPLOAD in backend.stored_bytes()
    second = dataclasses.replace(record, revision=2, state="decoded", clips=record.clips[:2])
    await store.replace(second, expected_revision=1, pictures=pictures_of(second))
    assert await store.uploaded() == []
    assert await store.get(record.task_id) == second
    assert await store.pictures(record.task_id) == pictures_of(second)
    with pytest.raises(RevisionConflictError):
        await store.replace(second, expected_revision=1, pictures=pictures_of(second))
    third = dataclasses.replace(second, revision=3, clips=second.clips[:1])
    with pytest.raises(ValueError, match="pictures for its new clips"):
        await store.replace(third, expected_revision=2, pictures=pictures_of(third))
    assert await store.pictures(ready.task_id) == pictures_of(ready)
    assert backend.leftovers() == 0
    await store.close()
    assert UPLOAD not in backend.stored_bytes()


async def test_a_failed_an_expired_and_a_deleted_task_keep_nothing_of_their_uploads(
    store: TaskStore, backend: Backend, clock: Clock
) -> None:
    failed = await keep_uploaded(store)
    deleted = await keep_uploaded(store)
    expired = await keep_uploaded(store, expires_at=clock() + 0.3)
    why = dataclasses.replace(failed, revision=2, state="failed", clips=(), failure="Clip 0: no.")
    await store.replace(why, expected_revision=1, pictures={})
    assert await store.delete(deleted.task_id)
    await asyncio.sleep(0.4)
    if isinstance(store, SqliteStore):
        await store.sweep()
    assert await store.get(failed.task_id) == why
    assert await store.pictures(failed.task_id) == {}
    with pytest.raises(TaskExpiredError):
        await store.get(expired.task_id)
    assert await store.uploaded() == []
    await store.close()
    assert UPLOAD not in backend.stored_bytes()


async def test_the_ids_of_all_tenants_tasks_are_told(store: TaskStore) -> None:
    owners = ("", "a" * 8, "b" * 8)
    ids = [new_id(owner) for owner in owners for _ in range(2)]
    for moment, task_id in enumerate(ids):
        await keep(store, task_id=task_id, created_at=float(moment))
    assert sorted(await store.ids()) == sorted(ids)
    await store.delete(ids[0])
    assert ids[0] not in await store.ids()


async def test_of_concurrent_replacements_one_wins(store: TaskStore) -> None:
    record = await keep(store)
    rivals = [dataclasses.replace(record, revision=2, name=f"rival {k}") for k in range(8)]
    outcomes = await asyncio.gather(
        *(store.replace(rival, expected_revision=1) for rival in rivals), return_exceptions=True
    )
    winners = [k for k, outcome in enumerate(outcomes) if outcome is None]
    assert len(winners) == 1
    assert all(isinstance(o, RevisionConflictError) for o in outcomes if o is not None)
    assert await store.get(record.task_id) == rivals[winners[0]]


async def test_a_replacement_keeps_what_a_revision_cannot_change(store: TaskStore) -> None:
    record = await keep(store)
    other = dataclasses.replace(record.clips[0], duration_s=9.0)
    for wrong in (
        record,
        dataclasses.replace(record, revision=2, created_at=5.0),
        dataclasses.replace(record, revision=2, clips=(other, *record.clips[1:])),
        dataclasses.replace(record, revision=2, state="failed"),
        dataclasses.replace(record, revision=2, clips=(*record.clips, record.clips[0])),
    ):
        with pytest.raises(ValueError, match=r"count up|keeps its|for its new clips"):
            await store.replace(wrong, expected_revision=1)
    assert await store.get(record.task_id) == record


def grown(record: TaskRecord, clip_id: str, *, without: str = "") -> TaskRecord:
    """Return the next revision, with one clip more and one less."""
    new = dataclasses.replace(record.clips[0], clip_id=clip_id, label=1)
    stay = tuple(clip for clip in record.clips if clip.clip_id != without)
    return dataclasses.replace(record, revision=record.revision + 1, clips=(*stay, new))


async def test_a_revision_brings_pictures_of_its_new_clips_and_drops_those_of_others(
    store: TaskStore, backend: Backend, clock: Clock
) -> None:
    record = await keep(store, expires_at=clock() + 1000)
    gone = b"".join(pictures_of(record)["c1"])
    second = grown(record, "new", without="c1")
    pictures = {"new": (b"one" * 1000, b"two")}
    await store.replace(second, expected_revision=1, pictures=pictures)
    kept = {name: shown for name, shown in pictures_of(record).items() if name != "c1"} | pictures
    assert await store.get(record.task_id) == second
    assert await store.pictures(record.task_id) == kept
    assert await store.pictures(record.task_id, ["new", "c1", "none"]) == pictures
    for wrong in ({}, {"c0": (b"x",)}, {"newer": (b"x",), "c0": (b"x",)}):
        with pytest.raises(ValueError, match="pictures for its new clips"):
            await store.replace(grown(second, "newer"), expected_revision=2, pictures=wrong)
    assert await store.get(record.task_id) == second
    assert await store.pictures(record.task_id) == kept
    assert backend.leftovers() == 0
    await store.close()
    assert gone[-200:] not in backend.stored_bytes()


async def test_of_concurrent_clips_one_is_added_and_the_pictures_of_others_are_not(
    store: TaskStore, backend: Backend
) -> None:
    record = await keep(store)

    async def add(name: str) -> None:
        pictures = {name: (name.encode() * 500,)}
        await store.replace(grown(record, name), expected_revision=1, pictures=pictures)

    names = [f"n{k}" for k in range(6)]
    outcomes = await asyncio.gather(*map(add, names), return_exceptions=True)
    (winner,) = [name for name, outcome in zip(names, outcomes, strict=True) if outcome is None]
    assert {o.stored for o in outcomes if isinstance(o, RevisionConflictError)} == {2}
    assert sum(isinstance(outcome, RevisionConflictError) for outcome in outcomes) == 5
    found = await store.pictures(record.task_id)
    assert found == pictures_of(record) | {winner: (winner.encode() * 500,)}
    assert backend.leftovers() == 0


async def test_a_task_is_deleted_at_the_revision_that_is_expected(store: TaskStore) -> None:
    record = await keep(store)
    await store.replace(dataclasses.replace(record, revision=2), expected_revision=1)
    with pytest.raises(RevisionConflictError, match="at revision 2, not 1"):
        await store.delete(record.task_id, expected_revision=1)
    assert (await store.get(record.task_id)).revision == 2
    assert await store.delete(record.task_id, expected_revision=2)
    assert not await store.delete(record.task_id, expected_revision=2)


async def test_nothing_unknown_is_replaced(store: TaskStore) -> None:
    with pytest.raises(TaskNotFoundError):
        await store.replace(dataclasses.replace(a_task(), revision=2), expected_revision=1)
    assert await listed(store) == []


async def test_deletes_for_good(store: TaskStore, backend: Backend) -> None:
    record = await keep(store)
    other = await keep(store)
    assert await store.delete(record.task_id) is True
    assert await store.delete(record.task_id) is False
    with pytest.raises(TaskNotFoundError):
        await store.get(record.task_id)
    with pytest.raises(TaskNotFoundError):
        await store.pictures(record.task_id)
    assert await listed(store) == [other.task_id]
    assert record.task_id.encode() not in backend.stored_bytes()
    assert backend.leftovers() == 0


async def test_an_expired_task_is_gone_and_says_so_for_a_day(
    store: TaskStore, clock: Clock
) -> None:
    record = await keep(store, expires_at=clock() + 100)
    lasting = await keep(store)
    assert await store.get(record.task_id) == record
    clock.ahead += 101
    with pytest.raises(TaskExpiredError):
        await store.get(record.task_id)
    with pytest.raises(TaskExpiredError):
        await store.pictures(record.task_id)
    with pytest.raises(TaskExpiredError):
        await store.replace(dataclasses.replace(record, revision=2), expected_revision=1)
    assert await store.delete(record.task_id) is False
    assert await listed(store) == [lasting.task_id]
    clock.ahead += DAY - 2
    with pytest.raises(TaskExpiredError):
        await store.get(record.task_id)
    clock.ahead += 2
    with pytest.raises(TaskNotFoundError):
        await store.get(record.task_id)


async def test_the_data_of_an_expired_task_is_removed(
    store: TaskStore, clock: Clock, backend: Backend
) -> None:
    record = await keep(store, expires_at=clock() + 0.2)
    secret = pictures_of(record)["c0"][0][:500]
    await asyncio.sleep(0.4)  # Redis removes by its own clock
    if isinstance(store, SqliteStore):
        assert secret in backend.stored_bytes()
        await store.sweep()
    for _ in range(2):
        with pytest.raises(TaskExpiredError):
            await store.get(record.task_id)
        assert await listed(store) == []
    assert secret not in backend.stored_bytes()
    with pytest.raises(RevisionConflictError):
        await store.create(record, pictures_of(record))
    clock.ahead += DAY + 1
    if isinstance(store, SqliteStore):
        await store.sweep()
        assert record.task_id.encode() not in backend.stored_bytes()
    with pytest.raises(TaskNotFoundError):
        await store.get(record.task_id)


async def test_a_new_revision_may_move_or_lift_the_expiry(store: TaskStore, clock: Clock) -> None:
    record = await keep(store, expires_at=clock() + 0.3)
    lifted = dataclasses.replace(record, revision=2, expires_at=None)
    await store.replace(lifted, expected_revision=1)
    await asyncio.sleep(0.5)
    assert await store.get(record.task_id) == lifted
    assert await store.pictures(record.task_id) == pictures_of(record)
    bounded = dataclasses.replace(record, revision=3, expires_at=clock() + 50)
    await store.replace(bounded, expected_revision=2)
    clock.ahead += 51
    with pytest.raises(TaskExpiredError):
        await store.get(record.task_id)


async def test_text_is_kept_for_its_time(store: TaskStore, clock: Clock) -> None:
    assert await store.get_text("key") is None
    await store.put_text("key", b"\x00\xff\n", ttl_s=10)
    await store.put_text("../../other key/ é", b"", ttl_s=20)
    assert await store.get_text("key") == b"\x00\xff\n"
    await store.put_text("key", b"newer", ttl_s=10)
    assert await store.get_text("key") == b"newer"
    clock.ahead += 11
    assert await store.get_text("key") is None
    assert await store.get_text("../../other key/ é") == b""


async def test_supports_are_kept_under_their_name_alone(store: TaskStore, backend: Backend) -> None:
    record, other = await keep(store), await keep(store)
    assert await store.get_supports(record.task_id, "1/one") is None
    await store.put_supports(record, "1/one", b"\x00\xff\n" * 999)
    assert await store.get_supports(record.task_id, "1/one") == b"\x00\xff\n" * 999
    assert await store.get_supports(record.task_id, "1/two") is None
    assert await store.get_supports(other.task_id, "1/one") is None
    assert await store.get_supports("../x", "1/one") is None
    await store.put_supports(record, "1/two", b"of other weights")
    assert await store.get_supports(record.task_id, "1/one") is None
    assert await store.get_supports(record.task_id, "1/two") == b"of other weights"
    backend.damage(record.task_id, "supports")
    assert await store.get_supports(record.task_id, "1/two") is None
    assert await store.get(record.task_id) == record


async def test_supports_of_another_revision_are_dropped_and_not_taken(store: TaskStore) -> None:
    record = await keep(store)
    newer = dataclasses.replace(record, revision=2, name="newer")
    await store.put_supports(record, "1/one", b"older")
    await store.replace(newer, expected_revision=1)
    assert await store.get_supports(record.task_id, "1/one") is None
    await store.put_supports(newer, "2/one", b"newer")
    await store.put_supports(record, "1/one", b"late")
    assert await store.get_supports(record.task_id, "2/one") == b"newer"


async def test_supports_and_uses_go_with_their_task(
    store: TaskStore, backend: Backend, clock: Clock
) -> None:
    deleted, expired = await keep(store), await keep(store, expires_at=clock() + 0.3)
    kept = b"supports of a task that is gone"
    for record in (deleted, expired):
        await store.put_supports(record, "1/one", kept)
    await store.note_uses({deleted.task_id: 1.0, expired.task_id: 2.0})
    await store.delete(deleted.task_id)
    await asyncio.sleep(0.4)  # Redis removes by its own clock
    if isinstance(store, SqliteStore):
        await store.sweep()
    assert kept not in backend.stored_bytes()
    assert await store.recent(9) == []
    await store.put_supports(deleted, "1/one", kept)
    await store.note_uses({deleted.task_id: 3.0})
    assert await store.recent(9) == []
    assert kept not in backend.stored_bytes()
    assert deleted.task_id.encode() not in backend.stored_bytes()


async def test_the_last_used_tasks_come_first(
    store: TaskStore, backend: Backend, clock: Clock
) -> None:
    ids = [(await keep(store)).task_id for _ in range(4)]
    assert await store.recent(9) == []
    await store.note_uses({ids[0]: 10.5, ids[1]: 30.0, ids[2]: 20.0, "unknown": 99.0})
    await store.note_uses({ids[0]: 40.25, ids[1]: 15.0})  # late news of another replica
    assert await store.recent(9) == [ids[0], ids[1], ids[2]]
    await store.close()
    store = await backend.open(clock)
    assert await store.recent(2) == [ids[0], ids[1]]
    await store.close()


async def test_a_record_is_parsed_once_as_long_as_it_stays(
    store: TaskStore, backend: Backend
) -> None:
    record = await keep(store)
    first = await store.get(record.task_id)
    assert await store.get(record.task_id) is first
    newer = dataclasses.replace(record, revision=2, name="newer")
    await store.replace(newer, expected_revision=1)
    assert await store.get(record.task_id) == newer
    backend.damage(record.task_id, "record")
    with pytest.raises(StoreCorruptError):
        await store.get(record.task_id)


async def test_a_damaged_record_is_noticed_and_harms_no_other(
    store: TaskStore, backend: Backend
) -> None:
    damaged, whole = await keep(store), await keep(store)
    backend.damage(damaged.task_id, "record")
    with pytest.raises(StoreCorruptError, match="fails its checksum"):
        await store.get(damaged.task_id)
    with pytest.raises(StoreCorruptError):
        await store.pictures(damaged.task_id)
    assert await listed(store) == [whole.task_id]
    assert await store.delete(damaged.task_id) is True
    with pytest.raises(TaskNotFoundError):
        await store.get(damaged.task_id)


async def test_damaged_pictures_are_noticed(store: TaskStore, backend: Backend) -> None:
    record = await keep(store)
    backend.damage(record.task_id, "pictures")
    assert await store.get(record.task_id) == record
    with pytest.raises(StoreCorruptError, match="fails its checksum"):
        await store.pictures(record.task_id)


async def test_another_tasks_value_is_noticed(store: TaskStore, backend: Backend) -> None:
    one, other = await keep(store), await keep(store)
    backend.swap_records(one.task_id, other.task_id)
    for record in (one, other):
        with pytest.raises(StoreCorruptError, match="belongs to something else"):
            await store.get(record.task_id)


async def test_many_create_at_once(store: TaskStore) -> None:
    tasks = [a_task(created_at=float(k)) for k in range(40)]
    await asyncio.gather(*(store.create(task, pictures_of(task)) for task in tasks))
    assert await listed(store) == [task.task_id for task in reversed(tasks)]
    for task in tasks[::7]:
        assert await store.pictures(task.task_id) == pictures_of(task)


async def test_of_concurrent_creates_under_one_id_one_wins_whole(store: TaskStore) -> None:
    rivals = [a_task(task_id="same", clips=k + 1) for k in range(6)]
    sets = [{clip.clip_id: (b"%d" % k,) * 2 for clip in r.clips} for k, r in enumerate(rivals)]
    outcomes = await asyncio.gather(
        *map(store.create, rivals, sets),
        return_exceptions=True,
    )
    assert sum(outcome is None for outcome in outcomes) == 1
    winner = outcomes.index(None)
    assert await store.get("same") == rivals[winner]
    assert await store.pictures("same") == sets[winner]


async def test_an_interrupted_create_is_whole_or_nothing(
    store: TaskStore, backend: Backend
) -> None:
    tasks = [a_task() for _ in range(30)]
    for number, task in enumerate(tasks):
        creating = asyncio.create_task(store.create(task, pictures_of(task, 20_000)))
        await asyncio.sleep(number * 0.0005)
        creating.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await creating
        seen = await listed(store)
        for task_id in seen:
            wanted = next(task for task in tasks if task.task_id == task_id)
            assert await store.pictures(task_id) == pictures_of(wanted, 20_000)
    other = await keep(store)  # connections and locks are as good as before
    assert await store.get(other.task_id) == other
    await store.close()
    assert backend.leftovers() == 0


async def test_cancelled_reads_leave_no_reply_for_the_next(store: TaskStore) -> None:
    tasks = [await keep(store) for _ in range(4)]
    for k in range(60):
        reading = asyncio.create_task(store.get(tasks[k % 4].task_id))
        await asyncio.sleep(0.0001 * (k % 7))
        reading.cancel()
        task = tasks[(k + 1) % 4]
        assert await store.get(task.task_id) == task
        with contextlib.suppress(asyncio.CancelledError):
            await reading


async def test_reads_beside_deletion_see_all_or_nothing(store: TaskStore) -> None:
    for _ in range(15):
        record = await keep(store)
        reading = [asyncio.create_task(store.pictures(record.task_id)) for _ in range(3)]
        await asyncio.sleep(0.001)
        await store.delete(record.task_id)
        for outcome in await asyncio.gather(*reading, return_exceptions=True):
            assert outcome == pictures_of(record) or isinstance(outcome, TaskNotFoundError)


async def test_ping_answers(store: TaskStore) -> None:
    await store.ping()


seconds = st.floats(min_value=0, max_value=1e12, allow_nan=False)
ids = st.from_regex(records.ID_PATTERN, fullmatch=True).map(str.strip)
labels = st.builds(
    LabelRecord,
    label=st.text(max_size=20),
    stages=st.tuples(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20)),
    text_source=st.sampled_from(["client", "llm", "template"]),
)
clip_records = st.builds(
    ClipRecord,
    clip_id=ids,
    label=st.integers(0, 2**40),
    frames_s=st.lists(seconds, max_size=4).map(tuple),
    duration_s=seconds,
    codec=st.text(max_size=8),
    distinct=st.integers(0, 99),
    sha256=st.text(max_size=8),
    warnings=st.lists(st.text(max_size=8), max_size=2).map(tuple),
)
tasks_of_any_kind = st.builds(
    TaskRecord,
    task_id=ids,
    name=st.none() | st.text(max_size=20),
    created_at=seconds,
    expires_at=st.none() | st.floats(min_value=1e11, max_value=1e12),
    revision=st.integers(0, 2**31),
    labels=st.lists(labels, max_size=3).map(tuple),
    clips=st.lists(clip_records, max_size=3, unique_by=lambda clip: clip.clip_id).map(tuple),
)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(record=tasks_of_any_kind, frames=st.lists(st.binary(max_size=4000), max_size=3).map(tuple))
def test_any_task_comes_back_as_it_was(
    record: TaskRecord, frames: tuple[bytes, ...], backend: Backend
) -> None:
    async def there_and_back() -> None:
        store = await backend.open(Clock())
        try:
            with contextlib.suppress(StoreError):
                await store.delete(record.task_id)
            given_pictures = {clip.clip_id: frames for clip in record.clips}
            await store.create(record, given_pictures)
            assert await store.get(record.task_id) == record
            assert await store.pictures(record.task_id) == given_pictures
            assert record in (await store.list(limit=100, cursor=None))[0]
            await store.delete(record.task_id)
        finally:
            await store.close()

    asyncio.run(there_and_back())
