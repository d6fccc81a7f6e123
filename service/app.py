"""The application: routes, errors, admission, and a service that lives as long as it does."""

import gc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from fastapi import Depends, FastAPI
from fastapi_offline import FastAPIOffline
from prometheus_client import CollectorRegistry

from service.container import Load, Service, loaded_here, running
from service.http import openapi, problems
from service.http.admission import Admission
from service.http.changes.schemas import BODIES
from service.http.connection import DisconnectWatcher, RequestLog
from service.http.events.schemas import EventView
from service.http.inbox import schemas as inbox_schemas
from service.http.routes import (
    admin,
    changes,
    diagnosis,
    events,
    inbox,
    inference,
    operations,
    page,
    portable,
    tasks,
    timeline,
)
from service.http.routes.admin import ModelBody
from service.http.routes.dependencies import entrance, known_parameters
from service.http.stopping import StoppingAnswer
from service.http.timeline import document
from service.limits import Limits, limits_of
from service.metrics.meters import Meters
from service.metrics.sampled import Sampled
from service.settings import Settings
from service.tasks.allowance import Cost, Ledger
from service.tasks.swapping.swap import Models
from service.tracing.starting import tracing_from_env

ROUTERS = tuple(
    routes.router
    for routes in (tasks, events, portable, changes, diagnosis, inbox, timeline, operations, admin)
)


def create_app(settings: Settings, load: Load = loaded_here) -> FastAPI:
    """Make the application; nothing is opened before its lifespan begins, `load` is called then."""
    registry = CollectorRegistry()
    meters, tracing = Meters(registry), tracing_from_env()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with running(settings, meters, tracing, load) as models:
            follow(app, models)
            registry.register(Sampled(lambda: models.current, app.state.ledger))
            with without_long_collections():
                yield

    app = FastAPIOffline(  # its /docs takes its scripts from the package, not from another host
        redoc_url=None,
        title="kshot",
        summary="Few-shot action recognition: a handful of clips a label, no training job.",
        lifespan=lifespan,
        redirect_slashes=False,
    )
    limits = limits_of(settings)
    problems.install(app)
    known = [Depends(entrance), Depends(known_parameters)]
    for router in ROUTERS:
        app.include_router(router, prefix="/v1", dependencies=known)
        app.include_router(router, include_in_schema=False, dependencies=known)  # for ever
    app.include_router(inference.router, dependencies=known)
    app.include_router(page.router)
    bodies = (*BODIES, *inbox_schemas.BODIES, *document.BODIES, ModelBody)
    openapi.install(app, limits, bodies, (*document.DATA, EventView))
    app.state.ledger = Ledger(capacity_of(settings), share=settings.tenant_share)

    add_layers(app, limits, meters)
    if tracing is not None:
        tracing.instrument(app)
    return app


def add_layers(app: FastAPI, limits: Limits, meters: Meters) -> None:
    """Put an application into the layers that every request passes; the last is outermost."""
    app.add_middleware(Admission, ledger=app.state.ledger, limits=limits)
    app.add_middleware(DisconnectWatcher)
    app.add_middleware(StoppingAnswer)
    app.add_middleware(RequestLog, meters=meters)


def follow(app: FastAPI, models: Models[Service]) -> None:
    """Have an application ask the model that is served, whichever it is."""
    app.state.models, app.state.service = models, models.current
    models.switched = lambda service: setattr(app.state, "service", service)
    models.let_go = collect_again


def capacity_of(settings: Settings) -> Cost:
    """Return what all running requests may hold together."""
    return Cost(
        bytes=settings.max_inflight_bytes,
        decode_ms=round(1e3 * settings.max_inflight_decode_s),
        frames=settings.max_inflight_frames,
    )


def collect_again() -> None:
    """Free what has just been let go, also where it stands in rings; this takes 0.2 s."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


@contextmanager
def without_long_collections() -> Iterator[None]:
    """Exempt all objects that exist now, half a million of libraries, from garbage collection.

    A full collection looks at each of them, and every request would wait 0.2 s for it.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
