"""The file of the embedded store: its lock, its schema, its connections and the room it takes.

One connection writes and some read, so that a read never waits for a write. A transaction is safe
once it is in the write-ahead log (`synchronous=FULL`); `merge` copies it from there to the file.
"""

import contextlib
import fcntl
import os
import queue
import shutil
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path
from sqlite3 import Connection

from model.files import sync_folder
from service.stores import errors
from service.stores.errors import StoreCorruptError, StoreUnavailableError
from service.stores.sqlite_schema import (
    APPLICATION_ID,
    LATER,
    SCHEMA,
    SCHEMA_VERSION,
    TABLES,
)

PAGE_BYTES = 32768  # larger pages read pictures faster and write small rows slower; at most 65536
CACHE_BYTES = 32 * 2**20  # of the writing connection
BUSY_S = 5.0  # how long to wait for another program that locks the file, such as a backup
MERGE_BUSY_S = 0.2  # how long a merge waits for reads; what it leaves, the next one takes
MERGE_BYTES = 4 * 2**20  # written to the log before it is merged
LONGEST_LOG_BYTES = 256 * 2**20  # beyond it, merging waits for reads to end and cuts the log
RESERVE_BYTES = 64 * 2**20  # left free on the disk, so that tasks can still be deleted
SHRINK_PAGES = 256  # given back to the file system in one transaction


class SqliteFile:
    """A locked SQLite file with the store's schema.

    Args:
        path: The file; it is made where there is none. Its file system must be local.
        readers: Number of reading connections; `reading` waits when all are in use.
    """

    def __init__(self, path: Path, readers: int) -> None:
        self._path = path
        self._readers: queue.SimpleQueue[Connection] = queue.SimpleQueue()
        self._reader_count = readers
        self._connections: list[Connection] = []
        self._lock: int | None = None
        self._unmerged = 0
        self._identity: list[tuple[int, int]] = []

    def open(self) -> None:
        """Lock the file, check that it is ours and whole, and connect.

        Raises:
            StoreUnavailableError: it cannot be used, or another process uses it.
            StoreCorruptError: it is torn, no store of kshot's, or from a newer version.
        """
        try:
            self._path = self._path.expanduser().resolve()
            self._make_folder()
            self._take_lock()
            self._check_kind()
        except OSError as error:
            raise StoreUnavailableError(
                f"The store file cannot be used ({error.strerror}); "
                "choose one in a folder that this user may write to."
            ) from error
        self._writer = self._connect()
        self._check_schema()
        self._cache = self._connect()
        self._cache.execute("PRAGMA synchronous=NORMAL")
        for _ in range(self._reader_count):
            reader = self._connect()
            reader.execute("PRAGMA query_only=ON")
            self._readers.put(reader)
        self._kept = (self._path, self._beside("-wal"))
        self._identity = self._identities()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """Yield a connection on which all reads see the same moment."""
        reader = self._readers.get()
        try:
            self._check_in_place()
            with _transaction(reader, "BEGIN"):
                yield reader
        finally:
            self._readers.put(reader)

    @contextlib.contextmanager
    def writing(self, size: int = 0, *, durable: bool = True) -> Iterator[Connection]:
        """Yield a connection whose writes are committed together at the end; one caller at a time.

        Args:
            size: Bytes that are added, about; 0 for a removal, which a full disk must not prevent.
            durable: Whether the commit waits for the disk.

        Raises:
            StoreUnavailableError: the disk has no room, or the file is gone.
        """
        self._check_in_place()
        if size:
            self._check_room(size)
        with _transaction(self._writer if durable else self._cache, "BEGIN IMMEDIATE") as writer:
            yield writer
        self._unmerged += size + 4 * PAGE_BYTES
        self._check_in_place()

    def merge(self) -> None:
        """Copy the log's transactions to the file, if it is worth while."""
        if self._unmerged >= MERGE_BYTES:
            too_long = self._log_bytes() > LONGEST_LOG_BYTES
            self._checkpoint("TRUNCATE" if too_long else "PASSIVE")

    def shrink(self) -> bool:
        """Give some free pages back to the file system; False when there were no more."""
        # `execute` would free one page: this pragma returns a row without columns for each.
        self._writer.executescript(f"PRAGMA incremental_vacuum({SHRINK_PAGES})")
        if _number(self._writer, "freelist_count"):
            return True
        self._checkpoint("TRUNCATE")  # the file is cut only now, and the log forgets what it held
        return False

    def close(self) -> None:
        """Close all connections, which merges the log, and let go of the lock."""
        for connection in reversed(self._connections):  # the writer last: it merges the log
            with contextlib.suppress(sqlite3.Error):
                connection.close()
        self._connections.clear()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _make_folder(self) -> None:
        folder = self._path.parent
        missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
        for parent in reversed(missing):
            parent.mkdir(mode=0o700, exist_ok=True)
            sync_folder(parent.parent)

    def _take_lock(self) -> None:
        """Take a lock that the kernel frees when this process ends, however it ends."""
        self._lock = os.open(self._beside("-lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreUnavailableError(
                "The store file is in use by another process; "
                "stop that one, choose another file, or share tasks through Redis."
            ) from error

    def _check_kind(self) -> None:
        if not self._path.exists() or self._path.stat().st_size == 0:
            if self._log_bytes():
                raise StoreCorruptError(
                    "The store file is missing or empty, and its write-ahead log is not. Restore "
                    "both from a backup, or delete the log (-wal) to start without tasks."
                )
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            sync_folder(self._path.parent)
            return
        with self._path.open("r+b") as file:
            header = file.read(100)
        if header[:16] != b"SQLite format 3\0":
            raise errors.not_a_store("no SQLite database")
        page_bytes, pages = struct.unpack_from(">16xH10xI", header.ljust(100, b"\0"))
        if self._log_bytes():
            pages = 1  # a merge that was interrupted may have left more to the log
        if self._path.stat().st_size < max(page_bytes, 512) * pages:
            raise errors.damaged_file()  # SQLite would take what has no whole page for a new file
        if self._path.stat().st_nlink > 1:  # each name would have a log and a lock of its own
            raise StoreUnavailableError("The store file has several hard links; keep one of them.")

    def _connect(self) -> Connection:
        connection = sqlite3.connect(
            self._path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        self._connections.append(connection)
        for setting in (
            "synchronous=FULL",  # a commit waits for the disk
            "fullfsync=ON",  # and, on macOS, for the disk's own cache
            "secure_delete=FAST",  # removed rows are overwritten; `shrink` removes free pages
            "wal_autocheckpoint=0",  # no commit waits for `merge`
            f"journal_size_limit={16 * MERGE_BYTES}",
            f"cache_size=-{CACHE_BYTES // 1024 if len(self._connections) == 1 else 2048}",
            "trusted_schema=OFF",
        ):
            connection.execute(f"PRAGMA {setting}").fetchall()
        return connection

    def _check_schema(self) -> None:
        """Make the schema in an empty file, else assert that it is the one that we know."""
        writer = self._writer
        named = {row[0] for row in writer.execute("SELECT name FROM sqlite_master")}
        application, version = (_number(writer, n) for n in ("application_id", "user_version"))
        if not named and application in {0, APPLICATION_ID} and version == 0:
            self._make_schema()
            return
        if application != APPLICATION_ID:
            raise errors.not_a_store("the SQLite database of another program")
        if version != SCHEMA_VERSION:
            raise StoreCorruptError(
                f"The store file has schema {version}, and this version of kshot reads "
                f"{SCHEMA_VERSION}; run the version that wrote it, or choose another file."
            )
        faults = writer.execute("PRAGMA quick_check('tasks')").fetchall()
        if faults != [("ok",)] or not named >= TABLES:
            raise errors.damaged_file()
        _set_log_mode(writer)
        self._run(LATER)

    def _make_schema(self) -> None:
        self._writer.execute(f"PRAGMA page_size={PAGE_BYTES}")
        self._writer.execute("PRAGMA auto_vacuum=INCREMENTAL")
        _set_log_mode(self._writer)
        marks = f"PRAGMA application_id={APPLICATION_ID};PRAGMA user_version={SCHEMA_VERSION}"
        self._run(f"{SCHEMA}{LATER}{marks}")

    def _run(self, script: str) -> None:
        with _transaction(self._writer, "BEGIN IMMEDIATE") as writer:
            for statement in filter(str.strip, script.split(";")):
                writer.execute(statement)

    def _checkpoint(self, mode: str) -> None:
        self._writer.execute(f"PRAGMA busy_timeout={round(1000 * MERGE_BUSY_S)}")
        try:
            self._writer.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
        finally:
            self._writer.execute(f"PRAGMA busy_timeout={round(1000 * BUSY_S)}")
        self._unmerged = 0

    def _check_room(self, size: int) -> None:
        free = shutil.disk_usage(self._path.parent).free
        if free < 2 * size + self._unmerged + RESERVE_BYTES:  # in the log, and then in the file
            raise errors.store_full("disk")

    def _check_in_place(self) -> None:
        """Assert that the open files still bear their names: else their tasks are lost soon."""
        try:
            in_place = self._identities() == self._identity
        except FileNotFoundError:
            in_place = False
        if not in_place:
            raise StoreUnavailableError(
                "The file of the task store was moved, replaced or deleted while in use; "
                "repeat the request once the operator has put it back or restarted the service."
            )

    def _identities(self) -> list[tuple[int, int]]:
        return [(found.st_dev, found.st_ino) for found in (path.stat() for path in self._kept)]

    def _log_bytes(self) -> int:
        log = self._beside("-wal")
        return log.stat().st_size if log.exists() else 0

    def _beside(self, suffix: str) -> Path:
        return self._path.with_name(self._path.name + suffix)


@contextlib.contextmanager
def _transaction(connection: Connection, begin: str) -> Iterator[Connection]:
    connection.execute(begin)
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _set_log_mode(connection: Connection) -> None:
    ((mode,),) = connection.execute("PRAGMA journal_mode=WAL").fetchall()
    if mode != "wal":
        raise StoreUnavailableError("The file system of the store file has no shared memory.")


def _number(connection: Connection, pragma: str) -> int:
    return int(connection.execute(f"PRAGMA {pragma}").fetchone()[0])
