"""What only the SQLite store has to stand: full disks, a second owner, torn and foreign files."""

import asyncio
import contextlib
import os
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from service.stores import sqlite_file
from service.stores.errors import (
    StoreCorruptError,
    StoreError,
    StoreUnavailableError,
    TaskExpiredError,
    TaskNotFoundError,
)
from service.stores.opening import open_store
from service.stores.protocol import TaskStore
from service.stores.sqlite import SqliteStore
from service.stores.sqlite_cache import PRUNE_EVERY
from tests.stored_tasks import a_task, pictures_of

ROOT = Path(__file__).resolve().parents[2]
MIB = 2**20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kshot.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(path)
    yield opened
    await opened.close()


async def keep(store: TaskStore, size: int = 2000, **fields: float) -> str:
    record = a_task(**fields)  # type: ignore[arg-type]
    await store.create(record, pictures_of(record, size))
    return record.task_id


async def assert_whole(store: TaskStore, task_id: str, size: int = 2000) -> None:
    record = await store.get(task_id)
    assert await store.pictures(task_id) == pictures_of(record, size)


def size_of(path: Path) -> int:
    return path.stat().st_size


def bytes_of(path: Path) -> bytes:
    return path.read_bytes()


def made(path: Path, *task_sizes: int) -> list[str]:
    """Make a store with tasks, and close it."""

    async def make() -> list[str]:
        store = await SqliteStore.open(path)
        ids = [await keep(store, size) for size in task_sizes]
        await store.close()
        return ids

    return asyncio.run(make())


@contextlib.contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """Make the kernel refuse writes as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_commit_waits_for_the_disk(store: SqliteStore) -> None:
    (full, log) = (
        store._file._writer.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("synchronous", "journal_mode")
    )
    assert (full, log) == (2, "wal")


def test_each_create_is_synced_before_it_is_acknowledged(path: Path) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed: apt-get install strace")
    code = (
        "import asyncio, os, sys\n"
        "from service.stores.opening import open_store\n"
        "from tests.stored_tasks import a_task, pictures_of\n"
        "async def work():\n"
        "    store = await open_store(sys.argv[1])\n"
        "    for _ in range(3):\n"
        "        task = a_task()\n"
        "        os.write(2, b'ask')\n"
        "        await store.create(task, pictures_of(task))\n"
        "        os.write(2, b'told')\n"
        "    await store.close()\n"
        "asyncio.run(work())\n"
    )
    calls = ["-f", "-y", "-e", "trace=fsync,fdatasync,write", "-s", "8"]
    done = subprocess.run(
        [strace, *calls, sys.executable, "-c", code, f"sqlite:{path}"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"strace may not trace here: {done.stderr[-200:]}")
    steps = [
        "ask" if '"ask"' in line else "told" if '"told"' in line else "sync"
        for line in done.stderr.splitlines()
        if '"ask"' in line or '"told"' in line or ("sync(" in line and "kshot.db-wal" in line)
    ]
    assert len(re.findall("as+t", "".join(step[0] for step in steps))) == 3, steps


async def test_a_full_disk_is_unavailable_and_leaves_nothing_half_written(
    store: SqliteStore, path: Path
) -> None:
    kept = await keep(store)
    record = a_task()
    with files_no_larger_than(size_of(path) + 40_000), pytest.raises(StoreUnavailableError):
        await store.create(record, pictures_of(record, MIB))
    with pytest.raises(TaskNotFoundError):
        await store.get(record.task_id)
    await assert_whole(store, kept)
    await store.create(record, pictures_of(record))
    await assert_whole(store, record.task_id)


async def test_a_revision_that_does_not_fit_leaves_the_old_one(store: SqliteStore) -> None:
    record = a_task()
    await store.create(record, pictures_of(record))
    newer = a_task(task_id=record.task_id, created_at=record.created_at)
    object.__setattr__(newer, "revision", 2)
    with files_no_larger_than(100), pytest.raises(StoreUnavailableError):
        await store.replace(newer, expected_revision=1)
    assert await store.get(record.task_id) == record
    await store.replace(newer, expected_revision=1)
    assert await store.get(record.task_id) == newer


def on_a_small_disk(tmp_path: Path, code: str) -> str:
    """Run code whose `disk` is a tmpfs of 24 MiB; gives what it prints."""
    script = (
        "import asyncio, os, sys\nfrom pathlib import Path\n"
        "from service.stores import sqlite_file; from service.stores.opening import open_store\n"
        "from service.stores.errors import *\n"
        "from tests.stored_tasks import a_task, pictures_of\n"
        "disk = Path(sys.argv[1])\n" + code
    )
    mounted = f'mount -t tmpfs -o size=24m none {tmp_path} && exec {sys.executable} -c "$CODE" $0'
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", mounted, str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "CODE": script},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip(f"no file system can be mounted here: {done.stderr[-200:]}")
    assert done.returncode == 0, done.stderr
    return done.stdout


FILLED = """
async def work():
    store = await open_store(f"sqlite:{disk}/kshot.db")
    ids = []
    try:
        while True:
            task = a_task()
            await store.create(task, pictures_of(task, 100_000))
            ids.append(task.task_id)
    except StoreUnavailableError as error:
        print(error)
    await store.close()
    store = await open_store(f"sqlite:{disk}/kshot.db")
    assert {task.task_id for task in (await store.list(limit=100, cursor=None))[0]} == {*ids}
    for task_id in ids:
        assert await store.pictures(task_id) == pictures_of(await store.get(task_id), 100_000)
    if sqlite_file.RESERVE_BYTES:
        for task_id in ids[:3]:
            assert await store.delete(task_id)
        task = a_task()
        await store.create(task, pictures_of(task, 100_000))
    await store.close()
    print(len(ids))
asyncio.run(work())
"""


@pytest.mark.parametrize("reserve", [0, 2 * MIB])
def test_on_a_full_disk_all_that_was_acknowledged_stays(tmp_path: Path, reserve: int) -> None:
    """With the reserve, tasks can still be deleted, and then there is room for new ones."""
    said = on_a_small_disk(tmp_path, f"sqlite_file.RESERVE_BYTES = {reserve}\n{FILLED}")
    sentence, count = said.splitlines()
    assert "is full" in sentence
    assert int(count) > 3


async def test_a_file_has_one_owner_and_a_second_process_is_told(
    store: SqliteStore, path: Path
) -> None:
    with pytest.raises(StoreUnavailableError, match="in use by another process"):
        await open_store(f"sqlite:{path}")
    code = (
        "import asyncio, sys; from service.stores.opening import open_store; "
        "asyncio.run(open_store(sys.argv[1]))"
    )
    link = path.with_name("link.db")
    link.symlink_to(path)
    for name in (path, link):
        other = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", code, f"sqlite:{name}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "in use by another process; stop that one" in other.stderr
    await assert_whole(store, await keep(store))


def test_a_killed_owner_frees_the_file_at_once_though_a_child_lives_on(path: Path) -> None:
    code = (
        "import asyncio, subprocess, sys, time; from service.stores.opening import open_store\n"
        "async def hold():\n"
        "    store = await open_store(sys.argv[1])\n"
        "    child = subprocess.Popen(['sleep', '30'])\n"
        "    print(child.pid, flush=True)\n"
        "    time.sleep(60)\n"
        "asyncio.run(hold())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, f"sqlite:{path}"], cwd=ROOT, stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout is not None
        child = int(owner.stdout.readline())
        try:
            owner.kill()
            owner.wait()
            assert made(path, 2000)
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("content", [b"hello, world", b"\0" * 8192, b"SQLite format 3"])
async def test_a_file_of_another_kind_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    await asyncio.to_thread(path.write_bytes, content)
    with pytest.raises(StoreCorruptError, match=r"no SQLite database.* choose another file"):
        await open_store(f"sqlite:{path}")
    assert bytes_of(path) == content


async def test_the_database_of_another_program_is_refused_and_left_alone(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE theirs (x)")
    content = bytes_of(path)
    with pytest.raises(StoreCorruptError, match=r"kshot\.db: .*another program.* move it away"):
        await open_store(f"sqlite:{path}")
    assert bytes_of(path) == content


def test_a_newer_schema_is_refused_and_left_alone(path: Path) -> None:
    made(path, 2000)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version={sqlite_file.SCHEMA_VERSION + 1}")
    content = path.read_bytes()
    with pytest.raises(StoreCorruptError, match=r"schema 2, .*reads 1; run the version"):
        made(path)
    assert path.read_bytes() == content


def test_a_file_cut_short_is_damaged_and_never_empty(path: Path) -> None:
    made(path, 2000, 2000, 2000)
    whole = path.read_bytes()
    page = sqlite_file.PAGE_BYTES
    for size in (20, 100, 5000, page, page + 100, 3 * page, len(whole) - page, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(StoreCorruptError, match=r"damaged; stop .*restore it from a backup"):
            made(path)
        assert path.read_bytes() == whole[:size]
    path.write_bytes(whole)
    made(path)


def test_no_torn_page_crashes_and_none_gives_a_wrong_task(path: Path) -> None:
    ids = made(path, *[30_000] * 4)
    whole = path.read_bytes()
    page = sqlite_file.PAGE_BYTES

    async def read_all() -> int:
        store = await SqliteStore.open(path)
        try:
            for task_id in ids:
                await assert_whole(store, task_id, 30_000)
            return len((await store.list(limit=9, cursor=None))[0])
        finally:
            await store.close()

    noticed = 0
    for start in range(0, len(whole), page):
        for torn in (bytes(page), bytes(page // 2) + whole[start + page // 2 : start + page]):
            path.write_bytes(whole[:start] + torn + whole[start + page :])
            try:
                assert asyncio.run(read_all()) == len(ids)
            except (StoreCorruptError, TaskNotFoundError):
                noticed += 1
    assert noticed > len(whole) // page  # the others held nothing, or nothing in that half


def test_a_log_without_its_file_is_not_thrown_away(path: Path) -> None:
    code = (
        "import asyncio, os, sys\nfrom service.stores.opening import open_store\n"
        "from tests.stored_tasks import a_task, pictures_of\n"
        "async def work():\n"
        "    store = await open_store(sys.argv[1])\n"
        "    task = a_task()\n"
        "    await store.create(task, pictures_of(task))\n"
        "    os.kill(os.getpid(), 9)\n"
        "asyncio.run(work())\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, f"sqlite:{path}"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    kept = path.read_bytes()
    for damage in (path.unlink, lambda: path.write_bytes(b"")):
        damage()
        with pytest.raises(StoreCorruptError, match="write-ahead log is not"):
            made(path)
    path.write_bytes(kept)

    async def count() -> int:
        store = await SqliteStore.open(path)
        listed, _ = await store.list(limit=9, cursor=None)
        await store.close()
        return len(listed)

    assert asyncio.run(count()) == 1


async def test_a_file_that_went_away_is_unavailable_and_not_empty(
    store: SqliteStore, path: Path
) -> None:
    kept = await keep(store)
    aside = path.with_name("aside.db")
    await asyncio.to_thread(path.rename, aside)
    record = a_task()
    for work in (
        store.ping(),
        store.get(kept),
        store.get("abc"),
        store.create(record, pictures_of(record)),
        store.delete(kept),
    ):
        with pytest.raises(StoreUnavailableError, match="moved, replaced or deleted"):
            await work
    await asyncio.to_thread(aside.rename, path)
    await assert_whole(store, kept)


@pytest.mark.parametrize("suffix", ["", "-wal"])
async def test_nothing_is_acknowledged_into_a_deleted_file(
    store: SqliteStore, path: Path, suffix: str
) -> None:
    await keep(store)
    path.with_name(path.name + suffix).unlink()
    with pytest.raises(StoreUnavailableError, match="moved, replaced or deleted"):
        await keep(store)


async def test_deleting_gives_the_room_back(store: SqliteStore, path: Path) -> None:
    first = await keep(store)
    await store.sweep()
    small = size_of(path)
    large = [await keep(store, MIB) for _ in range(3)]
    await store.sweep()
    assert size_of(path) > small + 15 * MIB
    kept = await keep(store, MIB)
    for task_id in large:  # the one that stays lies behind them
        assert await store.delete(task_id)
    assert small + 6 * MIB <= size_of(path) < small + 7 * MIB
    assert size_of(path.with_name(path.name + "-wal")) == 0
    for task_id, size in ((first, 2000), (kept, MIB)):
        await assert_whole(store, task_id, size)
    await store.delete(kept)
    assert size_of(path) <= small + 2 * sqlite_file.PAGE_BYTES


async def test_the_log_stays_short(store: SqliteStore, path: Path) -> None:
    log = path.with_name(path.name + "-wal")
    for _ in range(20):
        await keep(store, MIB)
    await store._shield.drain()
    assert log.stat().st_size < 3 * 6 * MIB  # 20 tasks of 6 MiB went through it


async def test_expired_tasks_are_swept_without_being_asked(path: Path) -> None:
    moment = 1000.0
    store = await SqliteStore.open(path, now=lambda: moment, sweep_s=0.01)
    task_id = await keep(store, created_at=1.0, expires_at=1001.0)
    moment = 1002.0
    with contextlib.closing(sqlite3.connect(path)) as db:
        for _ in range(500):
            if not db.execute("SELECT 1 FROM tasks").fetchall():
                break
            await asyncio.sleep(0.01)
        else:
            pytest.fail("nobody swept")
        assert db.execute("SELECT task_id FROM tombstones").fetchall() == [(task_id,)]
    with pytest.raises(TaskExpiredError):
        await store.get(task_id)
    await store.close()


async def test_a_wrong_expiry_beside_a_record_removes_no_task(
    store: SqliteStore, path: Path
) -> None:
    kept = await keep(store)
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE tasks SET expires_at = 1.0")
    await store.sweep()
    await assert_whole(store, kept)


async def test_a_file_of_a_version_without_supports_opens_and_keeps_some(path: Path) -> None:
    task_id = (await asyncio.to_thread(made, path, 2000))[0]
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.executescript("DROP TABLE supports; DROP TABLE uses")
    store = await SqliteStore.open(path)
    record = await store.get(task_id)
    await store.put_supports(record, "1/one", b"kept")
    await store.note_uses({task_id: 1.0})
    await store.close()
    with contextlib.closing(sqlite3.connect(path)) as db, db:  # as that version does
        db.execute("DELETE FROM tasks")
    store = await SqliteStore.open(path)
    await store.close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT * FROM supports").fetchall() == []
        assert db.execute("SELECT * FROM uses").fetchall() == []


async def test_the_text_cache_stays_bounded_and_drops_what_expires_first(path: Path) -> None:
    store = await SqliteStore.open(path, text_entries=50)
    for number in range(PRUNE_EVERY):
        await store.put_text(f"key {number}", b"x", ttl_s=100 + number)
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM texts").fetchone() == (50,)
    assert await store.get_text(f"key {PRUNE_EVERY - 1}") == b"x"
    assert await store.get_text("key 0") is None
    await store.close()


async def test_a_damaged_text_counts_as_absent(store: SqliteStore, path: Path) -> None:
    await store.put_text("key", b"value", ttl_s=100)
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE texts SET value = substr(value, 1, length(value) - 1)")
    assert await store.get_text("key") is None
    await store.put_text("key", b"value", ttl_s=100)
    assert await store.get_text("key") == b"value"


async def test_reads_go_on_while_another_program_holds_up_a_write(
    store: SqliteStore, path: Path
) -> None:
    kept = await keep(store)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        writing = asyncio.create_task(keep(store))
        started = time.perf_counter()
        for _ in range(50):
            await store.get(kept)
        assert time.perf_counter() - started < 2
        assert not writing.done()
        other.execute("COMMIT")
    await assert_whole(store, await writing)


async def test_a_lock_that_another_program_keeps_is_named(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "BUSY_S", 0.1)
    store = await SqliteStore.open(path)
    kept = await keep(store)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError, match="Another program locks"):
            await keep(store)
        await assert_whole(store, kept)
        other.execute("COMMIT")
    await assert_whole(store, await keep(store))
    await store.close()


async def test_a_backup_that_reads_for_long_holds_nobody_up(store: SqliteStore, path: Path) -> None:
    kept = await keep(store)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as backup:
        backup.execute("BEGIN")
        backup.execute("SELECT count(*) FROM tasks").fetchone()
        started = time.perf_counter()
        assert await store.delete(kept)
        other = await keep(store)
        assert time.perf_counter() - started < 3
        assert backup.execute("SELECT task_id FROM tasks").fetchall() == [(kept,)]
    await assert_whole(store, other)


async def test_the_event_loop_never_waits_for_the_file(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[threading.Thread] = set()

    check = store._file._check_in_place

    def watched() -> None:
        threads.add(threading.current_thread())
        check()

    monkeypatch.setattr(store._file, "_check_in_place", watched)
    task_id = await keep(store)
    await assert_whole(store, task_id)
    await store.list(limit=1, cursor=None)
    await store.put_text("key", b"x", ttl_s=1)
    await store.get_text("key")
    await store.sweep()
    await store.ping()
    await store.delete(task_id)
    assert threads
    assert threading.main_thread() not in threads


async def test_work_that_runs_at_closing_ends_whole(path: Path) -> None:
    store = await SqliteStore.open(path)
    tasks = [a_task() for _ in range(8)]
    creating = [asyncio.create_task(store.create(t, pictures_of(t, 200_000))) for t in tasks]
    await asyncio.sleep(0.01)
    await store.close()
    await asyncio.gather(*creating)
    store = await SqliteStore.open(path)
    for task in tasks:
        await assert_whole(store, task.task_id, 200_000)
    await store.close()


async def test_a_path_that_cannot_be_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for wrong in (tmp_path, tmp_path / "file" / "kshot.db"):
        with pytest.raises(StoreError, match=r"cannot be used|choose another"):
            await open_store(f"sqlite:{wrong}")


async def test_a_file_with_two_names_is_refused(path: Path) -> None:
    await (await SqliteStore.open(path)).close()
    path.with_name("other.db").hardlink_to(path)
    with pytest.raises(StoreUnavailableError, match="several hard links; keep one"):
        await open_store(f"sqlite:{path}")


@pytest.mark.parametrize("url", ["", "sqlite:", "file:/x", "memory", "http://x"])
async def test_an_unknown_kind_of_store_is_refused(url: str) -> None:
    with pytest.raises(StoreUnavailableError, match="use sqlite:PATH"):
        await open_store(url)


async def test_the_old_folder_store_is_named_with_its_successor(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match=r"set KSHOT_STORE=sqlite:PATH.*register"):
        await open_store(f"dir:{tmp_path}")
