"""What only the folder store has to stand: full disks, a second owner, leftovers, lost power."""

import asyncio
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.stores.directory import DirectoryStore
from service.stores.errors import StoreUnavailableError, TaskNotFoundError
from service.stores.opening import open_store
from service.stores.text_files import SWEEP_EVERY
from tests.stored_tasks import a_task, pictures_of


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """Make the kernel refuse writes as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def files_of(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


async def test_a_full_disk_is_unavailable_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    store = await open_store(f"dir:{tmp_path}")
    kept = a_task()
    await store.create(kept, pictures_of(kept))
    before = files_of(tmp_path)
    record = a_task()
    with files_no_larger_than(3000), pytest.raises(StoreUnavailableError, match="is full"):
        await store.create(record, pictures_of(record))
    assert files_of(tmp_path) == before
    with pytest.raises(TaskNotFoundError):
        await store.get(record.task_id)
    await store.create(record, pictures_of(record))
    assert await store.pictures(record.task_id) == pictures_of(record)
    await store.close()


async def test_a_revision_that_does_not_fit_leaves_the_old_one(tmp_path: Path) -> None:
    store = await open_store(f"dir:{tmp_path}")
    record = a_task()
    await store.create(record, pictures_of(record))
    newer = a_task(task_id=record.task_id, created_at=record.created_at)
    object.__setattr__(newer, "revision", 2)
    with files_no_larger_than(100), pytest.raises(StoreUnavailableError, match="is full"):
        await store.replace(newer, expected_revision=1)
    assert await store.get(record.task_id) == record
    await store.replace(newer, expected_revision=1)
    assert await store.get(record.task_id) == newer
    await store.close()


async def test_a_folder_has_one_owner(tmp_path: Path) -> None:
    store = await open_store(f"dir:{tmp_path}")
    with pytest.raises(StoreUnavailableError, match="in use by another process"):
        await open_store(f"dir:{tmp_path}")
    await store.close()
    await (await open_store(f"dir:{tmp_path}")).close()


async def test_leftovers_of_a_crash_are_ignored_and_swept(tmp_path: Path) -> None:
    store = await open_store(f"dir:{tmp_path}")
    record = a_task()
    await store.create(record, pictures_of(record))
    for name in (".aside-half", ".trash-half"):
        (tmp_path / "tasks" / name).mkdir()
        (tmp_path / "tasks" / name / "record").write_bytes(b"half")
    (tmp_path / "tasks" / record.task_id / ".aside-record").write_bytes(b"half")
    assert [task.task_id for task in (await store.list(limit=9, cursor=None))[0]] == [
        record.task_id
    ]
    with pytest.raises(TaskNotFoundError):
        await store.get(".aside-half")
    await store.close()
    store = await open_store(f"dir:{tmp_path}")
    assert not any("half" in name or ".aside" in name for name in files_of(tmp_path))
    assert await store.pictures(record.task_id) == pictures_of(record)
    await store.close()


async def test_syncs_files_then_folder_then_renames_then_syncs_the_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await open_store(f"dir:{tmp_path}")
    done: list[str] = []
    fsync, rename = os.fsync, os.rename

    def watched_fsync(descriptor: int) -> None:
        fsync(descriptor)
        done.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)

    def watched_rename(source: Path, target: Path) -> None:
        rename(source, target)
        done.append(f"{Path(source).name[:7]} -> {Path(target).name}")

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "rename", watched_rename)
    record = a_task()
    await store.create(record, pictures_of(record))
    assert done[:4] == ["record", "c0.pictures", "c1.pictures", "c2.pictures"]
    assert done[4].startswith(".aside-")
    assert done[5:] == [f".aside- -> {record.task_id}", "tasks"]
    await store.close()


async def test_expired_tasks_are_swept_without_being_asked(tmp_path: Path) -> None:
    moment = 1000.0
    store = await DirectoryStore.open(tmp_path, now=lambda: moment, sweep_s=0.01)
    record = a_task(created_at=1.0, expires_at=1001.0)
    await store.create(record, pictures_of(record))
    moment = 1002.0
    for _ in range(500):
        if not (tmp_path / "tasks" / record.task_id).exists():
            break
        await asyncio.sleep(0.01)
    else:
        pytest.fail("nobody swept")
    await store.close()


async def test_the_text_cache_stays_bounded_and_drops_what_expires_first(tmp_path: Path) -> None:
    store = await DirectoryStore.open(tmp_path, text_entries=50)
    for number in range(SWEEP_EVERY):
        await store.put_text(f"key {number}", b"x", ttl_s=100 + number)
    assert len(list((tmp_path / "text").iterdir())) == 50
    assert await store.get_text(f"key {SWEEP_EVERY - 1}") == b"x"
    assert await store.get_text("key 0") is None
    await store.close()


async def test_a_damaged_text_counts_as_absent(tmp_path: Path) -> None:
    store = await open_store(f"dir:{tmp_path}")
    await store.put_text("key", b"value", ttl_s=100)
    (path,) = (tmp_path / "text").iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    assert await store.get_text("key") is None
    assert not path.exists()
    await store.close()


async def test_a_folder_that_went_away_is_unavailable_and_not_empty(tmp_path: Path) -> None:
    store = await open_store(f"dir:{tmp_path / 'store'}")
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    with pytest.raises(StoreUnavailableError, match="ENOENT"):
        await store.get("abc")
    with pytest.raises(StoreUnavailableError):
        await store.ping()
    await store.close()


async def test_a_path_that_cannot_be_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreUnavailableError, match="cannot be used"):
        await open_store(f"dir:{tmp_path / 'file'}")


@pytest.mark.parametrize("url", ["", "dir:", "file:/x", "memory", "http://x"])
async def test_an_unknown_kind_of_store_is_refused(url: str) -> None:
    with pytest.raises(StoreUnavailableError, match="use dir:PATH"):
        await open_store(url)
