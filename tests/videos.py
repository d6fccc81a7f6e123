"""Real videos made by PyAV for the tests; frame k of `grey_frames` says k by its brightness."""

import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction

import av
import numpy as np


def grey_frames(count: int, width: int = 64, height: int = 48) -> list[np.ndarray]:
    """Frame k is flat and has the brightness `grey_level(k, count)`."""
    return [np.full((height, width, 3), grey_level(k, count), np.uint8) for k in range(count)]


def grey_level(k: int, count: int) -> int:
    return 20 + round(200 * k / max(1, count - 1))


def corner_frames(count: int, width: int = 64, height: int = 64) -> list[np.ndarray]:
    """Red top left, green top right, blue bottom left, white bottom right."""
    picture = np.zeros((height, width, 3), np.uint8)
    half_h, half_w = height // 2, width // 2
    picture[:half_h, :half_w, 0] = 255
    picture[:half_h, half_w:, 1] = 255
    picture[half_h:, :half_w, 2] = 255
    picture[half_h:, half_w:] = 255
    return [picture] * count


def make_video(
    frames: Iterable[np.ndarray],
    *,
    codec: str = "libx264",
    container: str = "mp4",
    rate: int = 30,
    ticks: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    rotation: int = 0,
    matrix: Sequence[int] | None = None,
    pixel_aspect: Fraction = Fraction(1),
    audio_streams: int = 0,
    repeats: int = 1,
    edit: Callable[[int, bytes], bytes] = lambda _, data: data,
) -> bytes:
    """Encode RGB frames.

    `ticks` says when each frame is shown and when the last one ends, in units of 1 / rate; without
    it each is shown for one. `repeats` muxes the same packets again and again, later each time;
    `edit` changes the bytes of packet k before it is muxed.
    """
    buffer = io.BytesIO()
    frames = list(frames)
    height, width = frames[0].shape[:2]
    opened = av.open(buffer, "w", format=container, container_options=container_options or {})
    with same_scheduling(), opened as out:
        stream = out.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, rate)
        if pixel_aspect != 1:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        if rotation:
            stream.set_display_rotation(rotation)
        if matrix is not None:
            stream.set_display_matrix(matrix)
        sounds = [out.add_stream("aac", rate=16000) for _ in range(audio_streams)]
        encoded = []
        for k, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts, frame.time_base = ticks[k] if ticks else k, Fraction(1, rate)
            frame.duration = ticks[k + 1] - ticks[k] if ticks else 1
            encoded += stream.encode(frame)
        encoded += stream.encode(None)
        for again in range(repeats):
            for k, one in enumerate(encoded):
                packet = av.Packet(edit(k, bytes(one)))
                packet.pts, packet.dts = (
                    one.pts + again * len(frames),
                    one.dts + again * len(frames),
                )
                packet.duration, packet.time_base = one.duration, one.time_base
                packet.is_keyframe, packet.stream = one.is_keyframe, stream
                out.mux(packet)
        for sound in sounds:
            out.mux(sound.encode(_silence()) + sound.encode(None))
    return buffer.getvalue()


@contextmanager
def same_scheduling() -> Iterator[None]:
    """Give the thread its scheduling back.

    SVT-AV1 makes the thread that encodes a real-time one where it may (as root): the servers that
    the tests start would then wait for the tests.
    """
    policy, share = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, share)


def make_audio() -> bytes:
    """An mp4 with one audio stream and no pictures."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        sound = out.add_stream("aac", rate=16000)
        out.mux(sound.encode(_silence()) + sound.encode(None))
    return buffer.getvalue()


def _silence() -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), "fltp", "mono")
    frame.sample_rate = 16000
    frame.pts = 0
    return frame
