"""Clips a second of each runtime beside plain fp32 torch. The last line of stdout is JSON.

    python -m tests.bench.bench_runtime --onnx DIR
    python -m tests.bench.bench_runtime --vit-b --clips 1
    python -m tests.bench.bench_runtime --vit-b --clips 32 --device cuda

Every round times one pass of each runtime and one square matrix product; ratios are taken within a
round and their median is shown, so that other work on the machine hurts all alike. `fraction` is
the trunk's multiplications and additions in a second over those of the fp32 matrix product,
`fraction_bf16` over those of the bf16 one. Clips lie on the device before. On a processor `lanes`
rows run the batch as the engine does, each core its share; the others run every operation on all.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.assembly.recognizer import build_recognizer
from model.backbones.clip import open_clip_towers
from model.checkpoint import load_recognizer
from model.config.method import MethodConfig
from model.config.towers import OpenClipConfig
from model.export.manifest import read_manifest
from model.passes.lanes import Lanes
from model.recognizer import Recognizer
from service.engine.passes.activations import fuse_activations
from service.engine.passes.batching import lanes_of, shares, usual_batch_frames
from service.engine.passes.choice import label, onnx_folder
from service.engine.runtimes.onnx import onnx_runtime
from service.engine.runtimes.protocol import Runtime
from service.engine.runtimes.pytorch import TorchRuntime, plain_torch, reduced_torch
from tests.bench.bars import Bar, machine, tell

SIDE = {"cpu": 1536, "cuda": 8192}  # of the matrix product
COPY_BYTES = 256 * 2**20
LANES = "lanes, "  # in front of the name of a runtime that is run as the engine does


def recognizer_of(options: argparse.Namespace) -> Recognizer:
    """Load a checkpoint, or a ViT-B/16 of seeded random weights."""
    if not options.vit_b:
        return load_recognizer(options.checkpoint).to(options.device)
    torch.manual_seed(0)
    backbone = OpenClipConfig(name="ViT-B-16-quickgelu")
    recognizer = build_recognizer(MethodConfig(backbone=backbone), *open_clip_towers(backbone))
    return recognizer.to(options.device)


def trunk_flops(recognizer: Recognizer, clips: int, tokens: int) -> float:
    """Count the trunk's linear maps, attention and patch projection."""
    frames, width = clips * recognizer.config.frames, recognizer.video.tower.width
    linear = 24 * tokens * width**2
    attention = 4 * tokens**2 * width
    patches = 2 * 3 * recognizer.size**2 * width
    return float(frames * (len(recognizer.video.plain_blocks) * (linear + attention) + patches))


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """Time one call, until the device is done."""
    begun = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begun


def in_lanes(runtime: Runtime, frames_BTHWC: Tensor, lanes: Lanes) -> Callable[[], object]:
    """Make a call that runs a batch as the engine does: each core takes its share."""

    @torch.inference_mode()
    def trunk(share: slice) -> Tensor:
        return runtime.trunk(frames_BTHWC[share])

    parts = shares(len(frames_BTHWC), lanes.count)
    return lambda: lanes.start(trunk, parts)()


def passes_of(
    runtimes: Mapping[str, Runtime], frames_BTHWC: Tensor, lanes: Lanes
) -> dict[str, Callable[[], object]]:
    """List a pass of each runtime, and those of the engine where they are others."""
    calls: dict[str, Callable[[], object]] = {}
    for name, runtime in runtimes.items():
        calls[name] = lambda runtime=runtime: runtime.trunk(frames_BTHWC)  # type: ignore[misc]
        if 1 < lanes_of(runtime) <= len(frames_BTHWC):
            calls[LANES + name] = in_lanes(runtime, frames_BTHWC, lanes)
    return calls


def runtimes_of(options: argparse.Namespace, plain: Recognizer) -> dict[str, Runtime]:
    """List plain torch first, then what may be faster."""
    served = recognizer_of(options)
    fuse_activations(served.video)
    found: dict[str, Runtime] = {"torch-plain": TorchRuntime(plain)}
    found["torch-fp32"] = plain_torch(served)
    frames = options.clips * plain.config.frames
    found |= {label(runtime): runtime for runtime in reduced_torch(served, frames)}
    folder = options.onnx if options.vit_b else onnx_folder(options.onnx, options.checkpoint)
    if folder is not None:
        manifest = read_manifest(folder)
        threads = torch.get_num_threads()
        opened = onnx_runtime(served, folder, manifest, threads=threads)
        found[label(opened)] = opened
    return found


@torch.inference_mode()
def measure(options: argparse.Namespace, lanes: Lanes) -> dict[str, Any]:
    """Time rounds of all calls."""
    plain = recognizer_of(options)
    options.clips = options.clips or usual_batch_frames(plain.device) // plain.config.frames
    clip = (plain.config.frames, plain.size, plain.size, 3)
    device, side = plain.device, SIDE[plain.device.type]
    frames = torch.randint(0, 256, (options.clips, *clip), dtype=torch.uint8).to(device)
    passes = passes_of(runtimes_of(options, plain), frames, lanes)
    matrix = torch.randn(side, side, device=device)
    source = torch.empty(COPY_BYTES, dtype=torch.uint8, device=device)
    half, target = matrix.bfloat16(), torch.empty_like(source)
    calls: dict[str, Callable[[], object]] = {
        "fp32 product": lambda: matrix @ matrix,
        "bf16 product": lambda: half @ half,
        "copy": lambda: target.copy_(source),
        **passes,
    }
    tokens = plain.trunk(frames[:1]).shape[2]
    for call in calls.values():
        seconds(call, device)
    rounds = [
        {name: seconds(call, device) for name, call in calls.items()} for _ in range(options.rounds)
    ]

    def median(value: Callable[[dict[str, float]], float]) -> float:
        return statistics.median(value(times) for times in rounds)

    product, flops = 2 * side**3, trunk_flops(plain, options.clips, tokens)

    def row(name: str) -> dict[str, float]:
        share = median(lambda t: flops / t[name] * t["fp32 product"] / product)
        share_bf16 = median(lambda t: flops / t[name] * t["bf16 product"] / product)
        return {
            "clips_s": round(median(lambda t: options.clips / t[name]), 3),
            "speed_up": round(median(lambda t: t["torch-plain"] / t[name]), 3),
            "fraction": round(share, 3),
            "fraction_bf16": round(share_bf16, 3),
        }

    return {
        "model": "ViT-B-16-quickgelu, random" if options.vit_b else options.checkpoint,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "clips": options.clips,
        "rounds": options.rounds,
        "fp32_gflops": round(median(lambda t: product / t["fp32 product"]) / 1e9, 1),
        "bf16_gflops": round(median(lambda t: product / t["bf16 product"]) / 1e9, 1),
        "copy_gb_s": round(median(lambda t: 2 * COPY_BYTES / t["copy"]) / 1e9, 2),
        "runtimes": {name: row(name) for name in passes},
    }


def bars_of(found: dict[str, Any], instructions: Sequence[str]) -> list[Bar]:
    """Compare with what the runtime of `auto` must reach, where the processor can."""
    rows, model = found["runtimes"].values(), found["model"]
    if found["device"] != "cpu":
        share = max(row["fraction_bf16"] for row in rows)
        return [Bar(f"{model}: fraction of the bf16 matrix rate", share, ">=", 0.5)]
    fast = bool({"avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8"} & set(instructions))
    speed_up = max(
        row["speed_up"] for name, row in found["runtimes"].items() if not name.startswith(LANES)
    )
    reduced = ("bf16", "int8")  # which may well do more than the fp32 product
    plain = [row for name, row in found["runtimes"].items() if not name.endswith(reduced)]
    fraction = max(row["fraction"] for row in plain)
    return [
        Bar(f"{model}: fastest runtime / plain torch", speed_up if fast else None, ">=", 1.8),
        Bar(f"{model}: fraction of the fp32 matrix rate", fraction, ">=", 0.6),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--checkpoint", default="compact")
    parser.add_argument("--vit-b", action="store_true", help="ViT-B/16 of random weights instead")
    parser.add_argument("--onnx", type=Path, help="default: what `make onnx` wrote")
    parser.add_argument("--clips", type=int, default=0, help="of one pass; default: a full batch")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    before = machine()
    with closing(Lanes(max(2, torch.get_num_threads()))) as lanes:
        found = measure(options, lanes)
    print(
        f"{found['model']}: fp32 product {found['fp32_gflops']} GFLOP/s, bf16 "
        f"{found['bf16_gflops']}, copy {found['copy_gb_s']} GB/s, {found['threads']} threads"
    )
    for name, row in found["runtimes"].items():
        print(
            f"  {name:<18} {row['clips_s']:8.2f} clips/s  x{row['speed_up']:.2f} plain torch  "
            f"{row['fraction']:.2f} of the fp32 product, {row['fraction_bf16']:.2f} of the bf16 one"
        )
    tell("runtime", bars_of(found, before["instructions"]), before, **found)


if __name__ == "__main__":
    main()
