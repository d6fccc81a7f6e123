"""Remembered queries of a task, on their way into a file and out of it into another store."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace

from model.media.keeping import encode_pictures
from service.decoding.pool import ClipRequest, DecodePool
from service.stores.inboxes.kept import Query, bounds_of
from service.stores.protocol import TaskStore
from service.stores.records import TaskRecord
from service.tasks.inputs import ClipInput, decode_clips, refuse_clips

TOGETHER = 16  # queries whose frames are held at once


async def remembered(store: TaskStore, record: TaskRecord) -> list[Query]:
    """Return the queries of a task that nobody has answered, the oldest first."""
    queries = sorted(await store.inbox.list(record.task_id), key=lambda query: query.at)
    found = [
        await store.inbox.get(record.task_id, query.query_id)
        for query in queries
        if not record.has_answered(query.query_id)
    ]
    return [query for query in found if query is not None]


async def decoded(
    pool: DecodePool, queries: Sequence[Query], pictures: tuple[int, int], first: int
) -> list[Query]:
    """Return queries of a file with pictures as this checkpoint takes them.

    Args:
        pool: Decodes them, since they are untrusted.
        queries: Of the file.
        pictures: Fewest and most of a clip.
        first: Place of the first one in the file, after all clips.

    Raises:
        ClipsRefusedError: A picture cannot be used.
    """
    made: list[Query] = []
    for begin in range(0, len(queries), TOGETHER):
        part = queries[begin : begin + TOGETHER]
        inputs = [
            ClipInput(
                first + begin + place,
                ClipRequest(video=None, pictures=fitting(shown, pictures)),
                query.clip.name,
            )
            for place, (query, shown) in enumerate(part)
        ]
        clips, faults = await decode_clips(pool, inputs, "register")
        if faults:
            raise refuse_clips(faults, first + len(queries))
        for given, (query, _) in zip(inputs, part, strict=True):
            clip = clips.pop(given.index)
            kept = await asyncio.to_thread(encode_pictures, clip.frames_THWC)
            times_s = query.clip.frames_s
            if len(times_s) != len(clip.times_s):
                times_s = tuple(max(0.0, float(time_s)) for time_s in clip.times_s)
            own = replace(query.clip, frames_s=times_s)
            made.append((replace(query, clip=own, size=sum(map(len, kept))), kept))
    return made


async def keep(
    store: TaskStore, record: TaskRecord, queries: Sequence[Query], keep_s: float
) -> None:
    """Remember the queries of a file, no longer than they were to be, nor than is usual here."""
    now, bounds = time.time(), bounds_of(record.inbox)
    for query, pictures in queries:
        until = min(query.until, now + keep_s)
        if until > now:
            own = replace(query, at=min(query.at, now), until=until)
            await store.inbox.add(record.task_id, own, pictures, bounds)


def fitting(pictures: Sequence[bytes], bounds: tuple[int, int]) -> tuple[bytes, ...]:
    """Return as many pictures as a clip may have: each repeated, or some left out, evenly."""
    least, most = bounds
    count = len(pictures)
    wanted = min(most, count * -(-least // count))
    return tuple(pictures[place * count // wanted] for place in range(wanted))
