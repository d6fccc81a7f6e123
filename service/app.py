"""The application: routes, errors, limits, and one set of parts whose lifetime is its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from service import errors
from service.parts import running
from service.receiving import BodyLimit
from service.routes import classify, documents, operations, tasks
from service.settings import Settings
from service.telemetry import RequestLog

ROUTERS = (tasks.router, classify.router, operations.router)


def create_app(settings: Settings) -> FastAPI:
    """Make the application; nothing is opened before its lifespan begins."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with running(settings) as app.state.parts:
            yield

    app = FastAPI(
        title="kshot",
        summary="Few-shot action recognition: a handful of clips a label, no training job.",
        lifespan=lifespan,
        redirect_slashes=False,
    )
    errors.install(app)
    for router in ROUTERS:
        app.include_router(router, prefix="/v1")
        app.include_router(router, include_in_schema=False)  # permanent aliases
    documents.install(app)
    app.add_middleware(
        BodyLimit,
        max_request_bytes=settings.max_request_bytes,
        max_inflight_bytes=settings.max_inflight_bytes,
        min_bytes_s=settings.min_upload_bytes_s,
        patience_s=settings.upload_patience_s,
    )
    app.add_middleware(RequestLog)
    return app
