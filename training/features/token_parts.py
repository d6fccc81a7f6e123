"""A draw of a trunk cache in progress: rows that reached the disk are marked, and only they count.

Dimensions: C clips, T frames, L tokens, D token width.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from model.files import sync_folder
from training.errors import InputError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def reserve(
    data: Path, marks: Path, shape: tuple[int, ...], dtype: np.dtype[Any] | type = np.float16
) -> None:
    """Make a part of full size with no mark; scrap of an earlier try is replaced.

    Args:
        data: File of the rows.
        marks: File with one byte a row.
        shape: Of all rows.
        dtype: Of their values.

    Raises:
        OSError: The disk does not hold it.
    """
    aside = data.with_suffix(".new")
    open_memmap(aside, "w+", dtype, shape)
    with aside.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, aside.stat().st_size)
        os.fsync(file.fileno())
    with marks.open("wb") as file:
        file.write(bytes(shape[0]))
        file.flush()
        os.fsync(file.fileno())
    aside.rename(data)
    sync_folder(data.parent)


class DrawPart:
    """A draw in progress.

    Args:
        data: File of the rows.
        marks: File with one byte a row.
        complete: Name of the data when no row is missing.
        rows: The data, mapped into memory.
    """

    def __init__(
        self, data: Path, marks: Path, complete: Path, rows: np.memmap[Any, np.dtype[Any]]
    ) -> None:
        self.data, self.marks, self.complete = data, marks, complete
        self._start, self._row_bytes = rows.offset, rows[0].nbytes
        self.done = np.frombuffer(marks.read_bytes(), np.uint8).astype(bool)
        self._unsettled = False

    def put(self, first: int, rows: NDArray[Any]) -> None:
        """Write rows from `first` on; they count once they are settled.

        Raises:
            InputError: The disk does not take them.
        """
        # Written, not stored through the mapping: a full disk is then an error and no signal.
        with disk_errors(self.data.parent), self.data.open("r+b", buffering=0) as file:
            file.seek(self._start + first * self._row_bytes)
            _write_all(file, np.ascontiguousarray(rows).view(np.uint8).tobytes())
        self.done[first : first + len(rows)] = True
        self._unsettled = True

    def settle(self) -> None:
        """Bring the data to the disk, then their marks; complete the part when no row is missing.

        Raises:
            InputError: The disk does not take them.
        """
        if not self._unsettled and not self.done.all():
            return
        with disk_errors(self.data.parent):
            with self.data.open("r+b", buffering=0) as file:
                os.fsync(file.fileno())
            with self.marks.open("r+b", buffering=0) as file:
                _write_all(file, self.done.astype(np.uint8).tobytes())
                os.fsync(file.fileno())
            self._unsettled = False
            if self.done.all():
                self.data.rename(self.complete)
                sync_folder(self.complete.parent)
                self.marks.unlink()


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn errors of the disk into one sentence.

    Raises:
        InputError: The disk is full, or the folder cannot be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise InputError(
                f"The disk of {folder} became full ({error.strerror}); make room and run again, "
                "finished clips are kept."
            ) from error
        raise InputError(
            f"{folder} cannot hold a trunk cache ({error}); choose another folder."
        ) from error


def _write_all(file: FileIO, content: bytes) -> None:
    """Write all bytes; the system may take fewer at a time, and says why only when asked again."""
    view = memoryview(content)
    while view:
        view = view[file.write(view) :]
