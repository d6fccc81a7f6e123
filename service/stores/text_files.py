"""Cached text as files under hashed names: the blocking half of the directory store's cache.

Not fsynced: a value that a crash damaged fails its checksum and counts as absent.
"""

import contextlib
import itertools
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from service.stores import durable_files, sealing
from service.stores.errors import StoreCorruptError

logger = logging.getLogger(__name__)

SWEEP_EVERY = 256  # writes between two sweeps


class TextFiles:
    """A bounded cache in a folder."""

    def __init__(self, folder: Path, now: Callable[[], float], most: int) -> None:
        self._folder = folder
        self._now = now
        self._most = most
        self._writes = itertools.count(1)
        self._sweeping = threading.Lock()

    def open(self) -> None:
        """Make the folder and remove what crashes left."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        durable_files.sweep_leftovers(self._folder)
        self.sweep()

    def get(self, key: str) -> bytes | None:
        """Return a value that is there, whole and in its time."""
        name = sealing.text_name(key)
        path = self._folder / name
        try:
            value, expires_at = sealing.unpack_text(
                sealing.unseal(f"text/{name}", path.read_bytes())
            )
        except FileNotFoundError:
            return None
        except StoreCorruptError:
            logger.warning("A cached text is damaged and was dropped: %s", name)
            path.unlink(missing_ok=True)
            return None
        return value if self._now() < expires_at else None

    def put(self, key: str, value: bytes, ttl_s: float) -> None:
        """Keep a value; now and then, drop what expired and what is over the bound."""
        name = sealing.text_name(key)
        expires_at = self._now() + ttl_s
        sealed = sealing.seal(f"text/{name}", sealing.pack_text(value, expires_at))
        path = self._folder / name
        durable_files.write_file(path, sealed, durable=False)
        with contextlib.suppress(OSError):  # swept meanwhile
            os.utime(path, (expires_at, expires_at))  # so that a sweep need not read it
        if next(self._writes) % SWEEP_EVERY == 0:
            self.sweep()

    def sweep(self) -> None:
        """Drop what expired, then what expires first until the bound holds."""
        if not self._sweeping.acquire(blocking=False):
            return
        try:
            with os.scandir(self._folder) as entries:
                found = sorted(
                    (entry.stat().st_mtime, entry.path)
                    for entry in entries
                    if not entry.name.startswith(durable_files.ASIDE)
                )
            surplus = len(found) - self._most
            for position, (expires_at, path) in enumerate(found):
                if position >= surplus and expires_at > self._now():
                    break
                Path(path).unlink(missing_ok=True)
        finally:
            self._sweeping.release()
