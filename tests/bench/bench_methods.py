"""What each named method costs: weights that learn, GFLOP and ms of a clip, bytes kept of a label.

    python -m tests.bench.bench_methods [NAME ...]

Each preset of `model/methods.py` on its own backbone with random weights (most on ViT-B/16), and a
task of two labels with one clip each. GFLOP are counted by PyTorch for one query clip against
that task, milliseconds are the best of three on all cores, one method after another. Weights that
learn are those of the served method; heads that exist in training alone are not among them. The
last line is JSON, the table in front of it Markdown.
"""

import argparse
import gc
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from model.assembly.recognizer import build_recognizer
from model.backbones.opening import towers
from model.config.method import MethodConfig
from model.config.towers import OpenClipConfig, TimmConfig
from model.episode import EncodedSupport
from model.methods import METHODS
from model.recognizer import Recognizer
from model.text import template_stages

TIMES = 3
WAYS, SHOTS = 2, 1
LABELS = ("clap", "pour")


@dataclass(frozen=True, slots=True)
class Cost:
    """What one method costs."""

    learned: int
    gflop_clip: float
    ms_clip: float
    kib_label: float


def random_weights(method: MethodConfig) -> MethodConfig:
    """Return the method on its backbone, without published weights."""
    match method.backbone:
        case OpenClipConfig() as backbone:
            return replace(method, backbone=replace(backbone, pretrained=None))
        case TimmConfig() as backbone:
            return replace(method, backbone=replace(backbone, pretrained=False))
    raise SystemExit(f"A {method.backbone.kind} backbone is not measured here.")


def built(method: MethodConfig) -> Recognizer:
    """Build a method from random weights."""
    torch.manual_seed(0)
    config = random_weights(method)
    image, text = towers(config.backbone)
    return build_recognizer(config, image, text if config.fusion != "video" else None)


def supports(recognizer: Recognizer, frames_THWC: np.ndarray) -> EncodedSupport:
    """Encode a task of equal clips, one after another, as their number alone counts."""
    text_NAE = None
    if recognizer.has_text:
        stages = [template_stages(label, recognizer.config.stages) for label in LABELS]
        text_NAE = recognizer.encode_text(LABELS, stages)
    tokens_1TLD = recognizer.trunk(frames_THWC[None])
    tokens_STLD = tokens_1TLD.expand(WAYS * SHOTS, *tokens_1TLD.shape[1:])
    classes = [label for label in range(WAYS) for _ in range(SHOTS)]
    return recognizer.encode_support(tokens_STLD, classes, text_NAE)


def measure(name: str) -> Cost:
    """Measure one method."""
    recognizer = built(METHODS[name])
    side = recognizer.size
    shape = (recognizer.config.frames, side, side, 3)
    frames_THWC = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    with torch.inference_mode():
        support = supports(recognizer, frames_THWC)

        def classify() -> object:
            features_QTE = recognizer.encode_query(recognizer.trunk(frames_THWC[None]), [support])
            return recognizer.score(features_QTE, [support])

        classify()
        times = []
        for _ in range(TIMES):
            begun = time.perf_counter()
            classify()
            times.append(time.perf_counter() - begun)
        with FlopCounterMode(display=False) as counter:
            classify()
    return Cost(
        learned=sum(p.numel() for p in recognizer.parameters() if p.requires_grad),
        gflop_clip=round(counter.get_total_flops() / 1e9, 1),
        ms_clip=round(1e3 * min(times)),
        kib_label=round(support.bytes / WAYS / 1024, 1),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the methods that are given, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(METHODS)}")
    told = {}
    print("| preset | weights that learn | GFLOP a clip | ms a clip | KiB a label |")
    print("|---|---|---|---|---|")
    for name in parser.parse_args(arguments).names or METHODS:
        cost = measure(name)
        told[name] = asdict(cost)
        cells = (f"{cost.learned:,}", cost.gflop_clip, cost.ms_clip, cost.kib_label)
        print(f"| `{name}` |", " | ".join(map(str, cells)), "|", flush=True)
        gc.collect()
    print(json.dumps(told))


if __name__ == "__main__":
    main()
