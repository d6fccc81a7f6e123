"""The connection to Redis: what a URL may say, and the client's settings."""

from dataclasses import dataclass
from typing import Self
from urllib.parse import parse_qsl, urlencode

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from service.stores.errors import StoreUnavailableError

CONNECT_S = 3.0
REPLY_S = 10.0  # longer than any wait for the append-only file
CONNECTIONS = 32

_OURS = {"durability", "prefix"}
_FIXED = {"decode_responses", "protocol"}  # values are bytes, and replies never interleave


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisUrl:
    """A store URL, taken apart."""

    address: str  # what redis-py understands; may hold a password
    durable: bool
    prefix: str

    @classmethod
    def parse(cls, url: str) -> Self:
        """Separate our options from redis-py's.

        Raises:
            StoreUnavailableError: an option with a value that does not exist.
        """
        address, _, query = url.partition("?")
        options = dict(parse_qsl(query, keep_blank_values=True))
        durability = options.get("durability", "full")
        if durability not in {"full", "none"}:
            raise StoreUnavailableError(
                f"There is no durability {durability[:20]!r}; use full or none."
            )
        theirs = {name: value for name, value in options.items() if name not in _OURS | _FIXED}
        return cls(
            address=f"{address}?{urlencode(theirs)}" if theirs else address,
            durable=durability == "full",
            prefix=options.get("prefix", "kshot"),
        )


def connect(url: RedisUrl) -> "Redis":
    """Return a client; nothing is sent yet.

    Raises:
        StoreUnavailableError: redis-py does not understand the URL.
    """
    try:
        pool = BlockingConnectionPool.from_url(
            url.address,
            max_connections=CONNECTIONS,
            timeout=REPLY_S,
            socket_connect_timeout=CONNECT_S,
            socket_timeout=REPLY_S,
            # A silent retry on a new connection would confirm a write that the old one lost.
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )
    except (TypeError, ValueError) as error:
        raise StoreUnavailableError(
            "The Redis URL of the store cannot be read; write redis://HOST:PORT/DATABASE."
        ) from error
    return Redis.from_pool(pool)
