"""Which model answers, and serving another one in its place."""

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request, status
from pydantic import BaseModel, Field

from service.container import Service
from service.http.changes.document import json_request
from service.http.changes.reading import read_json
from service.http.openapi import problems
from service.http.schemas import Body
from service.http.views import time_view
from service.tasks.swapping.swap import Models, Swap

router = APIRouter(prefix="/admin/model", tags=["operations"])


class ModelBody(Body):
    """Another checkpoint to be served."""

    checkpoint: str = Field(
        min_length=1,
        max_length=200,
        description="Name of a folder in the operator's KSHOT_MODELS_DIR, `compact`, `causal`, or "
        "what KSHOT_CHECKPOINT says.",
        examples=["compact"],
    )


class SwapView(BaseModel):
    """How far a checkpoint is on its way into the place of another."""

    checkpoint: str
    state: Literal["loading", "warming", "encoding", "done", "failed"]
    failure: str | None = Field(description="Why it failed; the older one answers unless it says.")
    model_revision: str | None = Field(description="Fingerprint of its weights, once it is loaded.")
    tasks: int = Field(description="Tasks that there were at the switch, to be encoded again.")
    encoded: int = Field(description="Of these, those that it answers for.")
    left: int = Field(description="Of these, those that it cannot encode: the older one answers.")
    begun_at: str
    ended_at: str | None


class ServedView(BaseModel):
    """Which model answers for new tasks, and what is on its way into its place."""

    model: str
    model_revision: str
    allowed: list[str] = Field(description="Checkpoints that may be served in its place.")
    swap: SwapView | None = Field(description="The last that was asked for.")


async def models(request: Request) -> Models[Service]:
    """Return the models that answer."""
    serving = request.app.state.models
    assert isinstance(serving, Models)
    return serving


ModelsDep = Annotated[Models[Service], Depends(models)]


@router.get("", responses=problems(422), operation_id="servedModel")
async def served(models: ModelsDep) -> ServedView:
    """Show which model answers, and how far another one is on its way."""
    return await view(models)


@router.post(
    "",
    status_code=status.HTTP_202_ACCEPTED,
    responses=problems(400, 408, 409, 413, 415, 422, 429, 503),
    openapi_extra=json_request("ModelBody"),
    operation_id="swapModel",
)
async def swap_model(request: Request, models: ModelsDep) -> ServedView:
    """Serve another checkpoint: the one that is served answers for a task until this one can."""
    body = await read_json(request, ModelBody)
    await models.serve(body.checkpoint)
    return await view(models)


async def view(models: Models[Any]) -> ServedView:
    """Show the models that answer."""
    model = models.current.engine.model
    return ServedView(
        model=model.name,
        model_revision=model.fingerprint,
        allowed=await asyncio.to_thread(models.allowed.names),
        swap=None if models.swap is None else swap_view(models.swap),
    )


def swap_view(swap: Swap) -> SwapView:
    """Show a checkpoint on its way."""
    return SwapView(
        checkpoint=swap.checkpoint,
        state=swap.phase,
        failure=swap.failure,
        model_revision=swap.revision,
        tasks=swap.tasks,
        encoded=swap.encoded,
        left=len(swap.left),
        begun_at=time_view(swap.begun_at),
        ended_at=None if swap.ended_at is None else time_view(swap.ended_at),
    )
