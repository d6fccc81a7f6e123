"""What every store promises of quotas, asked of a SQLite file and of a real Redis alike."""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from service.keys.opening import open_grants
from service.settings import Settings
from service.stores.errors import QuotaFullError, StoreUnavailableError
from service.stores.opening import open_store
from service.stores.protocol import TaskStore
from service.stores.quotas.kept import Amounts, Quotas, Standing
from service.stores.quotas.redis import count_all
from service.stores.records import TaskRecord
from service.stores.redis import RedisStore, RedisUrl, connect
from service.stores.sqlite import SqliteStore
from service.tasks.quota.starting import keeper_until
from tests.redis_server import redis_server
from tests.stored_tasks import a_task, pictures_of

ACME = "acme"
NONE = Quotas()
Pictures = dict[str, tuple[bytes, ...]]


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], str]]:
    """Give addresses of stores, each without tasks."""
    folder, count = tmp_path_factory.mktemp("quotas"), iter(range(1000))
    if request.param == "sqlite":
        yield lambda: f"sqlite:{folder}/{next(count)}.db"
        return
    with redis_server(folder / "redis") as server:
        yield lambda: f"{server.url}?prefix=p{next(count)}"


@pytest.fixture
def url(place: Callable[[], str]) -> str:
    return place()


@pytest.fixture
async def store(url: str) -> AsyncIterator[TaskStore]:
    opened = await open_store(url)
    yield opened
    await opened.close()


def owned(number: int, owner: str = ACME, **more: object) -> TaskRecord:
    """Return a task of a tenant."""
    return replace(a_task(clips=2), task_id=f"{owner}_{number:032x}", **more)  # type: ignore[arg-type]


async def used(store: TaskStore, owner: str = ACME) -> tuple[int, int]:
    """Tell how many tasks a tenant has, and how many bytes."""
    standing = await store.quotas.charge(owner, Amounts(), NONE)
    return standing.used.tasks, standing.used.bytes


async def until(reached: Callable[[], Awaitable[bool]]) -> None:
    late = time.monotonic() + 20
    while not await reached():
        assert time.monotonic() < late
        await asyncio.sleep(0.02)


async def test_two_at_once_at_the_edge_are_let_in_as_far_as_is_left(store: TaskStore) -> None:
    """Forty requests of three frames, where forty frames are left: thirteen get in, exactly."""
    most = Quotas(frames=40, clip_ms=1_000_000)
    asked = Amounts(frames=3, clip_ms=10)
    found = await asyncio.gather(*(store.quotas.charge(ACME, asked, most) for _ in range(40)))
    assert sum(each.granted for each in found) == 13
    now = await store.quotas.charge(ACME, Amounts(), most)
    assert (now.used.frames, now.used.clip_ms) == (39, 130)
    assert now.left("frames") == 1
    assert not (await store.quotas.charge(ACME, Amounts(frames=2), most)).granted
    assert (await store.quotas.charge(ACME, Amounts(frames=1), most)).granted


async def test_replicas_of_one_redis_count_together(url: str, store: TaskStore) -> None:
    if not isinstance(store, RedisStore):
        pytest.skip("one process has a SQLite file")
    others = [await open_store(url) for _ in range(2)]
    most = Quotas(frames=100)
    charges = [
        each.quotas.charge(ACME, Amounts(frames=9), most)
        for each in (store, *others)
        for _ in range(8)
    ]
    found = await asyncio.gather(*charges)
    assert sum(each.granted for each in found) == 11
    for each in (store, *others):
        assert (await each.quotas.charge(ACME, Amounts(), most)).used.frames == 99
    for each in others:
        await each.close()


amounts = st.builds(
    Amounts, clip_ms=st.integers(0, 60), frames=st.integers(0, 60), tasks=st.integers(0, 1)
)
limits = st.builds(
    Quotas, clip_ms=st.none() | st.integers(0, 200), frames=st.none() | st.integers(0, 200)
)


def test_what_is_granted_never_passes_a_limit_and_what_is_refused_counts_nothing(
    place: Callable[[], str],
) -> None:
    @settings(max_examples=25)
    @given(asked=st.lists(amounts, max_size=12), most=limits)
    def holds(asked: list[Amounts], most: Quotas) -> None:
        asyncio.run(one_by_one(place(), asked, most))

    holds()


async def one_by_one(url: str, asked: list[Amounts], most: Quotas) -> None:
    """Charge one after the other, and count beside it."""
    store = await open_store(url)
    clip_ms = frames = 0
    for each in asked:
        fits = all(
            limit is None or more == 0 or had + more <= limit
            for had, more, limit in (
                (clip_ms, each.clip_ms, most.clip_ms),
                (frames, each.frames, most.frames),
            )
        )
        standing = await store.quotas.charge(ACME, each, most)
        assert standing.granted is fits
        if fits:
            clip_ms, frames = clip_ms + each.clip_ms, frames + each.frames
        assert (standing.used.clip_ms, standing.used.frames) == (clip_ms, frames)
    await store.close()


async def test_a_minute_begins_with_its_first_use_and_ends_whole(store: TaskStore) -> None:
    most = Quotas(frames=10)
    store.quotas.window_s = 0.3  # type: ignore[attr-defined]
    before = await store.quotas.charge(ACME, Amounts(), most)
    assert (before.window, before.left_s) == ("", 0.0)
    first = await store.quotas.charge(ACME, Amounts(frames=10), most)
    assert first.window
    assert 0 < first.left_s <= 0.3

    async def all_left() -> bool:
        standing = await store.quotas.charge(ACME, Amounts(), most)
        return standing.left("frames") == 10

    await until(all_left)
    second = await store.quotas.charge(ACME, Amounts(frames=10), most)
    assert second.granted
    assert second.window != first.window


async def test_what_is_given_back_is_left_again_in_its_minute_alone(store: TaskStore) -> None:
    most = Quotas(frames=10, clip_ms=100)
    charged = await store.quotas.charge(ACME, Amounts(frames=8, clip_ms=70), most)
    await store.quotas.give_back(ACME, Amounts(frames=8, clip_ms=70), "another minute")
    assert (await store.quotas.charge(ACME, Amounts(), most)).left("frames") == 2
    await store.quotas.give_back(ACME, Amounts(frames=8, clip_ms=70), charged.window)
    now = await store.quotas.charge(ACME, Amounts(), most)
    assert (now.left("frames"), now.left("clip_ms")) == (10, 100)


async def test_tenants_are_counted_apart(store: TaskStore) -> None:
    most = Quotas(frames=10)
    for owner in ("", ACME, "acme-2"):
        assert (await store.quotas.charge(owner, Amounts(frames=10), most)).granted
    record = owned(1)
    await store.create(record, pictures_of(record))
    assert (await used(store))[0] == 1
    assert await used(store, "acme-2") == (0, 0)
    assert await used(store, "") == (0, 0)


async def test_a_tenant_s_own_limits_stand_before_the_usual_ones(
    url: str, store: TaskStore
) -> None:
    grants = open_grants(url)
    assert not await store.limited()
    await grants.put(ACME, {"frames": 7, "tasks": None})
    await grants.put("default", {"frames": 3})
    assert await store.limited()
    usual = Quotas(tasks=1, frames=5, bytes=99)

    async def quotas_of(owner: str) -> Quotas:
        return (await store.quotas.charge(owner, Amounts(), usual)).quotas

    assert await quotas_of(ACME) == Quotas(tasks=None, frames=7, bytes=99)
    assert await quotas_of("") == Quotas(tasks=1, frames=3, bytes=99)
    assert await quotas_of("acme-2") == usual
    await grants.put(ACME, {"frames": 8})
    assert dict(await grants.list()) == {
        ACME: {"tasks": None, "frames": 8},
        "default": {"frames": 3},
    }
    await grants.put(ACME, {})
    assert await quotas_of(ACME) == usual
    await grants.put("default", {})
    assert not await store.limited()
    await grants.close()


async def test_tasks_and_their_bytes_are_counted_with_every_change(store: TaskStore) -> None:
    small, large = owned(1), owned(2)
    await store.create(small, pictures_of(small, 100))
    one = await used(store)
    await store.create(large, pictures_of(large, 5000))
    two = await used(store)
    assert (one[0], two[0]) == (1, 2)
    assert 200 < one[1] < 1200
    assert 20_000 < two[1] - one[1] < 21_000  # two clips of two pictures
    clip = replace(large.clips[0], clip_id="new")
    grown = replace(large, revision=2, clips=(large.clips[0], clip))
    more: Pictures = {"new": (b"x" * 40_000,)}
    await store.replace(grown, expected_revision=1, pictures=more)
    third = await used(store)
    assert 29_000 < third[1] - two[1] < 31_000  # one clip of 10,000 went
    assert await store.delete(large.task_id)
    assert await used(store) == one
    assert await store.delete(small.task_id)
    assert await used(store) == (0, 0)


async def test_uploads_count_until_their_pictures_take_their_place(store: TaskStore) -> None:
    record = owned(1, state="uploaded")
    await store.create(record, pictures_of(record, 50_000))
    assert (await used(store))[1] > 100_000
    done = replace(record, revision=2, state="decoded")
    full = Quotas(bytes=0)
    await store.replace(done, expected_revision=1, pictures=pictures_of(done, 100), usual=full)
    assert (await used(store))[1] < 2000


async def test_a_task_whose_time_is_up_is_counted_no_more(store: TaskStore) -> None:
    record = owned(1, expires_at=time.time() + 0.4)
    lasting = owned(2, expires_at=time.time() + 1000)
    await store.create(lasting, pictures_of(lasting))
    await store.create(record, pictures_of(record))
    assert (await used(store))[0] == 2

    async def gone() -> bool:
        return (await used(store))[0] == 1

    await until(gone)


async def test_at_the_edge_exactly_as_many_tasks_are_made_as_there_is_room(
    store: TaskStore,
) -> None:
    most = Quotas(tasks=5)

    async def make(number: int) -> bool:
        record = owned(number)
        with contextlib.suppress(QuotaFullError):
            await store.create(record, pictures_of(record), most)
            return True
        return False

    made = await asyncio.gather(*map(make, range(12)))
    assert sum(made) == 5
    assert (await used(store))[0] == 5
    assert len((await store.list(limit=50, cursor=None, owner=ACME))[0]) == 5
    with pytest.raises(QuotaFullError, match="keep 5 tasks"):
        await store.create(owned(99), pictures_of(owned(99)), most)


async def test_bytes_are_refused_where_the_task_would_be_kept_and_nothing_of_it_stays(
    store: TaskStore,
) -> None:
    first, second = owned(1), owned(2)
    await store.create(first, pictures_of(first, 5000), Quotas(bytes=22_000))
    before = await used(store)
    with pytest.raises(QuotaFullError, match="22000 bytes") as caught:
        await store.create(second, pictures_of(second, 5000), Quotas(bytes=22_000))
    assert caught.value.kind == "bytes"
    grown = replace(first, revision=2, clips=(*first.clips, replace(first.clips[0], clip_id="new")))
    more: Pictures = {"new": (b"x" * 5000,)}
    with pytest.raises(QuotaFullError):
        await store.replace(grown, expected_revision=1, pictures=more, usual=Quotas(bytes=22_000))
    assert await used(store) == before
    assert await store.get(first.task_id) == first
    assert await store.pictures(first.task_id) == pictures_of(first, 5000)
    renamed = replace(first, revision=2, name="anew")  # it brings nothing, so it may be made
    await store.replace(renamed, expected_revision=1, usual=Quotas(bytes=1))
    less = replace(renamed, revision=3, clips=renamed.clips[:1])
    await store.replace(less, expected_revision=2, usual=Quotas(bytes=1))
    assert (await used(store))[1] < before[1]


async def test_tasks_from_before_they_were_counted_are_counted(url: str, store: TaskStore) -> None:
    records = [owned(1), owned(2, expires_at=time.time() + 1000), a_task()]
    for record in records:
        await store.create(record, pictures_of(record))
    counted = [await used(store), await used(store, "")]
    async with opened_uncounted(store, url) as again:
        await again.quotas.reckon()
        assert [await used(again), await used(again, "")] == counted
        assert await again.delete(records[0].task_id)
        assert (await used(again))[0] == 1


@contextlib.asynccontextmanager
async def opened_uncounted(store: TaskStore, url: str) -> AsyncIterator[TaskStore]:
    """Open a store anew that an older version left."""
    await store.close()
    await forget_counts(url)
    again = await open_store(url)
    try:
        yield again
    finally:
        await again.close()


async def forget_counts(url: str) -> None:
    """Leave a store as an older version does."""
    if url.startswith("sqlite:"):
        with contextlib.closing(sqlite3.connect(Path(url.partition(":")[2]))) as db, db:
            db.execute("DROP TABLE held")
        return
    options = RedisUrl.parse(url)
    client = connect(options)
    for kind in ("held", "ending", "ends"):
        for owner in (ACME, "default"):
            await client.delete(f"{options.prefix}:{kind}:{owner}")
    await client.aclose()


async def test_a_service_with_a_quota_counts_older_tasks_before_it_serves(
    url: str, store: TaskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the store is away at first."""
    record = owned(1)
    await store.create(record, pictures_of(record))
    async with opened_uncounted(store, url) as again:
        reckon, tries = again.quotas.reckon, iter((StoreUnavailableError("away"), None))

        async def at_the_second_try() -> None:
            if (error := next(tries)) is not None:
                raise error
            await reckon()

        monkeypatch.setattr(again.quotas, "reckon", at_the_second_try)
        monkeypatch.setattr("service.tasks.quota.starting.LOOK_S", 0.01)
        of_service = Settings(checkpoint="none", store=url, quota_tasks=1)
        async with keeper_until(again, of_service) as keeper:
            assert (await keeper.standing(ACME)).left("tasks") == 0


async def test_a_change_of_a_task_that_is_not_counted_yet_makes_no_task(
    url: str, store: TaskStore
) -> None:
    record, other = owned(1, expires_at=time.time() + 1000), owned(2)
    for each in (record, other):
        await store.create(each, pictures_of(each, 5000))
    counted = await used(store)
    async with opened_uncounted(store, url) as again:
        renamed = replace(record, revision=2, name="anew")
        await again.replace(renamed, expected_revision=1, usual=Quotas(tasks=0, bytes=1))
        await again.quotas.reckon()
        assert await used(again) == counted


@pytest.fixture
async def behind(store: TaskStore, url: str) -> AsyncIterator[tuple[Redis, str]]:
    """Look behind the store's back, where that is a Redis: a client, and the prefix of keys."""
    if not isinstance(store, RedisStore):
        pytest.skip("one file holds tasks and counts")
    options = RedisUrl.parse(url)
    client = connect(options)
    yield client, options.prefix
    await client.aclose()


async def test_tasks_that_have_ended_are_let_go_of_without_any_quota(
    store: TaskStore, behind: tuple[Redis, str]
) -> None:
    """By each commit a part, and all of them where a limit is looked at."""
    client, prefix = behind
    ids = [f"{ACME}_{number:032x}" for number in range(1000, 1250)]
    ending = {**dict.fromkeys(ids, 3), ":bytes": 750}
    await client.hset(f"{prefix}:ending:{ACME}", mapping=ending)
    await client.zadd(f"{prefix}:ends:{ACME}", dict.fromkeys(ids, 1))
    first, second = owned(1, expires_at=time.time() + 1000), owned(2)
    await store.create(first, pictures_of(first))
    assert await client.zcard(f"{prefix}:ends:{ACME}") == 151
    await store.replace(replace(first, revision=2, name="anew"), expected_revision=1)
    assert await client.zcard(f"{prefix}:ends:{ACME}") == 51
    assert await client.hlen(f"{prefix}:ending:{ACME}") == 52
    await client.zadd(f"{prefix}:ends:{ACME}", dict.fromkeys(ids, 1))
    await store.create(second, pictures_of(second), Quotas(tasks=2))
    assert await client.zcard(f"{prefix}:ends:{ACME}") == 1
    assert (await used(store))[0] == 2


async def test_nothing_stays_of_a_tenant_that_never_comes_back_but_of_its_tasks_that_live(
    store: TaskStore, behind: tuple[Redis, str]
) -> None:
    client, prefix = behind
    held, *of_ending = (f"{prefix}:{kind}:{ACME}" for kind in ("held", "ending", "ends"))
    endless, later = owned(1), owned(2)
    for record in (endless, later, owned(3, expires_at=time.time() + 0.4)):
        await store.create(record, pictures_of(record))
    later = replace(later, revision=2, expires_at=time.time() + 1000)
    await store.replace(later, expected_revision=1)
    assert [await client.pttl(key) > 900_000 for key in (held, *of_ending)] == [False, True, True]
    soon = owned(4, expires_at=time.time() + 0.4)
    await store.create(soon, pictures_of(soon))
    assert await store.delete(later.task_id)

    async def gone() -> bool:
        return not await client.exists(*of_ending)

    await until(gone)
    assert {*await client.hkeys(held)} == {endless.task_id.encode(), b":bytes"}
    assert await store.delete(endless.task_id)
    assert not await client.exists(held)
    assert await used(store) == (0, 0)


async def test_tasks_that_end_are_moved_from_where_an_older_version_counted_them(
    store: TaskStore, behind: tuple[Redis, str]
) -> None:
    client, prefix = behind
    held, ending = (f"{prefix}:{kind}:{ACME}" for kind in ("held", "ending"))
    record = owned(1, expires_at=time.time() + 1000)
    await store.create(record, pictures_of(record))
    counted = await used(store)
    await client.rename(ending, held)
    assert await used(store) == counted
    await store.quotas.reckon()
    assert not await client.exists(held)
    assert await used(store) == counted


async def test_tasks_that_an_older_version_deleted_are_counted_no_more_with_a_new_limit(
    url: str, store: TaskStore, behind: tuple[Redis, str]
) -> None:
    client, prefix = behind
    kept, deleted = owned(1), owned(2, expires_at=time.time() + 1000)
    await store.create(kept, pictures_of(kept))
    before = await used(store)
    await store.create(deleted, pictures_of(deleted))
    await client.delete(f"{prefix}:task:{deleted.task_id}", f"{prefix}:pictures:{deleted.task_id}")
    assert (await used(store))[0] == 2
    grants = open_grants(url)
    await grants.put(ACME, {"tasks": 2})
    await grants.close()
    assert await used(store) == before
    assert not await client.exists(f"{prefix}:ends:{ACME}", f"{prefix}:ending:{ACME}")


async def test_a_limit_holds_once_older_tasks_are_counted(
    url: str, store: TaskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not isinstance(store, RedisStore):
        pytest.skip("a file counts them when it is opened")
    limited: list[bool] = []

    async def counting(client: Redis, prefix: str) -> None:
        limited.append(await store.limited())
        await count_all(client, prefix)

    monkeypatch.setattr("service.keys.redis.count_all", counting)
    grants = open_grants(url)
    await grants.put(ACME, {"tasks": 2})
    await grants.close()
    assert limited == [False]
    assert await store.limited()


async def test_a_store_without_memory_still_counts_rates(
    store: TaskStore, behind: tuple[Redis, str]
) -> None:
    client, _ = behind
    most = Quotas(frames=10)
    await client.config_set("maxmemory", 1)
    try:
        charged = await store.quotas.charge(ACME, Amounts(frames=8), most)
        assert charged.used.frames == 8
        assert not (await store.quotas.charge(ACME, Amounts(frames=8), most)).granted
        await store.quotas.give_back(ACME, Amounts(frames=8), charged.window)
        assert (await store.quotas.charge(ACME, Amounts(frames=9), most)).granted
    finally:
        await client.config_set("maxmemory", 0)


async def test_a_clock_that_is_set_back_makes_no_minute_longer(tmp_path: Path) -> None:
    now = 1000.0
    store = await SqliteStore.open(tmp_path / "kshot.db", now=lambda: now)
    most = Quotas(frames=1)
    assert (await store.quotas.charge(ACME, Amounts(frames=1), most)).granted
    now = 10.0
    assert (await store.quotas.charge(ACME, Amounts(frames=1), most)).granted
    await store.close()


def test_a_refusal_names_all_that_is_over() -> None:
    standing = Standing(Quotas(tasks=1, frames=10), Amounts(tasks=1, frames=4))
    assert standing.over(Amounts(tasks=1, frames=7)) == ["tasks", "frames"]
    assert standing.over(Amounts(frames=6, clip_ms=10**9)) == []
