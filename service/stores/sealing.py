"""Sealed values: each stored byte string says what it is, for which task, and its checksum.

A sealed value is one line, `kshot 1 SUBJECT LENGTH SHA256`, and the payload. The checksum covers
the subject, so that a value found under another task's key is noticed like a flipped bit. Redis
takes at most 512 MB a value, so there the pictures of a clip are cut into chunks far below that.
"""

import hashlib
import struct
from collections.abc import Iterator, Mapping, Sequence

from service.stores import records
from service.stores.errors import StoreCorruptError

CHUNK_BYTES = 8 * 2**20

_MAGIC = b"kshot"
_VERSION = b"1"
_LONGEST_HEADER = 512


def seal(subject: str, payload: bytes) -> bytes:
    """Return `payload` under a header that binds it to `subject` (no white space in it)."""
    digest = _digest(subject, payload)
    header = b" ".join([_MAGIC, _VERSION, subject.encode(), b"%d" % len(payload), digest])
    return header + b"\n" + payload


def unseal(subject: str, sealed: object) -> memoryview:
    """Return the payload of a value that was sealed for `subject`, without copying it.

    Raises:
        StoreCorruptError: damaged, cut short, of another subject or another format version.
    """
    if not isinstance(sealed, bytes):  # what a torn row of SQLite may hold
        raise _damaged(subject, "is no sealed value")
    end = sealed.find(b"\n", 0, _LONGEST_HEADER + 1)
    header, payload = sealed[: max(end, 0)], memoryview(sealed)[end + 1 :]
    parts = header.split(b" ")
    if len(parts) != 5 or parts[0] != _MAGIC:
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


def unpack_pictures(packed: bytes | memoryview) -> tuple[bytes, ...]:
    """Split what `pack_pictures` joined; the checksum has vouched for it."""
    (count,) = struct.unpack_from(">I", packed)
    lengths = struct.unpack_from(f">{count}I", packed, 4)
    pictures, offset = [], 4 + 4 * count
    for length in lengths:
        pictures.append(bytes(packed[offset : offset + length]))
        offset += length
    return tuple(pictures)


def split_chunks(
    task_id: str, pictures: Mapping[str, tuple[bytes, ...]], size: int = CHUNK_BYTES
) -> dict[str, bytes]:
    """Cut the pictures of a task into sealed chunks of at most `size` bytes and a header.

    Returns:
        The chunks of all clips, by name: `CLIP_ID/NUMBER/COUNT`.
    """
    chunks: dict[str, bytes] = {}
    for clip_id, frames in pictures.items():
        packed = pack_pictures(frames)
        starts = range(0, len(packed), size)
        for number, start in enumerate(starts):
            name = f"{clip_id}/{number}/{len(starts)}"
            part = packed[start : start + size]
            chunks[name] = seal(f"pictures/{task_id}/{name}", part)
    return chunks


def join_chunks(task_id: str, clip_id: str, chunks: Mapping[str, bytes]) -> tuple[bytes, ...]:
    """Return the pictures of one clip from its chunks, in any order.

    Raises:
        StoreCorruptError: a damaged or missing chunk.
    """
    numbered: dict[int, memoryview] = {}
    for name, sealed in chunks.items():
        part = unseal(f"pictures/{task_id}/{name}", sealed)
        _, number, count = name.split("/")
        if int(count) != len(chunks):
            raise records.missing_pictures(task_id, clip_id)
        numbered[int(number)] = part
    if sorted(numbered) != list(range(len(chunks))):
        raise StoreCorruptError(
            f"The pictures of clip {clip_id} of task {task_id} are out of order; "
            "delete the task and register it again."
        )
    return unpack_pictures(b"".join(numbered[number] for number in sorted(numbered)))


def batches(chunks: Mapping[str, bytes], size: int = CHUNK_BYTES) -> Iterator[dict[str, bytes]]:
    """Group chunks into messages of about `size` bytes."""
    batch: dict[str, bytes] = {}
    held = 0
    for name, value in chunks.items():
        if batch and held + len(value) > size:
            yield batch
            batch, held = {}, 0
        batch[name] = value
        held += len(value)
    if batch:
        yield batch


def _digest(subject: str, payload: bytes | memoryview) -> bytes:
    digest = hashlib.sha256(b"%s %s %s\n" % (_MAGIC, _VERSION, subject.encode()))
    digest.update(payload)
    return digest.hexdigest().encode()


def _damaged(subject: str, fault: str) -> StoreCorruptError:
    return StoreCorruptError(
        f"The stored value {subject!r} {fault}; delete the task and register it again, "
        "or restore the store from a backup."
    )
