"""Accuracy of recognisers over many episodes of an index.csv, all on the same episodes.

python -m training.evaluate --checkpoint compact --data INDEX.csv --split test --shots 1 5

Features are extracted once a clip where no adapter looks at the task. The last line is JSON.

Dimensions: C clips, T frames, E feature width.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from model.build import build_recognizer
from model.checkpoint import load_recognizer
from model.errors import BackboneError, CheckpointError, ClipError
from model.recognizer import Recognizer
from model.subactions import template_stages
from training.datasets import LabelledClip, open_dataset, read_frames
from training.episodes import Episode, EpisodePlan, EpisodeSampler
from training.errors import InputError


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Mean over episodes in percent, and half its 95 % interval."""

    mean: float
    interval: float
    episodes: int

    @classmethod
    def of(cls, shares: Sequence[float]) -> "Accuracy":
        """Summarise the share of right answers of each episode."""
        values = torch.tensor(shares, dtype=torch.float64) * 100
        spread = float(values.std()) if len(values) > 1 else math.nan
        return cls(float(values.mean()), 1.96 * spread / math.sqrt(len(values)), len(values))


class EpisodeScorer:
    """A recogniser with the trunk's output of every clip of a set.

    Args:
        recognizer: What is evaluated.
        clips: The set.
        text: Whether template text takes part where every word is known, as in the service.
    """

    def __init__(
        self, recognizer: Recognizer, clips: Sequence[LabelledClip], *, text: bool = True
    ) -> None:
        self.recognizer = recognizer if recognizer.trained else without_adapters(recognizer)
        self.by_task = len(self.recognizer.video.adapted) > 0
        made = [self._encode(clip) for clip in tqdm(clips, desc="features", unit="clip")]
        self.held = torch.stack(made)  # tokens [C, T, L, D], or features [C, T, E]
        self.text = self._texts({clip.label for clip in clips}) if text else {}

    def _encode(self, clip: LabelledClip) -> Tensor:
        frames_THWC = read_frames(
            clip, frames=self.recognizer.config.frames, size=self.recognizer.size
        )
        tokens_1TLD = self.recognizer.trunk(frames_THWC[None])
        if self.by_task:
            return tokens_1TLD[0]
        return self.recognizer.video.adapt_query(tokens_1TLD, [])[0]

    def _texts(self, labels: set[str]) -> dict[str, Tensor]:
        if not self.recognizer.has_text:
            return {}
        stages = {label: template_stages(label) for label in sorted(labels)}
        return {
            label: self.recognizer.encode_text([label], [texts])[0]
            for label, texts in stages.items()
            if not self.recognizer.unknown_words(label, texts)
        }

    def share_right(self, episode: Episode) -> float:
        """Return the share of the episode's queries that are recognised."""
        texts = [self.text[label] for label in episode.labels if label in self.text]
        text_NAE = torch.stack(texts) if len(texts) == len(episode.labels) else None
        support, query = self.held[list(episode.support)], self.held[list(episode.query)]
        if self.by_task:
            scores = self.recognizer.score_episode(
                support, episode.support_classes, query, text_NAE
            )
        else:
            classes_S = torch.tensor(episode.support_classes, device=support.device)
            scores = self.recognizer.score_features(support, classes_S, query, text_NAE)
        right = scores.logits_QN.argmax(dim=1).cpu() == torch.tensor(episode.query_classes)
        return float(right.double().mean())


def without_adapters(recognizer: Recognizer) -> Recognizer:
    """Return the same towers alone, which an untrained method equals (design invariant 5)."""
    text = None if recognizer.text is None else recognizer.text.tower
    config = replace(recognizer.config, visual=None, text=None, query_context="none")
    return build_recognizer(config, recognizer.video.tower, text, name=recognizer.name)


def evaluate(
    scorer: EpisodeScorer,
    clips: Sequence[LabelledClip],
    *,
    ways: int,
    shots: int,
    queries: int,
    episodes: int,
    seed: int,
) -> Accuracy:
    """Score episodes 0 .. `episodes` - 1 of a seed."""
    sampler = EpisodeSampler(clips, EpisodePlan(ways, shots, queries), seed)
    numbers = tqdm(range(episodes), desc=f"{ways}-way {shots}-shot", unit="episode")
    shares = [scorer.share_right(sampler.draw(number)) for number in numbers]
    return Accuracy.of(shares)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__)
    parser.add_argument("--checkpoint", default="compact", help="as KSHOT_CHECKPOINT")
    parser.add_argument("--data", type=Path, required=True, help="as training.datasets reads it")
    parser.add_argument("--split", default="test")
    parser.add_argument("--ways", type=int, default=5)
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--queries", type=int, default=5, help="of each class")
    parser.add_argument("--episodes", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-text", action="store_true", help="score by video alone")
    parser.add_argument("--teacher", default="timm:vit_tiny_patch16_224")
    parser.add_argument("--teacher-weights", type=Path, help="also evaluate the bare teacher")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 2 for input that does not fit."""
    options = parse(arguments)
    try:
        with torch.inference_mode():
            result = run(options)
    except (InputError, BackboneError, CheckpointError, ClipError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    print(json.dumps(result))
    return 0


def run(options: argparse.Namespace) -> dict[str, object]:
    """Evaluate the checkpoint, and the teacher where its weights are given."""
    dataset = open_dataset(options.data)
    clips = dataset.split(options.split)
    sources: list[tuple[str, Path | None]] = [(options.checkpoint, None)]
    if options.teacher_weights is not None:
        sources.append((options.teacher, options.teacher_weights))
    rows: list[dict[str, object]] = []
    for source, weights in sources:
        recognizer = load_recognizer(source, weights=weights)
        scorer = EpisodeScorer(recognizer, clips, text=dataset.named and not options.no_text)
        for shots in options.shots:
            found = evaluate(
                scorer,
                clips,
                ways=options.ways,
                shots=shots,
                queries=options.queries,
                episodes=options.episodes,
                seed=options.seed,
            )
            print(f"{source} {shots}-shot: {found.mean:.1f} +- {found.interval:.1f} %")
            rows.append(
                {
                    "checkpoint": source,
                    "shots": shots,
                    "accuracy": round(found.mean, 2),
                    "interval": round(found.interval, 2),
                    "labels_with_text": len(scorer.text),
                }
            )
    chosen = {name: getattr(options, name) for name in ("split", "ways", "queries", "episodes")}
    return {**chosen, "seed": options.seed, "rows": rows}


if __name__ == "__main__":
    sys.exit(main())
