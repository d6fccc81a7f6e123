"""decord beside PyAV on trusted local clips: the same pictures, and clips a second.

    python -m tests.bench.bench_readers                      # long videos, made here
    python -m tests.bench.bench_readers INDEX_CSV --every 10 # or a folder of videos

Each clip is read by both, one right after the other, eight frames at 224 pixels. "Decoded alike"
counts clips whose full-size RGB of both is the same bit for bit; the differences are those of the
squares after the resize, which PyAV makes of YUV and decord of RGB. The last line is JSON.
"""

import argparse
import csv
import io
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from model.errors import ClipError
from model.media.container import UNLIMITED, MediaLimits
from model.media.decoding import Decoded, decode_video
from model.media.display import Framing, square
from model.media.headers import Header
from model.media.sampling import Clip
from model.media.video import Decoder, read_clip
from tests.videos import make_video
from training.data.listings import VIDEOS
from training.data.local_video import decode_with_decord

FRAMES, SIZE = 8, 224


class RefusedError(ClipError):
    """decord is not asked to read this clip."""


def by_decord(
    data: bytes, header: Header, wanted: Sequence[int], size: int, limits: MediaLimits
) -> Decoded:
    """Read with decord whatever the length, or raise."""
    decoded = decode_with_decord(data, header, wanted, Framing(size), limits)
    if decoded is None:
        raise RefusedError("PyAV has to read it.")
    return decoded


def by_full_rgb(
    data: bytes, _: Header, wanted: Sequence[int], size: int, limits: MediaLimits
) -> Decoded:
    """Read with PyAV, but make full-size RGB first and resize that, as decord's way does."""
    with av.open(io.BytesIO(data)) as container:
        frames = list(container.decode(video=0))
    reformatter = VideoReformatter()
    squares = {}
    for index in set(wanted):
        pixels_HWC = reformatter.reformat(frames[index], format="rgb24").to_ndarray()
        whole = av.VideoFrame.from_ndarray(pixels_HWC, "rgb24")
        squares[index] = square(whole, Framing(size), limits, reformatter)
    return Decoded(squares, {index: index for index in squares})


def timed(path: Path, decode: Decoder) -> tuple[Clip, float]:
    """Read one clip and give the seconds that it took."""
    start = time.perf_counter()
    clip = read_clip(path, frames=FRAMES, size=SIZE, limits=UNLIMITED, decode=decode)
    return clip, time.perf_counter() - start


def compare(paths: list[Path]) -> dict[str, float]:
    """Read every clip in both ways, interleaved, and sum up."""
    pyav_s = decord_s = 0.0
    means, largest, alike, refused, same_times = [], 0, 0, 0, 0
    for number, path in enumerate(paths):
        try:
            theirs, lasted_s = timed(path, by_decord)
        except RefusedError:
            refused += 1
            continue
        decord_s += lasted_s
        ours, lasted_s = timed(path, decode_video)
        pyav_s += lasted_s
        rgb, _ = timed(path, by_full_rgb)
        difference = np.abs(ours.frames_THWC.astype(int) - theirs.frames_THWC)
        means.append(float(difference.mean()))
        largest = max(largest, int(difference.max()))
        alike += bool((rgb.frames_THWC == theirs.frames_THWC).all())
        same_times += bool(np.allclose(ours.times_s, theirs.times_s, atol=1e-3))
        if number % 100 == 99:
            print(f"{number + 1} of {len(paths)}", flush=True)
    read = len(means)
    return {
        "clips": len(paths),
        "left to PyAV": refused,
        "same frames chosen": same_times,
        "decoded alike": alike,
        "mean difference of levels": round(float(np.mean(means)), 3),
        "largest mean of a clip": round(max(means), 3),
        "largest difference": largest,
        "PyAV clips/s": round(read / pyav_s, 2),
        "decord clips/s": round(read / decord_s, 2),
        "decord / PyAV": round(pyav_s / decord_s, 3),
    }


def made_video(path: Path, count: int, between_keys: int) -> Path:
    """Make an H.264 video, 640 x 360 at 30 frames a second, of a moving pattern."""
    rng = np.random.default_rng(0)
    pattern = rng.integers(0, 255, (45, 80, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    frames = (np.roll(pattern, (k, 2 * k), (0, 1)) for k in range(count))
    options = {"g": str(between_keys), "preset": "veryfast"}
    path.write_bytes(make_video(frames, options=options))
    return path


def main() -> None:
    """Read the arguments, compare, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_readers")
    parser.add_argument("data", type=Path, nargs="?", help="an index.csv, or a folder of videos")
    parser.add_argument("--every", type=int, default=1, help="take every Nth clip alone")
    arguments = parser.parse_args()
    sets: dict[str, list[Path]] = {}
    with tempfile.TemporaryDirectory() as folder:
        if arguments.data is None:
            for count, between in ((128, 30), (256, 250), (300, 30), (1800, 250), (1800, 30)):
                name = f"{count} frames, a key frame every {between}"
                sets[name] = 3 * [
                    made_video(Path(folder) / f"{count}-{between}.mp4", count, between)
                ]
        elif arguments.data.is_dir():
            found = sorted(path for path in arguments.data.rglob("*") if path.suffix in VIDEOS)
            sets[arguments.data.name] = found[:: arguments.every]
        else:
            rows = csv.DictReader(arguments.data.open(encoding="utf-8"))
            paths = [arguments.data.parent / row["path"] for row in rows]
            sets[arguments.data.parent.name] = paths[:: arguments.every]
        results = {name: compare(paths) for name, paths in sets.items()}
    for name, found_values in results.items():
        print(name)
        for key, value in found_values.items():
            print(f"    {key:28}{value:>10}")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
