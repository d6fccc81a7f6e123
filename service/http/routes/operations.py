"""What the service may be asked about itself."""

from fastapi import APIRouter, Response, status

from service.http.routes.dependencies import PartsDep
from service.http.schemas import Health, InfoView, LimitsView

router = APIRouter(tags=["operations"])


@router.get("/limits", operation_id="limits")
async def limits(parts: PartsDep) -> LimitsView:
    """Show what a request may be."""
    return parts.limits()


@router.get("/info", operation_id="info")
async def info(parts: PartsDep) -> InfoView:
    """Show the model, the decoder and the runtime."""
    return await parts.info()


@router.get("/livez", operation_id="livez", responses={503: {"model": Health}})
async def livez(parts: PartsDep, response: Response) -> Health:
    """Tell whether the process works; 503 asks for a restart."""
    return _answered(parts.alive(), response)


@router.get("/readyz", operation_id="readyz", responses={503: {"model": Health}})
async def readyz(parts: PartsDep, response: Response) -> Health:
    """Tell whether requests can be served now; a store that is away only degrades."""
    return _answered(await parts.ready(), response)


def _answered(health: Health, response: Response) -> Health:
    if not health.ok:
        response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    return health
