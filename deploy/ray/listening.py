"""An ingress that listens by itself, so that no request passes Ray's proxy."""

import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from service.background import spawn
from service.errors import SettingsError
from service.http.server import server_of
from service.settings import Settings

BACKLOG = 2048  # connections that wait to be accepted, as uvicorn has it


def listen_while_it_lives(app: FastAPI, settings: Settings) -> None:
    """Have an application serve the address of its settings for as long as its lifespan lasts.

    Further ingresses of this machine, and the one that takes this one's place, share the address:
    the system gives each new connection to one of them.

    Args:
        app: The application.
        settings: Of the process.
    """
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Mapping[str, Any] | None]:
        async with inner(app) as state:
            with shared_socket(settings) as listening:
                server = server_of(app, settings)
                serving = spawn(server.serve([listening]))
                try:
                    yield state
                finally:
                    app.state.models.end_watches()
                    server.should_exit = True  # requests that run have KSHOT_STOP_GRACE_S
                    await serving

    app.router.lifespan_context = lifespan  # type: ignore[assignment]


def shared_socket(settings: Settings) -> socket.socket:
    """Return a socket that listens beside others of the same address.

    Raises:
        SettingsError: The address cannot be had.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server(
            (settings.host, settings.port), family=family, backlog=BACKLOG, reuse_port=True
        )
    except OSError as error:
        raise SettingsError(
            f"KSHOT_HOST {settings.host} and KSHOT_PORT {settings.port} cannot be listened on "
            f"({error.strerror}); choose others."
        ) from error
