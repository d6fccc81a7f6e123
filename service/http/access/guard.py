"""Who asks, and whether they may; entered only where there are keys."""

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.types import Scope

from service.http.access.scopes import PUBLIC, PUBLIC_FOLDERS, SCOPES
from service.keys.errors import KeyMissingError, ScopeMissingError
from service.keys.key import Caller
from service.keys.ring import KeyRing

CALLER = "kshot.caller"  # in the scope of a request that came with a key


async def identify(ring: KeyRing, scope: Scope, address: str) -> None:
    """Write into the scope of a request who sends it, unless everybody may send it.

    Raises:
        RequestError: It has no key that opens anything.
        StoreError: That cannot be told now.
    """
    path = scope["path"]
    public = path in PUBLIC or path.startswith(PUBLIC_FOLDERS)
    if not (public and scope["method"] in ("GET", "HEAD")):
        scope[CALLER] = await ring.caller(Headers(scope=scope).getlist("authorization"), address)


def allow(request: Request) -> None:
    """Assert that the caller may use the route.

    Raises:
        ScopeMissingError: Its key lacks the scope, or the route has none.
        KeyMissingError: It has no key.
    """
    route = request.scope.get("route")
    name = route.operation_id if isinstance(route, APIRoute) else None
    needed = SCOPES.get(name or "", "none")
    if needed is None:
        return
    caller = request.scope.get(CALLER)
    if not isinstance(caller, Caller):
        raise KeyMissingError("This route asks for an API key; send 'Authorization: Bearer ...'.")
    if needed not in caller.scopes:
        raise ScopeMissingError(
            f"This needs a key with the scope {needed}; "
            f"yours has {', '.join(sorted(caller.scopes))}."
        )
