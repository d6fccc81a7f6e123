"""When a long video shows which label of a task."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from service.http.content import JSON, STREAMED
from service.http.openapi import PREFER, problems, timeout
from service.http.routes.dependencies import AllowanceDep, RequestId, ServiceDep, TaskId, WaitS
from service.http.timeline.document import ANSWER, REQUEST
from service.http.timeline.forms import as_csv, as_events, as_vtt
from service.http.timeline.reading import CSV, EVENTS, VTT, form_of_answer, sent_video
from service.http.timeline.views import Shown, whole
from service.tasks.timeline.follow import Begun

router = APIRouter(prefix="/tasks/{task_id}", tags=["tasks"])
HEADERS: dict[str, Any] = {
    "parameters": [PREFER, timeout("Milliseconds the timeline may take; then 504.")]
}


@router.post(
    "/timeline",
    response_class=Response,
    responses={200: ANSWER, **problems(400, 404, 406, 408, 409, 410, 413, 415, 422, 429, 503, 504)},
    openapi_extra=REQUEST | HEADERS,
    operation_id="timeline",
)
async def timeline(
    task_id: TaskId,
    request: Request,
    wait_s: WaitS,
    allowance: AllowanceDep,
    service: ServiceDep,
    request_id: RequestId,
) -> Response:
    """Tell when a video shows which label; what shows none is background."""
    form = form_of_answer(", ".join(request.headers.getlist("accept")))
    allowance.deadline.check("receiving")
    async with AsyncExitStack() as stack:
        sent = await stack.enter_async_context(sent_video(request, service.limits))
        shown = Shown(service.engine.model, sent.name, sent.scores)
        video = sent.file.fileno()
        events = service.follower.follow(task_id, video, sent.options, wait_s, allowance)
        await stack.enter_async_context(aclosing(events))
        if form == EVENTS:
            begun = await anext(events)  # what is wrong with the request has a status
            assert isinstance(begun, Begun)
            failed = (lambda _: None) if allowance.purse is None else allowance.purse.failed
            written = as_events(begun, events, shown, request_id, failed)
            closing = _closing(written, stack.pop_all())
            return StreamingResponse(closing, media_type=EVENTS, headers=STREAMED)
        found = await whole(events, shown)
    match form:
        case "text/csv":
            return Response(as_csv(found), media_type=CSV)
        case "text/vtt":
            return Response(as_vtt(found), media_type=VTT)
        case _:
            return Response(found.model_dump_json(), media_type=JSON)


async def _closing(written: AsyncIterator[str], stack: AsyncExitStack) -> AsyncIterator[str]:
    """Close the video when the last event is written, or nobody reads them any more."""
    async with stack:
        async for event in written:
            yield event
