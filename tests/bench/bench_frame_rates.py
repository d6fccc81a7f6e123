"""Pictures and features of clips at other frame rates, chosen by time and by number.

    python -m tests.bench.bench_frame_rates INDEX_CSV [--checkpoint timm:NAME --weights FILE]

200 clips of a constant rate: the pictures chosen by time are those chosen by number. 40 clips are
encoded again at 10, 25 and 50 frames a second and at a variable rate (first half 60, second half
5), each picture the nearest one in time, and at their own 30, which says what encoding alone does;
cosine of clip features with the original's, and whether the nearest of the test classes' means
(five clips each) stays the same.
The last line is JSON.
"""

import argparse
import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter

from model.checkpoint import load_recognizer
from model.media.container import UNLIMITED
from model.media.display import Framing, square
from model.media.sampling import centre_indices
from model.media.video import read_clip
from model.recognizer import Recognizer
from tests.videos import make_video

FRAMES, TICKS = 8, 300  # a clip; a second
CONSTANT, ENCODED, SHOTS = 200, 40, 5
RATES = {"30": (30, 30), "10": (10, 10), "25": (25, 25), "50": (50, 50), "60 then 5": (60, 5)}


def by_time(video: bytes, size: int) -> np.ndarray:
    """Read as the service does."""
    return read_clip(video, frames=FRAMES, size=size, limits=UNLIMITED).frames_THWC


def by_number(video: bytes, size: int) -> np.ndarray:
    """Decode every frame and choose by number, as before 2026-11-28."""
    with av.open(io.BytesIO(video)) as container:
        frames = list(container.decode(video=0))
    reformatter = VideoReformatter()
    picked = centre_indices(len(frames), FRAMES)
    return np.stack([square(frames[k], Framing(size), UNLIMITED, reformatter) for k in picked])


def encoded_again(video: bytes, first: int, second: int) -> bytes:
    """Encode at one rate in the first half and another in the second."""
    with av.open(io.BytesIO(video)) as container:
        shown = [
            (frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)
        ]
    rate = len(shown) / (shown[-1][0] - shown[0][0]) * (len(shown) - 1) / len(shown)
    lasts = round(TICKS * len(shown) / rate)
    ticks = [*range(0, lasts // 2, TICKS // first)]
    ticks += range(ticks[-1] + TICKS // first, lasts, TICKS // second)
    nearest = [min(round(tick / TICKS * rate), len(shown) - 1) for tick in ticks]
    pictures = [shown[k][1] for k in nearest]
    return make_video(pictures, rate=TICKS, ticks=[*ticks, lasts], options={"crf": "18"})


def features(recognizer: Recognizer, clips: Sequence[np.ndarray]) -> torch.Tensor:
    """Mean frame feature of each clip, of length 1."""
    tokens = recognizer.trunk(np.stack(clips))
    support = recognizer.encode_support(tokens[:2], [0, 1], None)
    found_QTE = recognizer.encode_query(tokens, [support] * len(tokens))
    return torch.nn.functional.normalize(found_QTE.mean(1), dim=-1)


def compare(recognizer: Recognizer, index: Path) -> dict[str, object]:
    """Measure all."""
    rows = list(csv.DictReader(index.open(encoding="utf-8")))
    videos = [(index.parent / row["path"]).read_bytes() for row in rows[:: len(rows) // CONSTANT]]
    videos, size = videos[:CONSTANT], recognizer.size
    same = sum(bool((by_time(v, size) == by_number(v, size)).all()) for v in videos)
    tested = [row for row in rows if row["split"] == "test"]
    labels = sorted({row["label"] for row in tested})
    of_label = [[row for row in tested if row["label"] == label] for label in labels]
    shots = [index.parent / row["path"] for given in of_label for row in given[:SHOTS]]
    means_NE = features(recognizer, [by_time(path.read_bytes(), size) for path in shots])
    means_NE = means_NE.unflatten(0, (len(labels), SHOTS)).mean(1)
    rest = [row for given in of_label for row in given[SHOTS:]]
    paths = [index.parent / row["path"] for row in rest[:: len(rest) // ENCODED][:ENCODED]]
    originals = [path.read_bytes() for path in paths]
    own_QE = features(recognizer, [by_time(video, size) for video in originals])
    result: dict[str, object] = {"constant rate": len(videos), "same pictures": same}
    for name, rates in RATES.items():
        again = [encoded_again(video, *rates) for video in originals]
        for rule in (by_time, by_number):
            other_QE = features(recognizer, [rule(video, size) for video in again])
            cosine = float((own_QE * other_QE).sum(-1).mean())
            kept = (own_QE @ means_NE.T).argmax(-1) == (other_QE @ means_NE.T).argmax(-1)
            result[f"{name}, {rule.__name__}"] = [round(cosine, 4), int(kept.sum()), len(again)]
            print(name, rule.__name__, result[f"{name}, {rule.__name__}"], flush=True)
    return result


def main() -> None:
    """Read the arguments, compare, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_frame_rates")
    parser.add_argument("index", type=Path, help="index.csv of clips: path, label, split")
    parser.add_argument("--checkpoint", default="compact", help="as KSHOT_CHECKPOINT")
    parser.add_argument("--weights", type=Path, help="file of a bare backbone's weights")
    asked = parser.parse_args()
    recognizer = load_recognizer(asked.checkpoint, weights=asked.weights)
    with torch.inference_mode():
        print(json.dumps(compare(recognizer, asked.index)))


if __name__ == "__main__":
    main()
