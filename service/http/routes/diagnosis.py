"""What is wrong with a task."""

from fastapi import APIRouter

from service.http.diagnosis.views import DiagnosisView, diagnosis_view
from service.http.openapi import problems
from service.http.routes.dependencies import ServiceDep, TaskId, WaitS
from service.tasks.allowance import Deadline

router = APIRouter(prefix="/tasks/{task_id}", tags=["tasks"])


@router.get(
    "/diagnosis",
    responses=problems(404, 409, 410, 422, 503, 504),
    operation_id="diagnoseTask",
)
async def diagnosis(task_id: TaskId, wait_s: WaitS, service: ServiceDep) -> DiagnosisView:
    """Say how well a task does, which clips and labels harm it, and whether more would help."""
    deadline = Deadline.after(service.limits.deadline_s)
    found = await service.diagnoser.diagnose(task_id, wait_s, deadline)
    return diagnosis_view(found, service.engine.model.fingerprint)
