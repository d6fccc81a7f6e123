"""Small videos as phones and cameras make them, each with the picture that it should show."""

import io
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorTrc, Interpolation

from model.media.sampling import centre_indices
from tests.videos import make_video

SIDE, COUNT = 64, 16
TS_BYTES = 188  # of a packet of a transport stream
QUIET = "log-level=none"


def disc(width: int = SIDE, height: int = SIDE, at: float = 0.5) -> np.ndarray:
    """A disc on a slope of colour, RGB uint8; `at` is its place across."""
    y, x = np.mgrid[0:height, 0:width]
    picture = np.stack([90 + 60 * x / width, 60 + 80 * y / height, 120 - 60 * x / width], -1)
    inside = (x - at * width) ** 2 + (y - height / 2) ** 2 < (height / 4) ** 2
    picture[inside] = (170, 150, 60)
    return picture.astype(np.uint8)


def encoded(
    frames: Sequence[av.VideoFrame],
    codec: str,
    container: str = "mp4",
    setup: Callable[[Any], None] = lambda _: None,
    **options: str,
) -> bytes:
    """Encode frames as they are, ten a second."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        stream = out.add_stream(codec, rate=10, options=options)
        stream.width, stream.height = frames[0].width, frames[0].height
        stream.pix_fmt = frames[0].format.name
        setup(stream)
        for number, frame in enumerate(frames):
            frame.pts, frame.time_base = number, Fraction(1, 10)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return buffer.getvalue()


def of_rgb(pixels: np.ndarray, form: str = "yuv420p") -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(format=form)


def anamorphic() -> tuple[bytes, np.ndarray]:
    """Coded 64 x 64, shown 96 x 64: the disc is round only with its pixels 3:2."""
    wide = disc(96)
    coded = av.VideoFrame.from_ndarray(wide, "rgb24").reformat(SIDE, SIDE, "rgb24").to_ndarray()
    return make_video([coded] * COUNT, pixel_aspect=Fraction(3, 2)), wide[:, 16:80]


def woven(later: int = 1) -> tuple[list[np.ndarray], np.ndarray]:
    """Frames of two moments each, and what is shown; every second line, from `later`, is later."""
    moments = [disc(at=0.2 + 0.6 * (moment % 8) / 8) for moment in range(2 * COUNT)]
    pictures = [first.copy() for first in moments[::2]]
    for picture, second in zip(pictures, moments[1::2], strict=True):
        picture[later::2] = second[later::2]
    return pictures, np.stack([moments[2 * k] for k in centre_indices(COUNT, 8)])


def interlaced(container: str = "mp4") -> tuple[bytes, np.ndarray]:
    pictures, shown = woven()
    frames = [of_rgb(picture, "yuv444p") for picture in pictures]
    return encoded(frames, "libx264", container, **{"x264-params": "tff=1"}), shown


def mpeg2() -> tuple[bytes, np.ndarray]:
    """As DVB and older cameras send it: MPEG-2, interlaced, in a transport stream."""
    pictures, shown = woven(later=0)
    frames = [of_rgb(picture, "yuv422p") for picture in pictures]
    options = {"flags": "+ildct+ilme", "b": "8000000", "qmin": "1", "qmax": "2"}
    return encoded(frames, "mpeg2video", "mpegts", **options), shown


def avchd() -> tuple[bytes, np.ndarray]:
    """As camcorders write .mts and .m2ts: each packet of the stream stands behind a time."""
    stream, shown = interlaced("mpegts")
    packets = [stream[at : at + TS_BYTES] for at in range(0, len(stream), TS_BYTES)]
    return b"".join(n.to_bytes(4) + packet for n, packet in enumerate(packets)), shown


def segment() -> tuple[bytes, np.ndarray]:
    """A transport stream that a camera on the network cut in the middle of a group of pictures."""
    options = {"g": "8", "sc_threshold": "0", "bf": "0"}
    stream = make_video([disc()] * (3 * COUNT), container="mpegts", options=options)
    return stream[len(stream) // TS_BYTES // 3 * TS_BYTES :], disc()


def light_2020(picture: np.ndarray) -> np.ndarray:
    """What a screen of gamma 2.4 and 203 nits gives for a picture, in BT.2020, in nits."""
    to_2020 = [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]
    return np.asarray(203 * (picture / 255) ** 2.4 @ np.array(to_2020).T)


def hdr_frame(code: np.ndarray) -> av.VideoFrame:
    """10-bit YUV of BT.2020 for RGB codes in [0, 1], each pixel with its own colour."""
    red, green, blue = np.moveaxis(code, -1, 0)
    luma = 0.2627 * red + 0.678 * green + 0.0593 * blue
    colour_b, colour_r = (blue - luma) / 1.8814, (red - luma) / 1.4746
    planes = [64 + 876 * luma, 512 + 896 * colour_b, 512 + 896 * colour_r]
    frame = av.VideoFrame(code.shape[1], code.shape[0], "yuv444p10le")
    for plane, values in zip(frame.planes, planes, strict=True):
        lines = np.zeros((frame.height, plane.line_size // 2), np.uint16)
        lines[:, : frame.width] = np.rint(values)
        plane.update(lines.tobytes())
    frame.colorspace = 9  # BT.2020, not constant luminance
    frame.color_primaries = ColorPrimaries.BT2020
    return frame


def hevc_hdr(code: np.ndarray, transfer: str, trc: ColorTrc) -> bytes:
    frames = [hdr_frame(code) for _ in range(COUNT)]
    for frame in frames:
        frame.color_trc = trc
    colours = f"colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc"
    return encoded(frames, "libx265", **{"x265-params": f"{QUIET}:{colours}:qp=8"})


def pq() -> tuple[bytes, np.ndarray]:
    picture = disc()
    part = (light_2020(picture) / 10000) ** 0.1593017578125
    code = ((0.8359375 + 18.8515625 * part) / (1 + 18.6875 * part)) ** 78.84375
    return hevc_hdr(code, "smpte2084", ColorTrc.SMPTE2084), picture


def hlg() -> tuple[bytes, np.ndarray]:
    picture = disc()
    nits = light_2020(picture)
    luma = nits @ np.array([0.2627, 0.678, 0.0593])
    scene = nits / 1000 * ((luma / 1000) ** (1 / 1.2 - 1))[..., None]
    high = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-6)) + 0.55991073
    code = np.where(scene <= 1 / 12, np.sqrt(3 * scene), high)
    return hevc_hdr(code, "arib-std-b67", ColorTrc.ARIB_STD_B67), picture


def transparent() -> tuple[bytes, np.ndarray]:
    """Half of the picture is transparent, with a red below that nobody should see."""
    picture = disc()
    clear = np.dstack([picture, np.full((SIDE, SIDE), 255, np.uint8)])
    clear[: SIDE // 2] = (255, 0, 0, 0)
    shown = picture.copy()
    shown[: SIDE // 2] = 0
    frames = [av.VideoFrame.from_ndarray(clear, "rgba").reformat(format="yuva420p")] * COUNT
    return encoded(frames, "libvpx-vp9", "webm"), shown


def with_cover() -> tuple[bytes, np.ndarray]:
    """Stream 0 is a still picture."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as out:
        cover, stream = out.add_stream("mjpeg", rate=10), out.add_stream("libx264", rate=10)
        for each, form in ((cover, "yuvj420p"), (stream, "yuv420p")):
            each.width = each.height = SIDE
            each.pix_fmt = form
        for number in range(COUNT):
            for each, pixels in ((cover, 255 - disc()), (stream, disc())):
                if each is stream or number == 0:
                    frame = of_rgb(pixels, each.pix_fmt)
                    frame.pts, frame.time_base = number, Fraction(1, 10)
                    out.mux(each.encode(frame))
        out.mux(cover.encode(None) + stream.encode(None))
    return buffer.getvalue(), disc()


def repacked(
    video: bytes,
    change: Callable[[int, av.Packet], av.Packet | None],
    container: str = "mp4",
    **options: str,
) -> bytes:
    """Copy the packets of a video into a container, each changed or left out."""
    buffer = io.BytesIO()
    with (
        av.open(io.BytesIO(video)) as source,
        av.open(buffer, "w", format=container, container_options=options) as out,
    ):
        stream = out.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.size]
        for number, packet in enumerate(packets):
            changed = change(number, packet)
            if changed is not None:
                changed.stream = stream
                out.mux(changed)
    return buffer.getvalue()


def edited() -> tuple[bytes, np.ndarray]:
    """An edit list leaves out the first half, which is white."""
    white = np.full((SIDE, SIDE, 3), 255, np.uint8)
    plain = make_video([white] * 8 + [disc()] * COUNT, options={"bf": "0", "g": "100"})

    def earlier(_: int, packet: av.Packet) -> av.Packet:
        step = packet.duration
        packet.pts, packet.dts = packet.pts - 8 * step, packet.dts - 8 * step
        return packet

    return repacked(plain, earlier, avoid_negative_ts="disabled"), disc()


def without_first_key() -> tuple[bytes, np.ndarray]:
    plain = make_video([disc()] * (2 * COUNT), options={"bf": "0", "g": "8", "sc_threshold": "0"})
    return repacked(plain, lambda number, packet: packet if number else None), disc()


def damaged() -> tuple[bytes, np.ndarray]:
    """One packet in the middle is noise."""
    noise = np.random.default_rng(0).bytes(4000)

    def spoil(number: int, data: bytes) -> bytes:
        return data[:4] + noise[: max(0, len(data) - 4)] if number == 9 else data

    options = {"bf": "0", "g": "4", "b": "2000000"}
    return make_video([disc()] * COUNT, codec="mpeg4", options=options, edit=spoil), disc()


def large(width: int, height: int) -> Callable[[], tuple[bytes, np.ndarray]]:
    def make() -> tuple[bytes, np.ndarray]:
        shown = av.VideoFrame.from_ndarray(disc(width // 16, height // 16), "rgb24")
        frame = shown.reformat(width, height, "yuv420p", interpolation=Interpolation.POINT)
        small = shown.reformat(round(SIDE * width / height), SIDE, "rgb24").to_ndarray()
        left = (small.shape[1] - SIDE) // 2
        return encoded([frame] * 3, "mpeg4"), small[:, left : left + SIDE]

    return make


KINDS: dict[str, Callable[[], tuple[bytes, np.ndarray]]] = {
    "pixels that are not square": anamorphic,
    "interlaced": interlaced,
    "AVCHD": avchd,
    "MPEG-2": mpeg2,
    "a segment of MPEG-TS": segment,
    "PQ": pq,
    "HLG": hlg,
    "transparent": transparent,
    "cover as stream 0": with_cover,
    "edit list": edited,
    "no key frame at the start": without_first_key,
    "damaged in the middle": damaged,
    "4K": large(3840, 2160),
}
WARNED = {"no key frame at the start": "key frame", "damaged in the middle": "damaged"}
