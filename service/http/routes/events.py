"""A task's events, as they happen."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from service.http.content import STREAMED
from service.http.events.forms import as_events, told_by
from service.http.events.schemas import ANSWER, LAST_EVENT_ID
from service.http.openapi import problems
from service.http.routes.dependencies import ServiceDep, TaskId

router = APIRouter(prefix="/tasks/{task_id}", tags=["tasks"])


@router.get(
    "/events",
    response_class=Response,
    responses={200: ANSWER, **problems(404, 410, 422, 503)},
    openapi_extra=LAST_EVENT_ID,
    operation_id="watchTask",
)
async def events(task_id: TaskId, request: Request, service: ServiceDep) -> Response:
    """Tell how a task stands whenever that changes, as server-sent events."""
    found = service.watch.follow(task_id, told_by(request.headers.get("last-event-id")))
    try:
        first = await anext(found)  # what is wrong with the request has a status
    except StopAsyncIteration:  # the service stops
        return Response(status_code=204)
    return StreamingResponse(
        as_events(task_id, first, found), media_type="text/event-stream", headers=STREAMED
    )
