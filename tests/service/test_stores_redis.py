"""What only the Redis store has to stand: servers that do not keep, do not answer, or are full."""

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.stores.errors import StoreUnavailableError, TaskNotFoundError
from service.stores.opening import open_store
from service.stores.redis import RedisStore, translated
from tests.redis_server import RedisServer, redis_server
from tests.stored_tasks import a_task, pictures_of


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path / "redis") as running:
        yield running


def waits_for_its_file(server: RedisServer) -> bool:
    with server.client() as client:
        version = client.info("server")["redis_version"]
    return tuple(map(int, version.split(".")[:2])) >= (7, 2)


async def test_a_server_without_append_only_file_is_refused(tmp_path: Path) -> None:
    with redis_server(tmp_path, appendonly="no") as server:
        with pytest.raises(StoreUnavailableError, match="--appendonly yes"):
            await open_store(server.url)
        store = await open_store(f"{server.url}?durability=none")
        record = a_task()
        await store.create(record, pictures_of(record))
        assert await store.get(record.task_id) == record
        await store.close()


async def test_everysec_is_waited_for_or_refused(tmp_path: Path) -> None:
    with redis_server(tmp_path, appendfsync="everysec") as server:
        if not waits_for_its_file(server):
            with pytest.raises(StoreUnavailableError, match="set it to always"):
                await open_store(server.url)
            return
        store = await open_store(server.url)
        record = a_task()
        await store.create(record, pictures_of(record))
        with server.client() as client:
            assert client.info("commandstats")["cmdstat_waitaof"]["calls"] == 1
            assert client.info("persistence")["aof_pending_bio_fsync"] == 0
        await store.close()


async def test_a_server_that_never_syncs_is_refused(tmp_path: Path) -> None:
    refused = pytest.raises(StoreUnavailableError, match="fsync")
    with redis_server(tmp_path, appendfsync="no") as server, refused:
        await open_store(server.url)


async def test_a_server_that_stops_syncing_acknowledges_nothing(server: RedisServer) -> None:
    store = await open_store(server.url)
    with server.client() as client:
        client.config_set("appendonly", "no")
    record = a_task()
    with pytest.raises(StoreUnavailableError):
        await store.create(record, pictures_of(record))
    await store.close()


@pytest.mark.parametrize("maxmemory", ["100mb", "0"])  # 0: until somebody sets it
@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_a_server_that_may_evict_tasks_is_refused(
    tmp_path: Path, policy: str, maxmemory: str
) -> None:
    options = {"maxmemory": maxmemory, "maxmemory_policy": policy}
    refused = pytest.raises(StoreUnavailableError, match="CONFIG SET maxmemory-policy noeviction")
    with redis_server(tmp_path, **options) as server, refused:
        await open_store(server.url)


async def test_a_full_server_is_unavailable_and_lists_nothing_half_written(tmp_path: Path) -> None:
    with redis_server(tmp_path, maxmemory="8mb", maxmemory_policy="noeviction") as server:
        store = await RedisStore.open(server.url, chunk_bytes=100_000)
        record = a_task(clips=20)
        with pytest.raises(StoreUnavailableError, match="memory of the task store is full"):
            await store.create(record, pictures_of(record, 200_000))
        assert (await store.list(limit=10, cursor=None))[0] == []
        with pytest.raises(TaskNotFoundError):
            await store.get(record.task_id)
        small = a_task()
        await store.create(small, pictures_of(small))  # the room was given back
        await store.close()


async def test_a_server_that_hangs_is_unavailable_in_time(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.stores.redis.REPLY_S", 0.3)
    store = await open_store(server.url)
    record = a_task()
    await store.create(record, pictures_of(record))
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(5):
            with pytest.raises(StoreUnavailableError, match="TimeoutError"):
                await store.get(record.task_id)
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    other = a_task()
    await store.create(other, pictures_of(other))
    for task in (record, other):  # the late reply reached nobody
        assert await store.get(task.task_id) == task
    await store.close()


async def test_nobody_there_is_unavailable() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"redis://user:secret@127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(StoreUnavailableError) as caught:
            await open_store(url)
    assert "secret" not in str(caught.value)
    assert "127.0.0.1" not in str(caught.value)


async def test_a_wrong_password_is_unavailable(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        with server.client() as client:
            client.config_set("requirepass", "right")
        url = server.url.replace("redis://", "redis://:{}@")
        with pytest.raises(StoreUnavailableError, match="Authentication"):
            await open_store(url.format("wrong"))
        await (await open_store(url.format("right"))).close()


@pytest.mark.parametrize("url", ["redis://[", "redis://h:port", "redis://h?durability=some"])
async def test_a_url_that_cannot_be_read_is_refused(url: str) -> None:
    with pytest.raises(StoreUnavailableError, match=r"cannot be read|no durability"):
        await open_store(url)


async def test_installations_with_own_prefixes_share_a_server(server: RedisServer) -> None:
    one = await open_store(f"{server.url}?prefix=one&decode_responses=true&protocol=3")
    two = await open_store(f"{server.url}?prefix=two")
    record = a_task()
    await one.create(record, pictures_of(record))
    assert (await two.list(limit=9, cursor=None))[0] == []
    with pytest.raises(TaskNotFoundError):
        await two.get(record.task_id)
    assert await one.pictures(record.task_id) == pictures_of(record)
    await one.close()
    await two.close()


async def test_replicas_share_tasks(server: RedisServer) -> None:
    one, two = await open_store(server.url), await open_store(server.url)
    record = a_task()
    await one.create(record, pictures_of(record))
    assert await two.pictures(record.task_id) == pictures_of(record)
    assert await two.delete(record.task_id)
    with pytest.raises(TaskNotFoundError):
        await one.get(record.task_id)
    await one.close()
    await two.close()


async def test_a_unix_socket_serves_as_well(tmp_path: Path) -> None:
    with redis_server(tmp_path, unixsocket=str(tmp_path / "s")) as _:
        store = await open_store(f"unix://{tmp_path / 's'}?db=0")
        record = a_task()
        await store.create(record, pictures_of(record))
        assert await store.get(record.task_id) == record
        await store.close()


async def test_a_listing_drops_what_redis_removed(server: RedisServer) -> None:
    store = await open_store(server.url)
    record = a_task()
    await store.create(record, pictures_of(record))
    with server.client() as client:
        client.delete(f"kshot:task:{record.task_id}")
        assert (await store.list(limit=9, cursor=None))[0] == []
        assert client.zcard("kshot:index") == 0
    await store.close()


async def test_a_commit_whose_pictures_vanished_is_refused(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.stores.redis_commit.ASIDE_S", 0)  # gone at once
    store = await open_store(server.url)
    record = a_task()
    with pytest.raises(StoreUnavailableError, match="lost pictures"):
        await store.create(record, pictures_of(record))
    with pytest.raises(TaskNotFoundError):
        await store.get(record.task_id)
    await store.close()


async def test_a_connection_that_ends_while_it_is_written_to_is_a_redis_that_is_away() -> None:
    """Uvloop has an error of its own for it, which redis-py passes on."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        address = server.sockets[0].getsockname()
        _, writer = await asyncio.open_connection(*address)
        writer.transport.abort()
        await asyncio.sleep(0)
        with pytest.raises(StoreUnavailableError, match="RuntimeError"), translated():
            writer.writelines([b"PING"])
    with pytest.raises(RuntimeError, match="another"), translated():
        raise RuntimeError("another")
