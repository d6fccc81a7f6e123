"""Header fields that tell clients what is left of their quotas.

`RateLimit-Policy` and `RateLimit` are those of draft-ietf-httpapi-ratelimit-headers-10: lists of
structured fields (RFC 9651), an item for each quota. Integers are rounded so that no client is told
of more than it has.
"""

import math
from http import HTTPStatus

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Scope, Send

from service.stores.quotas.kept import KINDS, NAMES, RATES, WINDOW_S, Kind, Standing
from service.tasks.quota.keeper import Purse

MOST = 10**15 - 1  # of an integer of a structured field


def telling(purse: Purse, scope: Scope, send: Send) -> Send:
    """Have an answer tell how its tenant stands; of one that is our fault, without its charge.

    Args:
        purse: Of the request.
        scope: Of the request; it has the code of a problem before that is sent.
        send: To the client.
    """

    async def told(message: Message) -> None:
        if message["type"] == "http.response.start":
            if message["status"] >= HTTPStatus.BAD_REQUEST:
                purse.unmade()
            if message["status"] >= HTTPStatus.INTERNAL_SERVER_ERROR:
                purse.failed(str(scope.get("kshot.code")))
            if purse.standing is not None:
                MutableHeaders(scope=message).update(fields_of(purse.standing))
        await send(message)

    return told


def fields_of(standing: Standing) -> dict[str, str]:
    """Write both fields; none where there is no limit."""
    limited = [kind for kind in KINDS if standing.quotas.of(kind) is not None]
    if not limited:
        return {}
    return {
        "RateLimit-Policy": ", ".join(_policy(kind, standing) for kind in limited),
        "RateLimit": ", ".join(_left(kind, standing) for kind in limited),
    }


def _policy(kind: Kind, standing: Standing) -> str:
    window = f";w={WINDOW_S:.0f}" if kind in RATES else ""
    return f'"{NAMES[kind]}";q={_whole(kind, standing.quotas.of(kind))};qu="{NAMES[kind]}"{window}'


def _left(kind: Kind, standing: Standing) -> str:
    again = f";t={math.ceil(standing.left_s)}" if kind in RATES and standing.window else ""
    return f'"{NAMES[kind]}";r={_whole(kind, standing.left(kind))}{again}'


def _whole(kind: Kind, amount: int | None) -> int:
    units = (amount or 0) // 1000 if kind == "clip_ms" else amount or 0
    return min(MOST, units)
