"""Long videos: each in a sandboxed process of its own, which ends with it.

So the decoders of clips are never held for minutes, and a client that leaves costs one process.
Pictures come in pieces, the next one decoded while the last one is computed with.
"""

import asyncio
import contextlib
import fcntl
import logging
import math
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass

import numpy as np

from model.errors import ClipDecodeTimeoutError, ClipError, ClipUndecodableError
from model.media.container import SNIFFED_BYTES, MediaLimits, check_kind
from model.media.windows import WindowGrid
from service.background import spawn
from service.decoding.pool import CLIP_ERRORS, MOST_CHARS, MOST_WARNINGS
from service.decoding.process import Decoder
from service.decoding.protocol import FIRST_FD, Message, ProtocolError
from service.decoding.sandbox import SandboxLimits
from service.errors import DecoderBusyError, ServerFullError

PIECE_PICTURES = 32  # of one answer: 5 MB at 224 pixels
WORKER = "service.decoding.stream_worker"
RETRY_S = 30.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class VideoEnd:
    """What was known when the video had ended."""

    duration_s: float
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """Some pictures of a video.

    Args:
        numbers: Of their instants on the grid, ascending.
        frames_NHWC: uint8; one for each.
        reached_s: How far the video is decoded.
        end: None before the last piece.
    """

    numbers: tuple[int, ...]
    frames_NHWC: np.ndarray
    reached_s: float
    end: VideoEnd | None


class VideoStreams:
    """Opens long videos.

    Args:
        size: Height and width of the pictures.
        squash: Side that whole pictures are squashed to before the crop; None keeps their shape.
        media: What a video may be.
        sandbox: What its process may use.
        most: Videos at once.
    """

    def __init__(
        self,
        *,
        size: int,
        squash: int | None = None,
        media: MediaLimits,
        sandbox: SandboxLimits,
        most: int,
    ) -> None:
        self.size, self.squash = size, squash
        self.media = media
        self.sandbox = sandbox
        self.most = most
        self.running = 0

    @asynccontextmanager
    async def open(self, video: int, grid: WindowGrid) -> AsyncIterator["OpenStream"]:
        """Open a video in a process of its own, which ends with the context.

        Args:
            video: Descriptor of its file.
            grid: Where windows look.

        Raises:
            ClipError: Its headers rule it out.
            ServerFullError: Too many videos are being read.
            DecoderUnavailableError: No process can be started.
        """
        if self.running >= self.most:
            raise ServerFullError(
                f"The server reads {self.running} long videos and takes {self.most} at once; "
                "ask later.",
                retry_after_s=RETRY_S,
            )
        check_kind(os.pread(video, SNIFFED_BYTES, 0), self.media)
        self.running += 1
        try:
            stream = await self._started(video)
            try:
                await stream.begin(grid)
                yield stream
            finally:
                await asyncio.shield(stream.close())
        finally:
            self.running -= 1

    async def _started(self, video: int) -> "OpenStream":
        # opened anew: to read alone, and with a place in the file of its own
        file = os.open(f"/proc/self/fd/{video}", os.O_RDONLY | os.O_CLOEXEC)
        low = file
        try:
            file = _above(low)
            decoder = await Decoder.start(
                frames=PIECE_PICTURES,
                size=self.size,
                squash=self.squash,
                media=self.media,
                sandbox=self.sandbox,
                module=WORKER,
                files=[file],
            )
        finally:
            os.close(low)
            if file != low:
                os.close(file)
        return OpenStream(decoder, self.sandbox)


def _above(file: int) -> int:
    """Return the same file under a number that the process does not need for its pipes."""
    return fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, FIRST_FD)


class OpenStream:
    """One video in its process.

    Args:
        decoder: The process.
        sandbox: What it may use.
    """

    def __init__(self, decoder: Decoder, sandbox: SandboxLimits) -> None:
        self.codec = ""
        self.claimed_s: float | None = None  # by the headers, which may lie
        self._decoder = decoder
        self._sandbox = sandbox
        self._following: asyncio.Task[Piece] | None = None

    async def begin(self, grid: WindowGrid) -> None:
        """Read the headers.

        Raises:
            ClipError: They rule the video out.
        """
        fields = (await self._ask(Message({"grid": asdict(grid)}))).header
        try:
            claimed_s = fields["claimed_s"]
            self.claimed_s = None if claimed_s is None else float(claimed_s)
            self.codec = str(fields["codec"])[:MOST_CHARS]
        except (KeyError, TypeError, ValueError) as error:
            raise self._nonsense() from error

    async def pieces(self) -> AsyncGenerator[Piece]:
        """Give the pictures, piece by piece; while one is used the next is being decoded.

        Raises:
            ClipError: The video cannot be used any further.
            DecoderBusyError: The machine had too little time for it.
        """
        self._following = spawn(self._next())
        while True:
            piece = await self._following
            if piece.end is not None:
                yield piece
                return
            self._following = spawn(self._next())
            yield piece

    async def close(self) -> None:
        """End the process."""
        self._decoder.kill()
        if self._following is not None:
            self._following.cancel()
            with contextlib.suppress(asyncio.CancelledError, ClipError, DecoderBusyError):
                await self._following
        await self._decoder.stop()

    async def _next(self) -> Piece:
        """Ask for more, and check the answer as untrusted data."""
        fields = (await self._ask(Message({}))).header
        memory = self._decoder.memory
        try:
            numbers, end = [int(number) for number in fields["numbers"]], fields["end"]
            ended = None if end is None else _end(end)
            reached_s = float(fields["reached_s"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise self._nonsense() from error
        if len(numbers) > PIECE_PICTURES or numbers != sorted({*numbers}):
            raise self._nonsense()
        if not math.isfinite(reached_s) or (ended and not math.isfinite(ended.duration_s)):
            raise self._nonsense()
        frames_NHWC = memory.read()[: len(numbers)].copy()
        return Piece(tuple(numbers), frames_NHWC, reached_s, ended)

    async def _ask(self, request: Message) -> Message:
        try:
            answer = await self._decoder.ask(request)
        except TimeoutError as error:
            raise DecoderBusyError(
                f"A part of the video was not read within {self._sandbox.wall_s:g} s: the machine "
                "is busy; ask again later.",
                retry_after_s=self._sandbox.wall_s,
            ) from error
        except (OSError, EOFError, ProtocolError) as error:
            raise self._death(await self._decoder.ended()) from error
        fields = answer.header
        if "unexpected" in fields:
            log.warning("a video made the decoder raise %.500s", fields["unexpected"])
        if "code" in fields:
            raise CLIP_ERRORS.get(fields["code"], ClipUndecodableError)(str(fields.get("message")))
        return answer

    def _death(self, exit_code: int | None) -> ClipError:
        if exit_code == -signal.SIGXCPU:
            return ClipDecodeTimeoutError(
                f"A part of the video took more than {self._sandbox.cpu_s} s of processor time; "
                "send smaller pictures."
            )
        return ClipUndecodableError(
            f"The decoder died on the video (exit {exit_code}); encode it again."
        )

    def _nonsense(self) -> ClipError:
        return ClipUndecodableError("The decoder's answer is of no use; encode the video again.")


def _end(fields: dict[str, object]) -> VideoEnd:
    warnings = fields["warnings"]
    if not isinstance(warnings, list):
        raise TypeError
    said = tuple(str(line)[:MOST_CHARS] for line in warnings[:MOST_WARNINGS])
    return VideoEnd(float(str(fields["duration_s"])), said)
