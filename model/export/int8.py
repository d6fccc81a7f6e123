"""The trunk in int8: scales from calibration clips, the same for every batch, and what it costs.

Dynamic quantisation would take the scale of an activation from the whole batch, so that a clip's
score would depend on its batch mates (design, invariant 1): scales are fixed here instead.

Dimensions: B S Q clips, N classes, A stages, T frames, H W pixels, C colours, L tokens, D token
width.
"""

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.errors import ExportError
from model.export.graphs import quiet
from model.export.manifest import Accuracy, GraphFile, sha256_of
from model.export.parity import factors
from model.export.sessions import onnxruntime
from model.recognizer import MatchScores, Recognizer
from model.text import template_stages

EPISODES, WAYS = 60, 5


def quantise(trunk: Path, file: Path, clips: Sequence[np.ndarray], like: GraphFile) -> GraphFile:
    """Quantise the linear maps of a trunk: weights per channel, activations by fixed scales.

    Weights have 7 bits: without VNNI, processors add two 8 bit products into 16 bits, which would
    saturate with 8. What is between linear maps, attention included, stays fp32.

    Args:
        trunk: The fp32 graph.
        file: Where the int8 graph goes.
        clips: Calibration clips, [T, H, W, C] uint8.
        like: The fp32 graph's description.
    """
    onnx, quantization = _packages()
    model = onnx.load(trunk)
    weights = {tensor.name for tensor in model.graph.initializer}
    linear = [
        node.name
        for node in model.graph.node
        if node.op_type in ("MatMul", "Gemm") and weights.intersection(node.input)
    ]
    aside = file.with_name(f".{file.name}.new")
    with quiet():
        quantization.quantize_static(
            model,
            aside,
            _reader(quantization, (clip[None] for clip in clips)),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["MatMul", "Gemm"],
            nodes_to_quantize=linear,
            per_channel=True,
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
            extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"]},
        )
    aside.replace(file)
    return GraphFile(file=file.name, sha256=sha256_of(file), input=like.input, output=like.output)


def _packages() -> tuple[Any, Any]:
    onnxruntime()  # first, so that its telemetry is off
    try:
        return importlib.import_module("onnx"), importlib.import_module("onnxruntime.quantization")
    except ImportError as error:
        raise ExportError(
            f"{error.name} is not installed; `pip install 'kshot[cpu,export]'` has it."
        ) from error


def _reader(quantization: Any, batches: Iterator[np.ndarray]) -> Any:  # noqa: ANN401
    """Wrap batches as onnxruntime wants its calibration data."""

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(batches, None)
            return None if batch is None else {"batch": batch}

    return Reader()


@torch.inference_mode()
def measure(
    fp32: Recognizer,
    int8: Recognizer,
    clips: dict[str, list[np.ndarray]],
    *,
    calibration_clips: int,
    seed: int = 0,
) -> Accuracy:
    """Play the same one-shot episodes with both trunks.

    Args:
        fp32: The reference.
        int8: The same method with the quantised trunk.
        clips: By label, two or more each, none of them used for calibration.
        calibration_clips: How many clips were.
        seed: Of the episodes.
    """
    episodes = list(draw_episodes({label: len(given) for label, given in clips.items()}, seed))
    (right, reference), (right8, scores8) = (
        play(recognizer, clips, episodes) for recognizer in (fp32, int8)
    )
    same = [_best(one) == _best(other) for one, other in zip(reference, scores8, strict=True)]
    gaps = torch.cat(
        [
            (factors([one]) - factors([other])).abs().flatten()
            for one, other in zip(reference, scores8, strict=True)
        ]
    )
    return Accuracy(
        clips=sum(len(given) for given in clips.values()),
        calibration_clips=calibration_clips,
        accuracy_fp32=right,
        accuracy_int8=right8,
        same_label=sum(same) / len(same),
        score_difference=float(gaps.max()),
        score_difference_p99=float(gaps.quantile(0.99)),
    )


Episode = tuple[list[str], dict[str, int]]  # labels, and the support clip of each


def draw_episodes(counts: dict[str, int], seed: int) -> Iterator[Episode]:
    """Draw one-shot episodes of up to five labels."""
    rng = np.random.default_rng(seed)
    for _ in range(EPISODES):
        labels = [str(x) for x in rng.permutation(sorted(counts))[:WAYS]]
        yield labels, {label: int(rng.integers(counts[label])) for label in labels}


def play(
    recognizer: Recognizer, clips: dict[str, list[np.ndarray]], episodes: Sequence[Episode]
) -> tuple[float, list[MatchScores]]:
    """Return the share of queries that get their own label, and all scores in order."""
    tokens = {label: recognizer.trunk(np.stack(given)) for label, given in clips.items()}
    right: list[bool] = []
    scores: list[MatchScores] = []
    for labels, shots in episodes:
        supports = torch.stack([tokens[label][shots[label]] for label in labels])
        support = recognizer.encode_support(supports, range(len(labels)), _text(recognizer, labels))
        for number, label in enumerate(labels):
            others = [k for k in range(len(clips[label])) if k != shots[label]]
            many = [support] * len(others)
            found = recognizer.match(recognizer.encode_query(tokens[label][others], many), many)
            right += [_best(score) == number for score in found]
            scores += found
    return sum(right) / len(right), scores


def _text(recognizer: Recognizer, labels: Sequence[str]) -> Tensor | None:
    """Encode template text, where the text tower knows all words, as the service does."""
    stages = [template_stages(label) for label in labels]
    known = not any(recognizer.unknown_words(*pair) for pair in zip(labels, stages, strict=True))
    return recognizer.encode_text(labels, stages) if recognizer.has_text and known else None


def _best(score: MatchScores) -> int:
    return int(np.argmax(score.logits_N))
