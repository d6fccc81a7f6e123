"""Queries that a task remembers: the least certain first, and what people say they are."""

from fastapi import APIRouter, Request, Response

from service.container import Service
from service.errors import FieldFault, InvalidRequestError
from service.http.body import read_label
from service.http.changes.document import headers, json_request
from service.http.changes.reading import read_json
from service.http.changes.schemas import ChangedTask
from service.http.inbox.schemas import AnswerBody, InboxView
from service.http.inbox.views import inbox_view
from service.http.once.repeat import RepeatDep
from service.http.openapi import problems
from service.http.routes import strips
from service.http.routes.changes import CHANGE, GETTING_READY, AskedDep, changed_view
from service.http.routes.dependencies import ServiceDep, TaskId
from service.stores.records import new_id
from service.tasks.once import fingerprint

router = APIRouter(prefix="/tasks/{task_id}/inbox", tags=["inbox"])


@router.get("", responses=problems(404, 410, 422, 503), operation_id="listInbox")
async def list_inbox(task_id: TaskId, service: ServiceDep) -> InboxView:
    """List the queries that a task remembers, the least certain first."""
    return inbox_view(*await service.inbox.list(task_id))


@router.get(
    "/{query_id}/frames",
    response_class=Response,
    responses=strips.ANSWERS,
    openapi_extra=strips.IF_NONE_MATCH,
    operation_id="queryFrames",
)
async def query_frames(
    task_id: TaskId,
    query_id: str,
    service: ServiceDep,
    request: Request,
    width: strips.Width = None,
) -> Response:
    """Show the pictures of a query that were looked at, side by side in their order, as JPEG."""
    pictures = await service.inbox.pictures(task_id, query_id)
    return await strips.strip_answer(pictures, width, request)


@router.post(
    "/{query_id}",
    response_model=ChangedTask,
    responses={**GETTING_READY, **problems(*CHANGE)},
    openapi_extra=json_request("AnswerBody") | headers(once=True),
    operation_id="answerQuery",
)
async def answer_query(
    repeat: RepeatDep,
    asked: AskedDep,
    query_id: str,
    request: Request,
    service: ServiceDep,
    response: Response,
) -> ChangedTask | Response:
    """Say what a query is: an example of a label, none of them, or nothing worth keeping."""
    body = await read_json(request, AnswerBody)
    label = _label_of(body, service)

    async def make(_: str | None) -> ChangedTask:
        if body.dismiss:
            done = await service.inbox.dismiss(asked, query_id)
        elif label is None:
            done = await service.inbox.count_none(asked, query_id)
        else:
            done = await service.inbox.learn(asked, query_id, label)
        return await changed_view(service, done, response)

    async def find(_: str) -> ChangedTask | None:
        if body.dismiss:
            return None  # it leaves nothing
        done = await service.inbox.answered(asked.task_id, query_id, label)
        return None if done is None else await changed_view(service, done, response)

    if repeat is None:
        return await make(None)
    return await repeat.answer(
        fingerprint=fingerprint.of_values(repeat.name, [label, body.dismiss]),
        seed=new_id(""),
        response=response,
        make=make,
        find=find,
        task_id=asked.task_id,
    )


def _label_of(body: AnswerBody, service: Service) -> str | None:
    """Return the label that a query is said to show; None where it shows none.

    Raises:
        RequestError: The body says nothing, or two things.
    """
    if ("label" in body.model_fields_set) == body.dismiss:
        raise InvalidRequestError(
            "Say one thing of the query: label (a label of the task, or null for none of them), "
            "or dismiss (true).",
            [FieldFault("label", "give label or dismiss")],
        )
    return None if body.label is None else read_label(body.label, service.limits)
