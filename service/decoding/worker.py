"""The decoder process: `python -m service.decoding.worker`, started by the pool, never by hand.

It imports what decoding needs (no torch), decodes one small clip of each kind so that nothing is
left to import, locks itself down, and then answers one clip after the other until its input ends.
"""

import contextlib
import importlib
import io
import os
import pkgutil
import sys
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
import PIL
from PIL import Image, JpegImagePlugin, MpoImagePlugin, PngImagePlugin, TiffImagePlugin

from model.errors import ClipError, ClipSpanError, ClipUndecodableError
from model.media.container import MediaLimits
from model.media.display import Framing
from model.media.pictures import check_pictures, read_pictures
from model.media.sampling import Clip
from model.media.video import check_clip, read_clip
from service.decoding.protocol import Message, map_pixels, read_message, write_message
from service.decoding.sandbox import NICENESS, SandboxLimits, leaks, lock_down, renew_cpu

# imported by Pillow only when a picture asks for them, which the sandbox would refuse
PILLOW_PLUGINS = (JpegImagePlugin, MpoImagePlugin, PngImagePlugin, TiffImagePlugin)

NOT_NEEDED = {"av.__main__", "av.datasets"}  # a command line; downloads of test files
EASY = MediaLimits(min_duration_s=0.0, min_pictures=1)
HEADROOM_BYTES = 2**26  # a decoder that cannot have these could not read an ordinary clip


def main() -> None:
    """Serve the pool on the other end of standard input and output."""
    os.nice(NICENESS)
    source, sink = own_pipes()
    hello = read_message(source)
    if hello is None:
        return
    frames, framing = hello.header["frames"], framing_of(hello)
    size = framing.size
    memory = map_pixels(int(sys.argv[1]), frames * size * size * 3)
    media = media_of(hello.header["media"])
    sandbox = SandboxLimits(**hello.header["sandbox"])
    sample = sample_video()
    warm_up(sample, frames, framing)
    lock_down(sandbox)
    prove(sample, frames, framing)
    write_message(sink, Message(introduction()))
    while (request := read_message(source)) is not None:
        renew_cpu(sandbox.cpu_s)
        write_message(sink, _answer(request, memory, frames, framing, media))
        del request


def own_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Keep the answers' pipe for answers: whatever prints goes to standard error.

    Some parents (Ray's workers) leave descriptors of their own to their children: those are closed,
    so that the answers' pipe is among the lowest, which `lock_down` leaves open.
    """
    ours = {0, 1, 2, *map(int, sys.argv[1:])}
    for descriptor in [int(each.name) for each in Path("/proc/self/fd").iterdir()]:
        if descriptor not in ours:
            with contextlib.suppress(OSError):  # that of the list itself is closed already
                os.close(descriptor)
    answers = os.dup(1)
    os.dup2(2, 1)
    return sys.stdin.buffer, os.fdopen(answers, "wb")


def framing_of(hello: Message) -> Framing:
    """Read out of the first message what pictures become."""
    return Framing(hello.header["size"], hello.header["squash"])


def media_of(fields: dict[str, Any]) -> MediaLimits:
    """Read limits out of a message."""
    lists = {name: tuple(fields[name]) for name in ("containers", "codecs")}
    return MediaLimits(**(fields | lists))


def introduction() -> dict[str, Any]:
    """Say what this process is, and what it could still open."""
    return {
        "leaks": leaks(),
        "torch": "torch" in sys.modules,
        "versions": {
            "av": av.__version__,
            "ffmpeg": av.ffmpeg_version_info,
            "libavcodec": ".".join(map(str, av.library_versions["libavcodec"])),
            "pillow": PIL.__version__,
            "numpy": np.__version__,
        },
    }


def _answer(
    request: Message, memory: np.ndarray, frames: int, framing: Framing, media: MediaLimits
) -> Message:
    try:
        clip = _read(request, frames, framing, media)
    except Exception as error:  # the one place: whatever a clip provokes is that clip's refusal
        return refusal(error)
    if isinstance(clip, float):
        return Message({"seconds": clip})
    memory[:] = clip.frames_THWC.reshape(-1)
    header = {
        "times_s": clip.times_s,
        "duration_s": clip.duration_s,
        "codec": clip.codec,
        "distinct": clip.distinct,
        "warnings": clip.warnings,
    }
    return Message(header)


def refusal(error: Exception) -> Message:
    """Say why a clip cannot be used, whatever it has provoked."""
    if isinstance(error, ClipError):
        return Message({"code": error.code, "message": str(error)[:1000]})
    reason = f"The decoder failed on the clip ({type(error).__name__}); encode it again."
    said = refusal(ClipUndecodableError(reason))
    return Message({**said.header, "unexpected": repr(error)[:500]})


def _read(request: Message, frames: int, framing: Framing, media: MediaLimits) -> Clip | float:
    """Read a clip; its seconds where its headers alone were to be read, 0 of pictures."""
    start_s, end_s = request.header["start_s"], request.header["end_s"]
    headers_only = request.header["headers_only"]
    if request.header["kind"] == "video":
        span = {"start_s": start_s, "end_s": end_s}
        if headers_only:
            return check_clip(request.blobs[0], frames=frames, limits=media, **span)
        made = {"frames": frames, "limits": media, **framing._asdict()}
        return read_clip(request.blobs[0], **made, **span)
    if start_s is not None or end_s is not None:
        raise ClipSpanError(
            f"A span from {start_s} s to {end_s} s means nothing for pictures, which carry no"
            " times; send the pictures of the span alone."
        )
    if headers_only:
        check_pictures(request.blobs, media)
        return 0.0
    return read_pictures(request.blobs, frames=frames, limits=media, **framing._asdict())


def warm_up(video: bytes, frames: int, framing: Framing) -> None:
    """Go once through every path, so that nothing is left to import or open later."""
    for module in pkgutil.walk_packages(av.__path__, "av."):
        if module.name not in NOT_NEEDED:
            importlib.import_module(module.name)  # PyAV imports some of them per stream type
    read_clip(video, frames=frames, limits=EASY, **framing._asdict())
    for kind in ("PNG", "JPEG"):
        exif = Image.Exif()
        exif[0x0112] = 6  # orientation: a quarter turn
        picture = io.BytesIO()
        Image.new("RGB", (32, 32)).save(picture, kind, exif=exif)
        read_pictures([picture.getvalue()], frames=frames, limits=EASY, **framing._asdict())
    nothing = Message(
        {"kind": "video", "start_s": 0.0, "end_s": 1.0, "headers_only": False}, (b"",)
    )
    _answer(nothing, np.empty(0, np.uint8), frames, framing, EASY)


def prove(video: bytes, frames: int, framing: Framing) -> None:
    """Decode under the limits before any clip depends on it, with memory to spare."""
    np.empty(HEADROOM_BYTES, np.uint8)
    read_clip(video, frames=frames, limits=EASY, **framing._asdict())


def sample_video() -> bytes:
    """Make a video of two small pictures."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for _ in range(2):
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


if __name__ == "__main__":
    main()
