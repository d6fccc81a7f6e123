"""Cancels a request whose client has left, in pure ASGI, so that its work is dropped."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

LEFT_STATUS = 499  # for the log alone: nobody is there to read an answer


class DisconnectWatcher:
    """Waits, once the body has been read, for the client to go, and cancels the request then.

    The request runs in this very task, so the cancellation passes through whatever is inside, a
    `BaseHTTPMiddleware` too, which hides disconnects from what it wraps.

    Args:
        app: The application inside.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self.app(scope, receive, send)
            return
        client = _Client(receive, send)
        request = asyncio.current_task()
        assert request is not None
        watching = asyncio.create_task(client.watch(request))
        try:
            await self.app(scope, client.receive, client.send)
        except asyncio.CancelledError:
            if not client.left or request.uncancel() > 0:
                raise  # somebody else's: the server stops
            scope["kshot.code"] = "client-left"
            await client.see_off()
        finally:
            watching.cancel()


class _Client:
    """The other end of one request."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self.left = False
        self._outer_receive = receive
        self._outer_send = send
        self._read = asyncio.Event()
        self._gone = asyncio.Event()
        self._begun = False
        self._answered = False

    async def receive(self) -> Message:
        """Pass a message of the body on; after its end there is only the news that it left."""
        if self._read.is_set():
            await self._gone.wait()
            return {"type": "http.disconnect"}
        message = await self._outer_receive()
        if not message.get("more_body", False):
            if message["type"] == "http.disconnect":
                self._gone.set()
            self._read.set()
        return message

    async def send(self, message: Message) -> None:
        """Pass a message on."""
        self._begun = True
        last = message["type"] == "http.response.body" and not message.get("more_body", False)
        await self._outer_send(message)
        self._answered = self._answered or last

    async def see_off(self) -> None:
        """Answer nobody, for what stands outside expects an answer, the log for one."""
        if not self._begun:
            await self.send({"type": "http.response.start", "status": LEFT_STATUS, "headers": []})
        if not self._answered:
            await self.send({"type": "http.response.body", "body": b""})

    async def watch(self, request: "asyncio.Task[None]") -> None:
        """Cancel a request when its client leaves before it is answered."""
        await self._read.wait()
        if self._gone.is_set():
            return  # while sending: whoever reads the body knows
        while (await self._outer_receive())["type"] != "http.disconnect":
            pass
        self._gone.set()
        if not self._answered:
            self.left = True
            request.cancel()
