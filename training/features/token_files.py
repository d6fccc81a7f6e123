"""Tokens of clips on disk: a header that says whose they are, and one file a draw.

    header.json      what the tokens were made of, their shape, a checksum of both
    draw_003.f16     whole: float16 [C, T, L, D], row by row
    draw_004.part    in progress, its space reserved; draw_004.marks has one byte a finished row
    lock             held by the one process that writes

A row is marked after its data reached the disk, and a part is renamed after its last mark, so that
whatever ends the process, nothing unfinished is ever taken for finished.

Dimensions: C clips, T frames, L tokens, D token width.
"""

import errno
import fcntl
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from training.errors import InputError

FORMAT = "kshot-tokens-1"
HEADER, LOCK = "header.json", "lock"
SPARE = 1.05  # bytes that must be free / bytes that will be written
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class TokenFolder:
    """The files of one cache.

    Args:
        folder: Made by `claim`.
        shape_CTLD: Of one draw.
        origin: What the tokens are made of, as JSON knows it.
        augmentation: What draws other than 0 are made of besides.
    """

    def __init__(
        self,
        folder: Path,
        shape_CTLD: tuple[int, int, int, int],
        origin: Mapping[str, Any],
        augmentation: Mapping[str, Any],
    ) -> None:
        self.folder, self.shape = folder, shape_CTLD
        self.origin, self.augmentation = dict(origin), dict(augmentation)
        self.draw_bytes = math.prod(shape_CTLD) * 2
        self.row_bytes = self.draw_bytes // shape_CTLD[0]

    def check(self, draws: int) -> None:
        """Refuse files of another origin; a folder that is not there fits.

        Args:
            draws: How many besides draw 0; without any, the augmentation does not matter.

        Raises:
            InputError: torn or foreign.
        """
        try:
            content = (self.folder / HEADER).read_text()
        except FileNotFoundError:
            if any(self.folder.glob("draw_*")):
                self._torn(HEADER, "is not there")
            return
        except (OSError, UnicodeDecodeError) as error:
            self._torn(HEADER, f"cannot be read ({error})")
        found = self._parse(content)
        wanted = self._header()
        parts = ["shape", "origin", "augmentation"] if draws else ["shape", "origin"]
        other = sorted(k for part in parts for k in _differing(part, found[part], wanted[part]))
        if other:
            raise InputError(
                f"{self.folder} holds a trunk cache with another {', '.join(other)}; remove it or "
                "choose another folder."
            )

    def whole(self, draw: int) -> bool:
        """Return whether a draw is complete.

        Raises:
            InputError: it has the wrong size.
        """
        file = self._file(draw, "f16")
        if not file.is_file():
            return False
        if file.stat().st_size != self.draw_bytes:
            self._torn(file.name, f"has {file.stat().st_size} bytes, not {self.draw_bytes}")
        return True

    def rows(self, draw: int) -> NDArray[np.float16]:
        """Map a complete draw into memory [C, T, L, D], to be read only."""
        return np.memmap(self._file(draw, "f16"), np.float16, "r", shape=self.shape)

    def missing_bytes(self, draws: Sequence[int]) -> int:
        """Return the bytes that complete draws still need, less what parts have reserved."""
        parts = sum(self._file(draw, "part").is_file() for draw in draws)
        return (len(draws) - parts) * self.draw_bytes

    def check_space(self, draws: Sequence[int]) -> None:
        """Refuse to begin what the disk cannot hold.

        Raises:
            InputError: less than 105 % of the bytes are free.
        """
        needed = self.missing_bytes(draws) * SPARE
        disk = next(
            path for path in (self.folder, *self.folder.absolute().parents) if path.is_dir()
        )
        free = shutil.disk_usage(disk).free
        if needed > free:
            raise InputError(
                f"The trunk cache needs {gigabytes(needed)} free in {self.folder} with 5 % to "
                f"spare, and there are {gigabytes(free)}; make room, choose another folder, or "
                "lower the draws."
            )

    @contextmanager
    def claim(self, draws: int) -> Iterator[None]:
        """Hold the folder for writing, and write its header where there is none.

        Raises:
            InputError: another process holds it, it is foreign, or it cannot be written.
        """
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / LOCK).open("ab")
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise InputError(
                    f"Another process is building the trunk cache in {self.folder}; wait for it, "
                    "or choose another folder."
                ) from error
            self.check(draws)
            with disk_errors(self.folder):
                self._remove_scrap()
                if not (self.folder / HEADER).is_file():
                    self._write_aside(HEADER, json.dumps(self._header(), indent=2).encode())
            yield

    def parts(self, draws: Iterable[int]) -> dict[int, "DrawPart"]:
        """Begin draws, their space reserved, or go on with them; only in a claimed folder.

        Raises:
            InputError: a torn part, or a full disk; then nothing new is left in the folder.
        """
        begun: list[int] = []
        parts: dict[int, DrawPart] = {}
        with disk_errors(self.folder):
            try:
                for draw in draws:
                    if not self._file(draw, "part").is_file():
                        begun.append(draw)
                        self._reserve(draw)
                    parts[draw] = self._part(draw)
            except OSError:
                for draw in begun:
                    for kind in ("new", "part", "marks"):
                        self._file(draw, kind).unlink(missing_ok=True)
                raise
        return parts

    def _remove_scrap(self) -> None:
        """Remove what a process killed between two steps left; none of it holds finished rows."""
        for marks in self.folder.glob("draw_*.marks"):
            if not marks.with_suffix(".part").is_file():
                marks.unlink()
        for aside in self.folder.glob("*.new"):
            aside.unlink()

    def _part(self, draw: int) -> "DrawPart":
        data, marks = self._file(draw, "part"), self._file(draw, "marks")
        if data.stat().st_size != self.draw_bytes:
            self._torn(data.name, f"has {data.stat().st_size} bytes, not {self.draw_bytes}")
        if not marks.is_file() or marks.stat().st_size != self.shape[0]:
            self._torn(marks.name, "is missing or has the wrong size")
        return DrawPart(data, marks, self._file(draw, "f16"), self.row_bytes)

    def _reserve(self, draw: int) -> None:
        """Make a part of full size with no mark; scrap of an earlier try is replaced."""
        aside, marks = self._file(draw, "new"), self._file(draw, "marks")
        with aside.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, self.draw_bytes)
            os.fsync(file.fileno())
        with marks.open("wb") as file:
            file.write(bytes(self.shape[0]))
            file.flush()
            os.fsync(file.fileno())
        aside.rename(self._file(draw, "part"))
        sync_folder(self.folder)

    def _file(self, draw: int, kind: str) -> Path:
        return self.folder / f"draw_{draw:03d}.{kind}"

    def _header(self) -> dict[str, Any]:
        body = {
            "format": FORMAT,
            "shape": list(self.shape),
            "origin": self.origin,
            "augmentation": self.augmentation,
        }
        return {**body, "checksum": _checksum(body)}

    def _parse(self, content: str) -> dict[str, Any]:
        try:
            header = json.loads(content)
            body = {key: header[key] for key in ("format", "shape", "origin", "augmentation")}
            intact = header["checksum"] == _checksum(body)
        except (json.JSONDecodeError, KeyError, TypeError):
            intact = False
        if not intact:
            self._torn(HEADER, "fails its checksum")
        if header["format"] != FORMAT:
            self._torn(HEADER, f"has format {header['format']!r}, not {FORMAT!r}")
        return body

    def _torn(self, name: str, what: str) -> NoReturn:
        raise InputError(
            f"The trunk cache in {self.folder} is torn: {name} {what}; remove the folder or choose "
            "another."
        )

    def _write_aside(self, name: str, content: bytes) -> None:
        aside = self.folder / f"{name}.new"
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self.folder / name)
        sync_folder(self.folder)


class DrawPart:
    """A draw in progress.

    Args:
        data: File of the rows.
        marks: File with one byte a row.
        whole: Name of the data when no row is missing.
        row_bytes: Bytes of a row.
    """

    def __init__(self, data: Path, marks: Path, whole: Path, row_bytes: int) -> None:
        self.data, self.marks, self.whole, self.row_bytes = data, marks, whole, row_bytes
        self.done = np.frombuffer(marks.read_bytes(), np.uint8).astype(bool)
        self.unsettled = False

    def put(self, first: int, rows: NDArray[np.float16]) -> None:
        """Write rows from `first` on; they count once they are settled."""
        with disk_errors(self.data.parent), self.data.open("r+b", buffering=0) as file:
            file.seek(first * self.row_bytes)
            write_all(file, np.ascontiguousarray(rows).view(np.uint8).tobytes())
        self.done[first : first + len(rows)] = True
        self.unsettled = True

    def settle(self) -> None:
        """Bring data to the disk, then their marks; a part without gaps becomes whole."""
        if not self.unsettled and not self.done.all():
            return
        with disk_errors(self.data.parent):
            with self.data.open("r+b", buffering=0) as file:
                os.fsync(file.fileno())
            with self.marks.open("r+b", buffering=0) as file:
                write_all(file, self.done.astype(np.uint8).tobytes())
                os.fsync(file.fileno())
            self.unsettled = False
            if self.done.all():
                self.data.rename(self.whole)
                sync_folder(self.whole.parent)
                self.marks.unlink()


def write_all(file: FileIO, content: bytes) -> None:
    """Write all of it; the system may take less at a time, and says why only when asked again."""
    view = memoryview(content)
    while view:
        view = view[file.write(view) :]


def sync_folder(folder: Path) -> None:
    """Make names last: a rename is on disk when its folder is."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn what the disk answers into one sentence.

    Raises:
        InputError: the disk is full, or the folder cannot be written.
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


def gigabytes(count: float) -> str:
    """Write bytes for people."""
    return f"{count / 1e9:.2f} GB" if count >= 1e7 else f"{count / 1e6:.2f} MB"


def _checksum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _differing(name: str, found: Any, wanted: Any) -> list[str]:  # noqa: ANN401  JSON values
    if isinstance(found, dict) and isinstance(wanted, dict):
        keys = found.keys() | wanted.keys()
        return [f"{key} ({name})" for key in keys if found.get(key) != wanted.get(key)]
    return [] if found == wanted else [name]
