"""Tasks to store in tests, and a process that stores them until it is killed."""

import asyncio
import random
import secrets
import sys
import time
from multiprocessing.connection import Connection

from service.stores.errors import StoreUnavailableError
from service.stores.opening import open_store
from service.stores.records import ClipRecord, LabelRecord, TaskRecord

Pictures = dict[str, tuple[bytes, ...]]


def a_task(
    *,
    task_id: str | None = None,
    created_at: float | None = None,
    expires_at: float | None = None,
    clips: int = 3,
) -> TaskRecord:
    """Return a task of two labels."""
    return TaskRecord(
        task_id=task_id or secrets.token_hex(8),
        name="Gesten ✋",
        created_at=time.time() if created_at is None else created_at,
        expires_at=expires_at,
        revision=1,
        labels=tuple(
            LabelRecord(
                label=label, stages=("Begins.", "Goes on.", "Ends."), text_source="template"
            )
            for label in ("wave", "jump")
        ),
        clips=tuple(
            ClipRecord(
                clip_id=f"c{number}",
                label=number % 2,
                frames_s=(0.1, 0.3),
                duration_s=0.4,
                codec="h264",
                distinct=2,
                sha256=f"{number:064x}",
            )
            for number in range(clips)
        ),
    )


def pictures_of(record: TaskRecord, size: int = 2000) -> Pictures:
    """Return pictures that only this task has, from its id alone."""
    noise = random.Random(record.task_id)
    return {
        clip.clip_id: tuple(b"\x89PNG\r\n" + noise.randbytes(size) for _ in clip.frames_s)
        for clip in record.clips
    }


def create_for_ever(url: str, acknowledged: Connection, seed: int, size: int) -> None:
    """Create task after task, and send the id of each once `create` has returned."""

    async def work() -> None:
        store = await open_store(url)
        acknowledged.send("open")
        names = random.Random(seed)

        async def one_after_another() -> None:
            while True:
                record = a_task(task_id=f"{names.getrandbits(64):016x}")
                await store.create(record, pictures_of(record, size))
                acknowledged.send(record.task_id)

        await asyncio.gather(one_after_another(), one_after_another())

    try:
        asyncio.run(work())
    except StoreUnavailableError:
        sys.exit(1)
