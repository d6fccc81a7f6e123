"""Classify clips against a task."""

from fastapi import APIRouter, Request

from service.http.openapi import CLASSIFY_HEADERS, QUERY_REQUEST, problems
from service.http.problems import request_id
from service.http.routes.dependencies import PartsDep, QueryDraftsDep, TaskId, TicketDep, WaitS
from service.http.schemas import Classification

router = APIRouter(prefix="/tasks", tags=["classify"])


@router.post(
    "/{task_id}/classify",
    responses=problems(400, 404, 408, 409, 410, 413, 415, 422, 429, 503, 504),
    openapi_extra=QUERY_REQUEST | CLASSIFY_HEADERS,
    operation_id="classify",
)
async def classify(
    task_id: TaskId,
    clips: QueryDraftsDep,
    wait_s: WaitS,
    ticket: TicketDep,
    parts: PartsDep,
    request: Request,
) -> Classification:
    """Tell what each clip is, among the labels of the task; no clip affects another's answer."""
    return await parts.classifier.classify(task_id, clips, wait_s, request_id(request), ticket)
