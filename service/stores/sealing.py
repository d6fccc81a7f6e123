"""Sealed values: each stored byte string says what it is, for which task, and its checksum.

A sealed value is one line, `kshot 1 SUBJECT LENGTH SHA256`, and the payload. The checksum covers
the subject, so that a value found under another task's key is noticed like a flipped bit.
"""

import hashlib
import struct
from collections.abc import Sequence

from service.stores.errors import StoreCorruptError

_MAGIC = b"kshot"
_VERSION = b"1"
_LONGEST_HEADER = 512


def seal(subject: str, payload: bytes) -> bytes:
    """Return `payload` under a header that binds it to `subject` (no white space in it)."""
    digest = _digest(subject, payload)
    header = b" ".join([_MAGIC, _VERSION, subject.encode(), b"%d" % len(payload), digest])
    return header + b"\n" + payload


def unseal(subject: str, sealed: bytes) -> bytes:
    """Return the payload of a value that was sealed for `subject`.

    Raises:
        StoreCorruptError: damaged, cut short, of another subject or another format version.
    """
    header, newline, payload = sealed.partition(b"\n")
    parts = header.split(b" ")
    if not newline or len(header) > _LONGEST_HEADER or len(parts) != 5 or parts[0] != _MAGIC:
        raise _damaged(subject, "is no sealed value")
    if parts[1] != _VERSION:
        raise _damaged(subject, f"has format {parts[1][:8]!r}, not {_VERSION!r}")
    if parts[2] != subject.encode():
        raise _damaged(subject, "belongs to something else")
    if parts[3] != b"%d" % len(payload) or parts[4] != _digest(subject, payload):
        raise _damaged(subject, "fails its checksum")
    return payload


def pack_pictures(pictures: Sequence[bytes]) -> bytes:
    """Join pictures into one byte string."""
    lengths = struct.pack(f">I{len(pictures)}I", len(pictures), *map(len, pictures))
    return lengths + b"".join(pictures)


def unpack_pictures(packed: bytes) -> tuple[bytes, ...]:
    """Split what `pack_pictures` joined; the checksum has vouched for it."""
    (count,) = struct.unpack_from(">I", packed)
    lengths = struct.unpack_from(f">{count}I", packed, 4)
    pictures, offset = [], 4 + 4 * count
    for length in lengths:
        pictures.append(packed[offset : offset + length])
        offset += length
    return tuple(pictures)


def pack_text(value: bytes, expires_at: float) -> bytes:
    """Join a cached value and the unix time at which it expires."""
    return struct.pack(">d", expires_at) + value


def unpack_text(packed: bytes) -> tuple[bytes, float]:
    """Split what `pack_text` joined."""
    return packed[8:], struct.unpack_from(">d", packed)[0]


def text_name(key: str) -> str:
    """Return the hashed name under which a cached text is stored."""
    return hashlib.sha256(key.encode()).hexdigest()


def _digest(subject: str, payload: bytes) -> bytes:
    digest = hashlib.sha256(b"%s %s %s\n" % (_MAGIC, _VERSION, subject.encode()))
    digest.update(payload)
    return digest.hexdigest().encode()


def _damaged(subject: str, fault: str) -> StoreCorruptError:
    return StoreCorruptError(
        f"The stored value {subject!r} {fault}; delete the task and register it again, "
        "or restore the store from a backup."
    )
