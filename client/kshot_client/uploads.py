"""Clips that are sent: files of the disk are opened when they are read, and closed at their end."""

import io
import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import anyio.to_thread
import httpx

from kshot_client.problems import SettingError

Progress = Callable[[int], object]  # is told of each piece of bytes that went out
CHUNK_BYTES = 2**16


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip with what is known of it.

    Args:
        file: Its place on disk, or its bytes.
        start_s: Where the action starts, seconds; None is the beginning.
        end_s: Where it ends; None is the end.
        name: By which answers name it; the file's, unless this says otherwise.
    """

    file: Path | str | bytes
    start_s: float | None = None
    end_s: float | None = None
    name: str | None = None


AnyClip = Clip | Path | str | bytes


def clip_of(given: AnyClip) -> Clip:
    """Return a clip of whatever a caller gave."""
    return given if isinstance(given, Clip) else Clip(given)


class Upload(io.RawIOBase):
    """A file that is opened at its first byte, so that hundreds of clips need no open file each.

    Args:
        source: Its place, or its bytes.
        progress: Is told how many bytes were read.

    Raises:
        SettingError: There is no such file, or it cannot be read.
    """

    def __init__(self, source: Path | str | bytes, progress: Progress | None = None) -> None:
        super().__init__()
        self._source = source
        self._progress = progress
        self._place = 0
        self._opened: BinaryIO | None = None
        self.length = len(source) if isinstance(source, bytes) else _length(Path(source))

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that it can be read again."""
        return True

    def tell(self) -> int:
        """Return the place of the next byte."""
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self.length}[whence]
        self._place = start + offset
        self._shut()
        return self._place

    def read(self, size: int = -1) -> bytes:
        """Read on; at the end the file of the disk is closed."""
        left = self.length - self._place
        wanted = left if size < 0 else min(size, left)
        if wanted <= 0:
            self._shut()
            return b""
        if self._opened is None:
            source = self._source
            self._opened = io.BytesIO(source) if isinstance(source, bytes) else _open(source)
            self._opened.seek(self._place)
        read = self._opened.read(wanted)
        if not read:
            raise SettingError(f"{self._source!s} became shorter while it was sent; send it again.")
        self._place += len(read)
        if self._place >= self.length:
            self._shut()
        if self._progress is not None:
            self._progress(len(read))
        return read

    def close(self) -> None:
        """Close the file of the disk."""
        self._shut()
        super().close()

    def _shut(self) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None


class WholeFile(httpx.SyncByteStream):
    """A body that is one file."""

    def __init__(self, upload: Upload) -> None:
        self._upload = upload

    def __iter__(self) -> Iterator[bytes]:
        """Give it piece by piece."""
        self._upload.seek(0)
        while piece := self._upload.read(CHUNK_BYTES):
            yield piece


class InThread(httpx.AsyncByteStream):
    """A body whose files are read in a thread, so that the event loop waits for no disk."""

    def __init__(self, body: httpx.SyncByteStream) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Give it piece by piece."""
        pieces = iter(self._body)
        while (piece := await anyio.to_thread.run_sync(next, pieces, None)) is not None:
            yield piece


def _length(path: Path) -> int:
    try:
        if path.is_file():
            return path.stat().st_size
    except OSError as error:
        raise SettingError(f"{path} cannot be read ({error.strerror}); check its rights.") from None
    raise SettingError(f"{path} is no file; check its name.")


def _open(source: Path | str) -> BinaryIO:
    try:
        return Path(source).open("rb")
    except OSError as error:
        raise SettingError(
            f"{source!s} cannot be read ({error.strerror}); check its rights."
        ) from None
