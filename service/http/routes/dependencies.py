"""What routes may ask for.

All are coroutines: FastAPI would call a plain function in a thread, a hop for each and request.
"""

import math
import re
from collections.abc import Sequence
from typing import Annotated

from fastapi import Depends, Request

from service.container import Parts
from service.decoding.pool import ClipRequest
from service.http.body.reading import read_query, read_task
from service.http.tickets import Ticket
from service.stores.errors import TaskNotFoundError
from service.stores.records import is_id
from service.tasks.drafts import ClipDraft, TaskDraft

WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})\"?(?=$|[,;\s])", flags=re.IGNORECASE)
ASYNC = re.compile(r"(?:^|[,;\s])respond-async(?=$|[,;\s])", flags=re.IGNORECASE)


async def parts(request: Request) -> Parts:
    """Give the parts of the running service."""
    running = request.app.state.parts
    assert isinstance(running, Parts)
    return running


PartsDep = Annotated[Parts, Depends(parts)]


async def known_id(task_id: str) -> str:
    """Give the task id of the path, if it can be one.

    Raises:
        TaskNotFoundError: It cannot.
    """
    if not is_id(task_id):
        raise TaskNotFoundError(f"There is no task {task_id[:64]!r}; see GET /v1/tasks.")
    return task_id


async def wait_s(request: Request, running: PartsDep) -> float:
    """Give how long the client lets the request wait: the header `Prefer` (RFC 7240), capped."""
    prefer = ", ".join(request.headers.getlist("prefer"))
    if match := WAIT.search(prefer):
        return min(float(match[1]), running.settings.wait_s)
    return 0.0 if ASYNC.search(prefer) else running.settings.wait_s


async def ticket(request: Request) -> Ticket:
    """Give what the request was let in with."""
    given = request.scope["kshot.ticket"]
    assert isinstance(given, Ticket)
    return given


TicketDep = Annotated[Ticket, Depends(ticket)]


async def task_draft(request: Request, given: TicketDep, running: PartsDep) -> TaskDraft:
    """Give the task that the body asks for."""
    given.deadline.check("receiving")
    draft = await read_task(request, running.settings)
    _correct(given, [clip for label in draft.labels for clip in label.clips], running)
    return draft


async def query_drafts(
    request: Request, given: TicketDep, running: PartsDep
) -> tuple[ClipDraft, ...]:
    """Give the clips that the body asks about."""
    given.deadline.check("receiving")
    clips = await read_query(request, running.settings)
    _correct(given, clips, running)
    return clips


def _correct(given: Ticket, clips: Sequence[ClipDraft], running: Parts) -> None:
    """Put what the body holds in the place of what its length let one guess."""
    pace = running.pace()
    sources = [clip.source for clip in clips if isinstance(clip.source, ClipRequest)]
    given.hold.correct(
        decode_ms=math.ceil(1e3 * pace.decode_s_byte * sum(source.size for source in sources)),
        frames=pace.frames_clip * len(sources),
    )


TaskId = Annotated[str, Depends(known_id)]
WaitS = Annotated[float, Depends(wait_s)]
TaskDraftDep = Annotated[TaskDraft, Depends(task_draft)]
QueryDraftsDep = Annotated[tuple[ClipDraft, ...], Depends(query_drafts)]
