"""The pool of sandboxed decoders: untrusted bytes in, sampled frames or a `ClipError` out.

Every clip is read by one of a few processes that have no torch, no files and no network. A process
that dies, hangs, grows or has served long enough is replaced; its neighbours notice nothing.
"""

import asyncio
import logging
import math
import signal
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Self

from model.errors import ClipDecodeTimeoutError, ClipError, ClipUndecodableError, KshotError
from model.media.container import MediaLimits
from model.media.sampling import Clip
from service.background import spawn
from service.decoding.process import Decoder, DecoderUnavailableError
from service.decoding.protocol import Message, PixelMemory, ProtocolError
from service.decoding.sandbox import SandboxLimits
from service.decoding.turns import ClosedError, DecodePace, Turns, WorkClass
from service.errors import DecoderBusyError

log = logging.getLogger(__name__)

Watch = Callable[[str, Clip | None, float], None]

CLIP_ERRORS = {error.code: error for error in ClipError.__subclasses__()}
MOST_WARNINGS, MOST_CHARS = 8, 300  # of one clip, and of one of them
CLOSED = "The decode pool is closed; start the service again."
LONGEST_PAUSE_S = 5.0  # between attempts to start a decoder that does not start


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipRequest:
    """One untrusted clip: an encoded video, or pictures."""

    video: bytes | None
    pictures: tuple[bytes, ...] = ()
    start_s: float | None = None
    end_s: float | None = None

    def __post_init__(self) -> None:
        """Insist on exactly one of video and pictures."""
        if (self.video is None) == (not self.pictures):
            raise ValueError("A clip request has either a video or pictures, not both or neither.")

    @property
    def size(self) -> int:
        """Bytes of the clip as it was sent."""
        return sum(map(len, self.pictures)) if self.video is None else len(self.video)


class DecodePool:
    """A few decoder processes shared by all requests; each clip waits for the next free one.

    `watch` is told of each clip the outcome (`ok`, or the code of its fault), what was read, and
    the seconds that it took.
    """

    def __init__(
        self,
        *,
        workers: int,
        frames: int,
        size: int,
        squash: int | None = None,
        media: MediaLimits,
        sandbox: SandboxLimits,
        watch: Watch = lambda *_: None,
    ) -> None:
        if workers < 1:
            raise ValueError(f"A decode pool needs at least one worker, got {workers}.")
        self.workers = workers
        self.frames = frames
        self.size, self.squash = size, squash
        self.media = media
        self.sandbox = sandbox
        self.watch = watch
        self.pace = DecodePace()
        self._decoders: set[Decoder] = set()
        self.turns: Turns[Decoder] = Turns(workers)
        self._serving: set[asyncio.Task[Clip | float]] = set()
        self._replacing: set[asyncio.Task[None]] = set()
        self._closed = False

    async def start(self) -> None:
        """Start all decoders.

        Raises:
            DecoderUnavailableError: One of them did not start; none is left behind.
        """
        try:
            started = await asyncio.gather(
                *(self._start_one() for _ in range(self.workers)), return_exceptions=True
            )
        except asyncio.CancelledError:
            await self.close()
            raise
        for failure in (result for result in started if isinstance(result, BaseException)):
            await self.close()
            raise failure

    async def close(self) -> None:
        """End every decoder; clips still waiting get a `DecoderUnavailableError`."""
        self._closed = True
        self.turns.close()
        for task in self._replacing:
            task.cancel()
        await asyncio.gather(*(decoder.stop() for decoder in self._decoders))
        await asyncio.gather(*self._serving, *self._replacing, return_exceptions=True)
        self._decoders.clear()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def alive(self) -> int:
        """How many decoders run now."""
        return sum(decoder.alive for decoder in self._decoders)

    async def versions(self) -> dict[str, str]:
        """Name the versions of the decoding libraries, as a decoder reported them."""
        return next((dict(each.introduction["versions"]) for each in self._decoders), {})

    async def decode(
        self, clip: ClipRequest, work: WorkClass = "classify", tenant: str = ""
    ) -> Clip:
        """Read one clip in the next free decoder.

        A caller that is cancelled leaves at once; the decoder finishes the clip within its limits
        and goes on with the next.

        Args:
            clip: Untrusted.
            work: What it is read for; clips to classify go first.
            tenant: Whose it is; tenants take turns.

        Raises:
            ClipError: One of its children, when the clip cannot be used.
            DecoderBusyError: The machine had too little time for it.
            DecoderUnavailableError: The pool is closed.
        """
        read = await self._ask(clip, work, tenant, headers_only=False)
        assert isinstance(read, Clip)
        return read

    async def check(self, clip: ClipRequest, work: WorkClass, tenant: str = "") -> float:
        """Refuse a clip that its headers give away; nothing is decoded.

        Returns:
            Seconds of video, or of the span of it, by its headers; 0 of pictures.

        Raises:
            ClipError, DecoderBusyError, DecoderUnavailableError: As `decode`.
        """
        seconds = await self._ask(clip, work, tenant, headers_only=True)
        assert isinstance(seconds, float)
        return seconds

    async def _ask(
        self, clip: ClipRequest, work: WorkClass, tenant: str, *, headers_only: bool
    ) -> Clip | float:
        decoder = await self._take(work, tenant)
        task = spawn(self._watched(self._serve(decoder, clip, work, headers_only)))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        return await asyncio.shield(task)

    async def _watched(self, reading: Coroutine[Any, Any, Clip | float]) -> Clip | float:
        begun = time.monotonic()
        try:
            clip = await reading
        except KshotError as error:
            self.watch(error.code, None, time.monotonic() - begun)
            raise
        if isinstance(clip, Clip):
            self.watch("ok", clip, time.monotonic() - begun)
        return clip

    async def _take(self, work: WorkClass, tenant: str) -> Decoder:
        while True:
            try:
                if (decoder := await self.turns.take(work, tenant)).alive:
                    return decoder
            except ClosedError:
                raise DecoderUnavailableError(CLOSED) from None
            log.warning("decoder %d died while idle", decoder.pid)
            self.turns.done(work)
            self._replace(decoder)

    async def _serve(
        self, decoder: Decoder, clip: ClipRequest, work: WorkClass, headers_only: bool
    ) -> Clip | float:
        blobs = clip.pictures if clip.video is None else (clip.video,)
        kind = "pictures" if clip.video is None else "video"
        span = {"start_s": clip.start_s, "end_s": clip.end_s}
        asked = Message({"kind": kind, "headers_only": headers_only, **span}, blobs)
        usable, begun = False, time.monotonic()
        try:
            answer = await decoder.ask(asked)
            outcome = self._outcome(answer, decoder.memory, headers_only)
            usable = not decoder.worn
        except TimeoutError as error:  # of the clip's own time it had some left, else it were dead
            raise DecoderBusyError(
                f"The clip was not read within {self.sandbox.wall_s:g} s, though it has not used "
                f"its {self.sandbox.cpu_s} s of processor time: the machine is busy; ask again "
                "later.",
                retry_after_s=self.sandbox.wall_s,
            ) from error
        except (OSError, EOFError, ProtocolError) as error:
            raise self._death(await decoder.ended()) from error
        finally:
            if not headers_only:
                self.pace.note(clip.size, time.monotonic() - begun)
            self.turns.done(work)
            if usable:
                self.turns.put(decoder)
            else:
                self._replace(decoder)
        if isinstance(outcome, ClipError):
            raise outcome
        return outcome

    def _outcome(
        self, answer: Message, memory: PixelMemory, headers_only: bool
    ) -> Clip | ClipError | float:
        """Check an answer as untrusted data, and copy its frames out of the decoder's memory."""
        fields = answer.header
        try:
            if "unexpected" in fields:
                log.warning("a clip made the decoder raise %.500s", fields["unexpected"])
            if "code" in fields:
                return CLIP_ERRORS[fields["code"]](str(fields["message"]))
            if headers_only:
                if not 0 <= (seconds := float(fields["seconds"])) <= self.media.max_duration_s:
                    raise ValueError(seconds)
                return seconds
            times_s = tuple(float(time_s) for time_s in fields["times_s"])
            duration_s = float(fields["duration_s"])
            codec, distinct = str(fields["codec"]), int(fields["distinct"])
            warnings = tuple(str(line)[:MOST_CHARS] for line in fields["warnings"][:MOST_WARNINGS])
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolError("The decoder's answer is no clip.") from error
        known = (*self.media.codecs, "pictures")
        if len(times_s) != self.frames or not all(map(math.isfinite, (*times_s, duration_s))):
            raise ProtocolError("The decoder's answer has no finite times.")
        if codec not in known or not 1 <= distinct <= self.frames:
            raise ProtocolError("The decoder's answer names no known codec.")
        return Clip(memory.read(), times_s, duration_s, codec, distinct, warnings)

    def _death(self, exit_code: int | None) -> ClipError | DecoderUnavailableError:
        if self._closed:
            return DecoderUnavailableError("The decode pool was closed while it read the clip.")
        if exit_code == -signal.SIGXCPU:
            return ClipDecodeTimeoutError(
                f"The clip took more than {self.sandbox.cpu_s} s of processor time; send a shorter"
                " or smaller one."
            )
        return ClipUndecodableError(
            f"The decoder died on the clip (exit {exit_code}); encode the clip again."
        )

    async def _start_one(self) -> None:
        decoder = await Decoder.start(
            frames=self.frames,
            size=self.size,
            squash=self.squash,
            media=self.media,
            sandbox=self.sandbox,
        )
        self._decoders.add(decoder)
        self.turns.put(decoder)

    def _replace(self, decoder: Decoder) -> None:
        decoder.kill()
        if self._closed:
            return
        task = spawn(self._renew(decoder))
        self._replacing.add(task)
        task.add_done_callback(self._replacing.discard)

    async def _renew(self, old: Decoder) -> None:
        """Stop a decoder and start another, however often that takes."""
        await old.stop()
        self._decoders.discard(old)
        pause_s = 0.1
        while True:
            try:
                return await self._start_one()
            except DecoderUnavailableError as error:
                log.error("no decoder could be started: %s", error)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
