"""Whether exported graphs compute what torch computes: features, then scores of an episode.

Dimensions: B S Q clips, N classes, A stages, T frames, H W pixels, C colours, L tokens, D token
width, E feature width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.episode import MatchScores
from model.errors import ExportError
from model.recognizer import Recognizer
from model.text import template_stages

FEATURES, SCORES = 1e-4, 1e-5  # largest difference that passes, relative to the largest value
WAYS, SHOTS, QUERIES = 3, 2, 4
LABELS = ("walk", "run", "jump")


@dataclass(frozen=True, slots=True)
class Answers:
    """What one recognizer makes of one episode."""

    trunk_BTLD: Tensor
    features_QTE: Tensor
    text_NAE: Tensor | None
    scores: list[MatchScores]


def episode_clips(recognizer: Recognizer, *, seed: int = 0) -> Tensor:
    """Make supports, class by class, then queries [B, T, H, W, C] of coarse patterns, uint8."""
    count, frames, size = WAYS * SHOTS + QUERIES, recognizer.config.frames, recognizer.size
    noise = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, frames, 3, 7, 7, generator=noise)
    coarse = coarse + 2 * torch.rand(count, 1, 3, 7, 7, generator=noise)
    fine = torch.nn.functional.interpolate(coarse.flatten(0, 1), size=(size, size))
    pixels = (fine * 85).to(torch.uint8).unflatten(0, (count, frames))
    return pixels.permute(0, 1, 3, 4, 2).contiguous()


@torch.inference_mode()
def answers(recognizer: Recognizer, clips_BTHWC: Tensor) -> Answers:
    """Run an episode."""
    supports = WAYS * SHOTS
    classes = [number for number in range(WAYS) for _ in range(SHOTS)]
    text, count = None, recognizer.config.stages
    if recognizer.has_text:
        text = recognizer.encode_text(LABELS, [template_stages(label, count) for label in LABELS])
    tokens = recognizer.trunk(clips_BTHWC)
    support = recognizer.encode_support(tokens[:supports], classes, text)
    queries = tokens[supports:]
    features = recognizer.encode_query(queries, [support] * len(queries))
    scores = recognizer.match(features, [support] * len(queries))
    return Answers(tokens, features, text, scores)


def difference(one: Tensor, other: Tensor) -> float:
    """Return the largest difference, relative to the largest value but 1 at least."""
    scale = max(1.0, float(one.abs().max()))
    return float((one - other).abs().max()) / scale


def factors(scores: Sequence[MatchScores]) -> Tensor:
    """Line up the video and text scores of queries."""
    return torch.tensor([score.video_N + (score.text_N or []) for score in scores])


def compare(torch_answers: Answers, onnx_answers: Answers) -> tuple[dict[str, float], float]:
    """Return the largest differences of features, by graph, and of scores.

    Raises:
        ExportError: One of them is too large.
    """
    pairs = {
        "trunk": (torch_answers.trunk_BTLD, onnx_answers.trunk_BTLD),
        "adapted": (torch_answers.features_QTE, onnx_answers.features_QTE),
    }
    if torch_answers.text_NAE is not None and onnx_answers.text_NAE is not None:
        pairs["text"] = (torch_answers.text_NAE, onnx_answers.text_NAE)
    found = {name: difference(one, other) for name, (one, other) in pairs.items()}
    scores = difference(factors(torch_answers.scores), factors(onnx_answers.scores))
    for name, value, most in [
        *((n, v, FEATURES) for n, v in found.items()),
        ("scores", scores, SCORES),
    ]:
        if not value <= most:
            raise ExportError(
                f"The {name} differ from torch by {value:.1e}, more than {most:.0e}; "
                "do not serve this export, and report it with the versions in use."
            )
    return found, scores
