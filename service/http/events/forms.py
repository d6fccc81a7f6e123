"""Events of a task as they are sent, and the id by which a reader takes up where it was cut off."""

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import get_args

from service.http.events.schemas import EventView
from service.tasks.events.standing import Event, Standing, Status

SENT_ID = re.compile(rf"(\d{{1,9}})-({'|'.join(get_args(Status))})-(\d{{1,3}})")
STILL_THERE = ":\n\n"  # a comment, which readers pass over


def id_of(standing: Standing) -> str:
    """Return an id that says all that its reader has been told."""
    return f"{standing.revision}-{standing.status}-{standing.percent}"


def told_by(event_id: str | None) -> Standing | None:
    """Return what a reader was told before; None where that cannot be told."""
    found = SENT_ID.fullmatch((event_id or "").strip())
    if found is None:
        return None
    (status,) = (each for each in get_args(Status) if each == found[2])
    return Standing(int(found[1]), status, int(found[3]))


async def as_events(
    task_id: str, first: Event | None, others: AsyncGenerator[Event | None]
) -> AsyncGenerator[str]:
    """Write events; the source of the others is closed with this."""
    async with aclosing(others):
        yield STILL_THERE if first is None else written(task_id, first)
        async for event in others:
            yield STILL_THERE if event is None else written(task_id, event)


def written(task_id: str, event: Event) -> str:
    """Write one event."""
    standing = event.standing
    view = EventView(
        task_id=task_id,
        revision=standing.revision,
        status="deleted" if event.kind == "deleted" else standing.status,
        progress=standing.percent / 100,
        failure=standing.failure,
    )
    data = view.model_dump_json()
    return f"id: {id_of(standing)}\nevent: {event.kind}\ndata: {data}\n\n"
