"""Tokens of clips on disk: a header with what they were made of, and one array file a draw.

    header.json      what the tokens were made of, their shape, a checksum of both
    draw_003.npy     complete: float16 [C, T, L, D]
    draw_004.part    in progress: the same file with its space reserved
    draw_004.marks   one byte a finished row of the part
    lock             held by the one process that writes

A row is marked after its data reached the disk, and a part is renamed after its last mark: whenever
the process is killed, no unfinished row counts as finished.

Dimensions: C clips, T frames, L tokens, D token width.
"""

import fcntl
import hashlib
import json
import math
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from model.files import write_file
from training.errors import InputError
from training.features.token_parts import DrawPart, disk_errors, reserve

FORMAT = "kshot-tokens-2"
HEADER, LOCK = "header.json", "lock"
SPARE = 1.05  # bytes that must be free / bytes that will be written


class TokenFolder:
    """The files of one trunk cache.

    Args:
        folder: May not exist yet; `claim` makes it.
        shape_CTLD: Of one draw.
        origin: What the tokens are made of, as JSON values.
        augmentation: What draws other than 0 are made of besides, as JSON values.
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

    def check(self, draws: int) -> None:
        """Refuse files of another origin; a folder that does not exist is accepted.

        Args:
            draws: How many besides draw 0; without any, the augmentation does not matter.

        Raises:
            InputError: The header is torn, of another format, or of another origin.
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

    def is_complete(self, draw: int) -> bool:
        """Tell whether a draw has all its rows.

        Raises:
            InputError: Its file is torn.
        """
        file = self._file(draw, "npy")
        if file.is_file():
            self._map(file)
        return file.is_file()

    def rows(self, draw: int) -> NDArray[np.float16]:
        """Map a complete draw [C, T, L, D] into memory, read-only.

        Raises:
            InputError: Its file is torn.
        """
        return self._map(self._file(draw, "npy"))

    def check_space(self, draws: Sequence[int]) -> None:
        """Refuse to begin draws that the disk cannot hold; parts have reserved their space.

        Raises:
            InputError: Less than 105 % of the bytes are free.
        """
        parts = sum(self._file(draw, "part").is_file() for draw in draws)
        needed = (len(draws) - parts) * self.draw_bytes * SPARE
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
            InputError: Another process holds it, it is foreign, or it cannot be written.
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
                    header = json.dumps(self._header(), indent=2).encode()
                    write_file(self.folder / HEADER, header)
            yield

    def parts(self, draws: Iterable[int]) -> dict[int, DrawPart]:
        """Begin draws, their space reserved, or go on with them; only in a claimed folder.

        Raises:
            InputError: A part is torn, or the disk is full; then nothing new is left in the folder.
        """
        begun: list[int] = []
        parts: dict[int, DrawPart] = {}
        with disk_errors(self.folder):
            try:
                for draw in draws:
                    if not self._file(draw, "part").is_file():
                        begun.append(draw)
                        reserve(self._file(draw, "part"), self._file(draw, "marks"), self.shape)
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

    def _part(self, draw: int) -> DrawPart:
        data, marks = self._file(draw, "part"), self._file(draw, "marks")
        rows = self._map(data)
        if not marks.is_file() or marks.stat().st_size != self.shape[0]:
            self._torn(marks.name, "is missing or has the wrong size")
        return DrawPart(data, marks, self._file(draw, "npy"), rows)

    def _map(self, file: Path) -> np.memmap[Any, np.dtype[np.float16]]:
        """Map a file of rows into memory, read-only, or refuse it as torn."""
        try:
            rows = open_memmap(file, "r")
        except (OSError, ValueError) as error:
            self._torn(file.name, f"cannot be read ({error})")
        if rows.shape != self.shape or rows.dtype != np.float16:
            self._torn(file.name, f"holds {rows.dtype} {rows.shape}, not float16 {self.shape}")
        return rows

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
            raise InputError(
                f"{self.folder} holds a trunk cache of format {header['format']!r}, and this "
                f"version reads {FORMAT!r}; remove the folder, and the tokens are made again."
            )
        return body

    def _torn(self, name: str, what: str) -> NoReturn:
        raise InputError(
            f"The trunk cache in {self.folder} is torn: {name} {what}; remove the folder or choose "
            "another."
        )


def gigabytes(count: float) -> str:
    """Return a number of bytes in GB or MB, as text."""
    return f"{count / 1e9:.2f} GB" if count >= 1e7 else f"{count / 1e6:.2f} MB"


def _checksum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _differing(name: str, found: Any, wanted: Any) -> list[str]:  # noqa: ANN401  JSON values
    if isinstance(found, dict) and isinstance(wanted, dict):
        keys = found.keys() | wanted.keys()
        return [f"{key} ({name})" for key in keys if found.get(key) != wanted.get(key)]
    return [] if found == wanted else [name]
