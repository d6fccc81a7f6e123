"""Sealed values: each stored byte string says what it is, for which task, and its checksum.

Both stores write and read records, pictures, texts and encoded supports by what stands here.

A sealed value is one line, `kshot 1 SUBJECT LENGTH SHA256`, and the payload. The checksum covers
the subject, so that a value found under another task's key is noticed like a flipped bit. Redis
takes at most 512 MB a value, so there the pictures of a clip are cut into chunks far below that.
"""

import hashlib
import logging
import struct
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence

from service.stores import records
from service.stores.errors import StoreCorruptError
from service.stores.records import TaskRecord

CHUNK_BYTES = 8 * 2**20
REMEMBERED = 1000  # records that were parsed

_MAGIC = b"kshot"
_VERSION = b"1"
_LONGEST_HEADER = 512

logger = logging.getLogger(__name__)


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


def seal_record(record: TaskRecord) -> bytes:
    """Return a record as it is stored."""
    return seal(f"record/{record.task_id}", records.to_json(record))


class SealedRecords:
    """Reads stored records, and parses each once as long as it stays the same.

    Parsing a record of 64 clips takes 16 times as long as seeing that it is the same. Any thread
    may ask.
    """

    def __init__(self) -> None:
        self._parsed: OrderedDict[str, tuple[bytes, TaskRecord]] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, task_id: str, sealed: object) -> TaskRecord:
        """Return the record of a task.

        Raises:
            StoreCorruptError: damaged, another task's, or of another schema.
        """
        payload = unseal(f"record/{task_id}", sealed)
        assert isinstance(sealed, bytes)
        header = sealed[: len(sealed) - len(payload)]  # holds the checksum, which was right
        with self._lock:
            if task_id in self._parsed and self._parsed[task_id][0] == header:
                self._parsed.move_to_end(task_id)
                return self._parsed[task_id][1]
        record = records.from_json(bytes(payload))
        with self._lock:
            self._parsed[task_id] = header, record
            self._parsed.move_to_end(task_id)
            if len(self._parsed) > REMEMBERED:
                self._parsed.popitem(last=False)
        return record

    def forget(self, task_id: str) -> None:
        """Remember a task no more."""
        with self._lock:
            self._parsed.pop(task_id, None)


def text_name(key: str) -> str:
    """Return the hashed name under which a cached text is stored."""
    return hashlib.sha256(key.encode()).hexdigest()


def seal_text(name: str, value: bytes, expires_at: float) -> bytes:
    """Return a cached text, and the unix time at which it expires, as they are stored."""
    return seal(f"text/{name}", struct.pack(">d", expires_at) + value)


def read_text(name: str, sealed: object, now: float) -> bytes | None:
    """Return a cached text; None when it is not there, damaged, or its time has run out."""
    if sealed is None:
        return None
    try:
        packed = unseal(f"text/{name}", sealed)
    except StoreCorruptError:
        logger.warning("A cached text is damaged and was ignored: %s", name)
        return None
    return bytes(packed[8:]) if now < struct.unpack_from(">d", packed)[0] else None


def seal_supports(task_id: str, name: str, value: bytes) -> bytes:
    """Return encoded supports as they are stored."""
    return seal(f"supports/{task_id}/{name}", value)


def read_supports(task_id: str, name: str, sealed: object) -> bytes | None:
    """Return encoded supports; None when they are damaged."""
    try:
        return bytes(unseal(f"supports/{task_id}/{name}", sealed))
    except StoreCorruptError:
        logger.warning("The encoded supports of task %s are damaged and were ignored", task_id)
        return None


def _digest(subject: str, payload: bytes | memoryview) -> bytes:
    digest = hashlib.sha256(b"%s %s %s\n" % (_MAGIC, _VERSION, subject.encode()))
    digest.update(payload)
    return digest.hexdigest().encode()


def _damaged(subject: str, fault: str) -> StoreCorruptError:
    return StoreCorruptError(
        f"The stored value {subject!r} {fault}; delete the task and register it again, "
        "or restore the store from a backup."
    )
