"""The application: routes, errors, limits, and one set of parts whose lifetime is its own."""

import gc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from fastapi import FastAPI

from service.container import Parts, running
from service.http import openapi as documents
from service.http import problems as errors
from service.http.admission import Admission, AdmissionRules, Pace
from service.http.credits import Ledger
from service.http.disconnects import DisconnectWatcher
from service.http.receiving import BodyRules
from service.http.routes import classify, operations, tasks
from service.http.telemetry import RequestLog
from service.settings import Settings

ROUTERS = (tasks.router, classify.router, operations.router)


def create_app(settings: Settings) -> FastAPI:
    """Make the application; nothing is opened before its lifespan begins."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with running(settings) as app.state.parts:
            with unpaused():
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
    app.state.ledger = Ledger(settings.credits, share=settings.tenant_share)

    def pace() -> Pace:
        parts: Parts = app.state.parts
        return parts.pace()

    # the last one added is outermost
    app.add_middleware(Admission, ledger=app.state.ledger, rules=_rules(settings), pace=pace)
    app.add_middleware(DisconnectWatcher)
    app.add_middleware(RequestLog)
    return app


@contextmanager
def unpaused() -> Iterator[None]:
    """Keep the garbage collector from what is there now, half a million objects of libraries.

    A full collection would look at all of them, and let every request wait for 0.2 s meanwhile.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _rules(settings: Settings) -> AdmissionRules:
    return AdmissionRules(
        body=BodyRules(
            max_bytes=settings.max_request_bytes,
            min_bytes_s=settings.min_upload_bytes_s,
            patience_s=settings.upload_patience_s,
        ),
        deadline_s=settings.deadline_s,
        max_deadline_s=settings.max_deadline_s,
        query_clips=settings.max_query_clips,
        support_clips=settings.max_support_clips,
    )
