"""One API key: its token, which only its holder has, and its record, which only proves it.

A token is `kshot_ID_SECRET`. The id finds the record; of the secret, 256 random bits, the record
has a salted SHA-256, so that a copy of the store lets nobody in.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from service.stores.errors import StoreCorruptError
from service.stores.records import OWNER

Scope = Literal["read", "classify", "write", "admin"]
SCOPES: tuple[Scope, ...] = ("read", "classify", "write", "admin")
DEFAULT_TENANT = "default"  # of tasks made without a key, too
TENANT = f"^{OWNER}$"
TOKEN = re.compile(r"kshot_([0-9a-f]{16})_([0-9a-f]{64})")

_STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True, slots=True, config=_STRICT)
class Caller:
    """Who sends a request, as its key says."""

    key_id: str
    tenant: str
    scopes: frozenset[Scope]

    @property
    def owner(self) -> str:
        """What the ids of its tasks begin with; empty for the default tenant."""
        return "" if self.tenant == DEFAULT_TENANT else self.tenant


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class KeyRecord:
    """What the store has of a key."""

    key_id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    name: str
    tenant: Annotated[str, Field(pattern=TENANT)]
    scopes: tuple[Scope, ...]
    salt: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    created_at: float  # unix time
    rotated_at: float | None = None
    revoked_at: float | None = None

    def caller(self) -> Caller:
        """Return who sends this key."""
        return Caller(self.key_id, self.tenant, frozenset(self.scopes))


_ADAPTER = TypeAdapter(KeyRecord)
# Compared with where there is no such key, so that this takes as long.
_NOBODY = (secrets.token_hex(16), secrets.token_hex(32))


def make_key(
    name: str, tenant: str, scopes: tuple[Scope, ...], now: float
) -> tuple[KeyRecord, str]:
    """Make a key; return its record, and its token, which nobody can read again."""
    record = KeyRecord(
        key_id=secrets.token_hex(8),
        name=name,
        tenant=tenant,
        scopes=scopes,
        salt="0" * 32,
        digest="0" * 64,
        created_at=now,
    )
    return _with_secret(record)


def rotated(record: KeyRecord, now: float) -> tuple[KeyRecord, str]:
    """Give a key another secret; the one before opens nothing from then on."""
    return _with_secret(replace(record, rotated_at=now))


def proves(record: KeyRecord | None, secret: str) -> bool:
    """Tell whether a secret is that of a key that stands; as slow for every wrong one."""
    salt, digest = _NOBODY if record is None else (record.salt, record.digest)
    same = hmac.compare_digest(_digest(salt, secret), digest)
    return same and record is not None and record.revoked_at is None


def to_json(record: KeyRecord) -> bytes:
    """Return the record as JSON."""
    return _ADAPTER.dump_json(record)


def from_json(document: bytes) -> KeyRecord:
    """Read a record.

    Raises:
        StoreCorruptError: It is none.
    """
    try:
        return _ADAPTER.validate_json(document)
    except ValidationError as error:
        raise StoreCorruptError("A stored key cannot be read; make another one.") from error


def _with_secret(record: KeyRecord) -> tuple[KeyRecord, str]:
    secret, salt = secrets.token_hex(32), secrets.token_hex(16)
    made = replace(record, salt=salt, digest=_digest(salt, secret))
    return made, f"kshot_{record.key_id}_{secret}"


def _digest(salt: str, secret: str) -> str:
    return hashlib.sha256(f"{salt}{secret}".encode()).hexdigest()
