"""Bodies of requests, written once: clips as JPEG pictures in JSON."""

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tests.bench.clips import SHOTS, WAYS, actions, synthetic_clips

JPEG_QUALITY = 90


def pictures(frames_THWC: np.ndarray) -> list[str]:
    """Encode a clip's frames as JPEG in base64."""
    encoded = []
    for pixels_HWC in frames_THWC:
        buffer = io.BytesIO()
        Image.fromarray(pixels_HWC).save(buffer, format="JPEG", quality=JPEG_QUALITY)
        encoded.append(base64.b64encode(buffer.getvalue()).decode())
    return encoded


def pictures_of(body: Path) -> tuple[bytes, ...]:
    """Read the pictures of the first clip of a query body back."""
    frames = json.loads(body.read_bytes())["clips"][0]["frames"]
    return tuple(base64.b64decode(picture) for picture in frames)


def task_body(frames: int, size: int, shots: int = SHOTS) -> bytes:
    """Write a task of 5 labels with so many clips each."""
    clips_STHWC = synthetic_clips(WAYS * shots, frames, size, seed=1)
    labels = [
        {
            "label": action.label,
            "descriptions": list(action.stages),
            "clips": [{"frames": pictures(clip)} for clip in clips_STHWC[place::WAYS]],
        }
        for place, action in enumerate(actions())
    ]
    return json.dumps({"name": "bench", "labels": labels}).encode()


def write_queries(folder: Path, count: int, frames: int, size: int) -> Sequence[Path]:
    """Write bodies of one clip each."""
    paths = [folder / f"query-{number}.json" for number in range(count)]
    for path, clip in zip(paths, synthetic_clips(count, frames, size, seed=2), strict=True):
        path.write_bytes(json.dumps({"clips": [{"frames": pictures(clip)}]}).encode())
    return paths
