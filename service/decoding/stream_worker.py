"""The decoder process of one long video: started by `service.decoding.streams`, never by hand.

It has the uploaded file open, to read, and can open no other. It decodes only when it is asked for
the next pictures, so whoever computes with them sets the pace.
"""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from model.media.container import MediaLimits, open_video
from model.media.display import Framing
from model.media.stream import PictureStream, Shown, claimed_duration
from model.media.windows import WindowGrid
from service.decoding.protocol import Message, map_pixels, read_message, write_message
from service.decoding.sandbox import NICENESS, OPEN_FDS, SandboxLimits, lock_down, renew_cpu
from service.decoding.worker import (
    EASY,
    framing_of,
    introduction,
    media_of,
    own_pipes,
    refusal,
    sample_video,
    warm_up,
)

MOST_DECODED = 256  # pictures for one answer, though it be empty: processor time is bounded by it
SAMPLE_GRID = WindowGrid(frames=1, step_s=0.1, spread=1, stride=1)


def main() -> None:
    """Serve the pictures of the video whose descriptor is the second argument."""
    os.nice(NICENESS)
    source, sink = own_pipes()
    os.dup2(int(sys.argv[2]), OPEN_FDS)
    hello = read_message(source)
    if hello is None:
        return
    frames, framing = hello.header["frames"], framing_of(hello)
    size = framing.size
    pixels = map_pixels(int(sys.argv[1]), frames * size * size * 3).reshape(frames, size, size, 3)
    sandbox = SandboxLimits(**hello.header["sandbox"])
    sample = sample_video()
    warm_up(sample, frames, framing)
    _read_all(sample, framing)
    lock_down(sandbox, OPEN_FDS + 1)
    _read_all(sample, framing)
    write_message(sink, Message(introduction()))
    with os.fdopen(OPEN_FDS, "rb") as video:
        reading = _Reading(video, pixels, framing, media_of(hello.header["media"]))
        while (request := read_message(source)) is not None:
            renew_cpu(sandbox.cpu_s)
            write_message(sink, reading.answer(request))


class _Reading:
    """One video on its way.

    Args:
        video: The file.
        pixels: Memory for as many pictures as an answer has at most.
        framing: Of these.
        media: What is accepted.
    """

    def __init__(
        self, video: BinaryIO, pixels: np.ndarray, framing: Framing, media: MediaLimits
    ) -> None:
        self._video, self._pixels, self._framing, self._media = video, pixels, framing, media
        self._steps: Iterator[list[Shown]] = iter(())
        self._stream: PictureStream | None = None
        self._left: list[Shown] = []
        self._opened = contextlib.ExitStack()

    def answer(self, request: Message) -> Message:
        """Open the video, or go on; whatever it provokes is its refusal."""
        try:
            return self._open(request) if "grid" in request.header else self._go_on()
        except Exception as error:
            return refusal(error)

    def _open(self, request: Message) -> Message:
        video = self._opened.enter_context(open_video(self._video, self._media))
        grid = WindowGrid(**request.header["grid"])
        self._stream = PictureStream(video, grid, self._framing, self._media)
        self._steps = self._stream.steps()
        return Message({"codec": video.codec, "claimed_s": claimed_duration(video)})

    def _go_on(self) -> Message:
        """Decode until the memory is full, the video ends, or it was enough for once."""
        stream = self._stream
        assert stream is not None
        until, numbers = stream.decoded + MOST_DECODED, list[int]()
        while True:
            while self._left and len(numbers) < len(self._pixels):
                shown = self._left.pop(0)
                self._pixels[len(numbers)] = shown.pixels
                numbers.append(shown.number)
            if len(numbers) == len(self._pixels) or stream.decoded >= until:
                break
            more = next(self._steps, None)
            if more is None:
                break
            self._left = more
        header = {"numbers": numbers, "reached_s": stream.reached_s, "end": None}
        if stream.end is not None and not self._left:
            end = stream.end
            header["end"] = {"duration_s": end.duration_s, "warnings": end.warnings}
        return Message(header)


def _read_all(sample: bytes, framing: Framing) -> None:
    with open_video(io.BytesIO(sample), EASY) as video:
        list(PictureStream(video, SAMPLE_GRID, framing, EASY).steps())


if __name__ == "__main__":
    main()
