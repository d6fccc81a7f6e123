"""The answer to requests that are still running when the service stops; pure ASGI."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import ServerStoppingError
from service.http.problems import refusal
from service.tasks.allowance import Allowance


class StoppingAnswer:
    """Answers a request that the server cancels, because it stops, with a problem.

    Args:
        app: The application inside.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        answering = False

        async def noting(message: Message) -> None:
            nonlocal answering
            answering = True
            await send(message)

        try:
            await self.app(scope, receive, noting)
        except asyncio.CancelledError:
            request = asyncio.current_task()
            assert request is not None
            request.uncancel()
            admitted = scope.get("kshot.allowance")
            if isinstance(admitted, Allowance) and admitted.purse is not None:
                admitted.purse.give_back()
            if not answering:
                error = ServerStoppingError("The server stops; send the request again.")
                await refusal(error, scope)(scope, receive, send)
