"""What the service says about itself."""

import importlib.metadata

from fastapi import APIRouter, Response, status
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from service.container import Service
from service.http.openapi import problems
from service.http.quota.schemas import UsageView, usage_view
from service.http.reports import Health, InfoView, ModelView
from service.http.routes.dependencies import OwnerDep, ServiceDep
from service.http.views import runtime_view
from service.limits import Limits

router = APIRouter(tags=["operations"])


@router.get("/limits", responses=problems(422), operation_id="limits")
async def limits(service: ServiceDep) -> Limits:
    """Show what a request may be; pairs are the least and the most."""
    return service.limits


@router.get("/info", responses=problems(422), operation_id="info")
async def info(service: ServiceDep) -> InfoView:
    """Show the model, the decoder and the runtime."""
    return InfoView(
        version=importlib.metadata.version("kshot"),
        model=_model_view(service),
        runtime=runtime_view(service.choice),
        decoder=await service.pool.versions(),
        store=service.settings.store.partition(":")[0],
        descriptions=service.texts.describer is not None,
    )


@router.get("/usage", responses=problems(422, 503), operation_id="usage")
async def usage(service: ServiceDep, owner: OwnerDep) -> UsageView:
    """Show what the caller's tenant may use, and has used."""
    return usage_view(await service.keeper.standing(owner))


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    responses=problems(422),
    operation_id="metrics",
)
async def metrics(service: ServiceDep) -> Response:
    """Show what Prometheus reads."""
    return Response(generate_latest(service.meters.registry), media_type=CONTENT_TYPE_LATEST)


@router.get("/livez", operation_id="livez", responses={503: {"model": Health}, **problems(422)})
async def livez(service: ServiceDep, response: Response) -> Health:
    """Tell whether the process works; 503 asks for a restart."""
    device = service.device_works
    # that this is answered at all shows that the event loop works
    return _answered(Health(ok=device, parts={"event_loop": True, "device": device}), response)


@router.get("/readyz", operation_id="readyz", responses={503: {"model": Health}, **problems(422)})
async def readyz(service: ServiceDep, response: Response) -> Health:
    """Tell whether requests can be served now; a store that is away only degrades."""
    pool, fault = service.pool, await service.store_fault()
    parts = {
        "model": service.device_works,
        "decoders": pool.alive > 0,
        "store": fault is None,
    }
    health = Health(
        ok=parts["model"] and parts["decoders"],
        degraded=not parts["store"] or pool.alive < pool.workers,
        parts=parts,
        reasons={} if fault is None else {"store": fault},
    )
    return _answered(health, response)


def _answered(health: Health, response: Response) -> Health:
    if not health.ok:
        response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    return health


def _model_view(service: Service) -> ModelView:
    model = service.engine.model
    return ModelView(
        name=model.name,
        fingerprint=model.fingerprint,
        trained=model.trained,
        text=model.has_text,
        frames=model.frames,
        size=model.size,
        squash=model.squash,
        query_context=model.query_context,
        backbone=model.backbone,
        calibration=model.calibration,
    )
