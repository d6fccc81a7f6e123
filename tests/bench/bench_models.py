"""Every short name of a model in full size, with random weights: speed, and one episode over HTTP.

    python -m tests.bench.bench_models [NAME ...]

For each name a file of weights as its publisher writes them is made and loaded. Printed are
seconds to load it, milliseconds that one clip's features cost (best of three, all cores), and
what one episode over HTTP takes: two labels of one clip are registered, and one is classified.
The last line is JSON.
"""

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import timm
import torch

from model.backbones.clip import random_clip
from model.backbones.sources import ALIASES, VIDEO, backbone_of
from model.checkpoint import load_recognizer
from model.config.towers import OpenClipConfig, TimmConfig
from service.settings import Settings
from tests.model.families import published_network, save_weights, write_tokenizer
from tests.serving import classify, moving_clip, register, serving

TIMES = 3
PATIENCE_S = 120.0  # of a request: the large ones take most of a minute on two cores


def published(name: str, folder: Path) -> Path:
    """Write random weights of a short name, and the tokenizer that some have beside them."""
    torch.manual_seed(0)
    backbone = backbone_of(name, None)
    write_tokenizer(folder)
    network: Any
    match backbone:
        case OpenClipConfig():
            network = random_clip(backbone.name)
        case TimmConfig():
            network = timm.create_model(backbone.name)
        case _:
            network = published_network(next(known for known in VIDEO if known == backbone))
    return save_weights(network, folder / "model.safetensors")


def timed(call: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def features_ms(name: str, weights: Path | None) -> tuple[float, float]:
    """Return seconds to load a model, and milliseconds of one clip's features."""
    begun = time.perf_counter()
    recognizer = load_recognizer(name, weights=weights).eval()
    loaded_s = time.perf_counter() - begun
    shape = (2, recognizer.config.frames, recognizer.size, recognizer.size, 3)
    frames_STHWC = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    with torch.inference_mode():
        support = recognizer.encode_support(recognizer.trunk(frames_STHWC), [0, 1], None)
        query_1THWC = frames_STHWC[:1]
        times = [
            timed(lambda: recognizer.encode_query(recognizer.trunk(query_1THWC), [support]))
            for _ in range(TIMES)
        ]
    return loaded_s, 1000 * min(times)


def episode_s(name: str, weights: Path | None, folder: Path) -> dict[str, float]:
    """Register two labels and classify one of their clips; return seconds of both."""
    settings = Settings(
        store=f"sqlite:{folder / 'kshot.db'}",
        checkpoint=name,
        backbone_weights=weights,
        decode_workers=1,
        deadline_s=PATIENCE_S,
        max_deadline_s=PATIENCE_S,
        wait_s=PATIENCE_S,
    )
    clips = {"jump": [moving_clip(1)], "wave": [moving_clip(2)]}
    with serving(settings) as client:
        client.timeout = httpx.Timeout(PATIENCE_S)
        begun = time.perf_counter()
        task = register(client, clips)
        registered = time.perf_counter()
        (result,) = classify(client, task["id"], moving_clip(1))["results"]
        classified = time.perf_counter()
    video = {ranked["label"]: ranked["video"] for ranked in result["ranking"]}
    if max(video, key=video.__getitem__) != "jump":
        raise SystemExit(f"{name} does not know the clip again that it was given: {video}.")
    return {"register_s": registered - begun, "classify_s": classified - registered}


def measure(name: str) -> dict[str, float]:
    """Measure one short name."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        weights = published(name, folder) if name in ALIASES else None
        gc.collect()
        loaded_s, clip_ms = features_ms(name, weights)
        gc.collect()
        return {"load_s": loaded_s, "clip_ms": clip_ms} | episode_s(name, weights, folder)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the names that are given, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = ("compact", *ALIASES)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}")
    told = {}
    for name in parser.parse_args(arguments).names or names:
        told[name] = {key: round(value, 2) for key, value in measure(name).items()}
        print(name, *(f"{key} {value}" for key, value in told[name].items()), flush=True)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
