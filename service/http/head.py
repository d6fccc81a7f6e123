"""HEAD: what GET answers, without its body (RFC 9110, section 9.3.2); pure ASGI."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

ASKED = "kshot.verb"  # in the scope of a request that is answered as one with another verb


async def headless(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request for a head as GET is answered.

    The answer ends with its head, so what GET would go on to stream ends as if its reader had left.
    """
    inner = {**scope, "method": "GET", ASKED: "HEAD"}

    async def head(message: Message) -> None:
        if message["type"] == "http.response.start":
            await send(message)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    try:
        await app(inner, receive, head)
    finally:
        scope.update({**inner, "method": scope["method"]})  # its route and code, for the log
