"""Records, texts and encoded supports as sealed values: read and written here for both stores."""

import hashlib
import logging
import struct
import threading
from collections import OrderedDict

from service.stores import records, sealing
from service.stores.errors import StoreCorruptError
from service.stores.records import TaskRecord

REMEMBERED = 1000  # records

logger = logging.getLogger(__name__)


def seal_record(record: TaskRecord) -> bytes:
    """Return a record as it is stored."""
    return sealing.seal(f"record/{record.task_id}", records.to_json(record))


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
        payload = sealing.unseal(f"record/{task_id}", sealed)
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
    return sealing.seal(f"text/{name}", struct.pack(">d", expires_at) + value)


def read_text(name: str, sealed: object, now: float) -> bytes | None:
    """Return a cached text; None when it is not there, damaged, or its time has run out."""
    if sealed is None:
        return None
    try:
        packed = sealing.unseal(f"text/{name}", sealed)
    except StoreCorruptError:
        logger.warning("A cached text is damaged and was ignored: %s", name)
        return None
    return bytes(packed[8:]) if now < struct.unpack_from(">d", packed)[0] else None


def seal_supports(task_id: str, name: str, value: bytes) -> bytes:
    """Return encoded supports as they are stored."""
    return sealing.seal(f"supports/{task_id}/{name}", value)


def read_supports(task_id: str, name: str, sealed: object) -> bytes | None:
    """Return encoded supports; None when they are damaged."""
    try:
        return bytes(sealing.unseal(f"supports/{task_id}/{name}", sealed))
    except StoreCorruptError:
        logger.warning("The encoded supports of task %s are damaged and were ignored", task_id)
        return None
