"""Health and model by the names of the Open Inference Protocol (version 2, of KServe)."""

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from service.errors import ModelNotFoundError
from service.http.openapi import problems
from service.http.reports import Health
from service.http.routes import operations
from service.http.routes.dependencies import ServiceDep

router = APIRouter(prefix="/v2", tags=["operations"])


class TensorView(BaseModel):
    """What goes in or comes out; -1 is any number."""

    name: str
    datatype: str
    shape: list[int]


class InferenceModel(BaseModel):
    """A model, as the protocol describes one."""

    name: str = Field(examples=["compact"])
    versions: list[str] = Field(description="Fingerprint of the weights.")
    platform: str = Field(examples=["torch"])
    inputs: list[TensorView] = Field(description="Clips: number, frames, height, width, colours.")
    outputs: list[TensorView] = Field(description="Logits of each clip and label.")


@router.get(
    "/health/live",
    operation_id="inferenceLive",
    responses={503: {"model": Health}, **problems(422)},
)
async def live(service: ServiceDep, response: Response) -> Health:
    """Tell whether the process works, as /livez does."""
    return await operations.livez(service, response)


@router.get(
    "/health/ready",
    operation_id="inferenceReady",
    responses={503: {"model": Health}, **problems(422)},
)
async def ready(service: ServiceDep, response: Response) -> Health:
    """Tell whether requests can be served now, as /readyz does."""
    return await operations.readyz(service, response)


@router.get("/models/{name}", operation_id="inferenceModel", responses=problems(404, 422))
async def model(name: str, service: ServiceDep) -> InferenceModel:
    """Describe the model that is served."""
    served = service.engine.model
    if name != served.name:
        raise ModelNotFoundError(f"There is no model {name[:100]!r} here; ask for {served.name!r}.")
    clip = [-1, served.frames, served.size, served.size, 3]
    return InferenceModel(
        name=served.name,
        versions=[served.fingerprint],
        platform=service.choice.runtime.kind,
        inputs=[TensorView(name="clips", datatype="UINT8", shape=clip)],
        outputs=[TensorView(name="logits", datatype="FP32", shape=[-1, -1])],
    )
