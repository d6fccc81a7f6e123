"""Teach a compact checkpoint motions and words; its image tower stays as it is.

    python -m training.compact.text_stage --start compact --frames DIR --out DIR

is the last part of `training.pretrain` by itself. Adapters learn to name the motions of synthetic
clips, then the text tower learns captions of those clips, and the training labels of the folders
that have an index.csv. The last line is JSON.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from model.backbones.compact import compact_text_tower
from model.backbones.timm import TimmImageTower
from model.build import build_recognizer
from model.checkpoint import load_recognizer, save_checkpoint
from model.config import CompactConfig, CompactTextConfig
from model.encoder import VideoEncoder
from model.errors import BackboneError, CheckpointError
from model.methods import compact_method
from model.recognizer import Recognizer
from training.compact.captions import (
    features_of,
    indexed_clips,
    joined,
    real_clips,
    synthetic_clips,
    vocabulary,
)
from training.compact.motion_stage import MotionRecipe, train_motions
from training.compact.text_tower import TextRecipe, train_text_tower
from training.errors import InputError
from training.meta.precision import half_precision


@dataclass(frozen=True, slots=True)
class Taught:
    """A compact method that knows motions and words, and how well."""

    recognizer: Recognizer
    named: float  # share of stages whose motion was named at the end
    text_loss: float


def teach(
    image: TimmImageTower,
    tower: CompactConfig,
    frames: Sequence[Path],
    motions: MotionRecipe,
    text: TextRecipe,
    device: torch.device,
    *,
    start: VideoEncoder | None = None,
    half: bool = False,
) -> Taught:
    """Teach adapters motions, and a new text tower words.

    Args:
        image: The image tower, trained; it stays as it is.
        tower: Its sizes.
        frames: Folders; the training clips of those with an index.csv are read.
        motions: How adapters learn.
        text: How the text tower learns.
        device: Where to compute.
        start: What adapters learn on from, and stay near to on labelled clips where `motions` says
            so; None makes new ones.
        half: Whether motions are learned in bfloat16 where that is safe.
    """
    labelled = indexed_clips(frames)
    torch.manual_seed(text.seed)
    words = CompactTextConfig(words=vocabulary(sorted({label for _, label in labelled})))
    method = compact_method(replace(tower, text=words))
    text_tower = compact_text_tower(words, image.features)
    recognizer = build_recognizer(method, image, text_tower, name="compact").to(device)
    if start is not None:
        recognizer.video.load_state_dict(start.state_dict())
    clips = synthetic_clips(motions.clips, "train", recognizer)
    others = real_clips(labelled, recognizer) if labelled else None
    named = train_motions(recognizer, clips, motions, others=others, half=half)
    if others is not None:
        clips = joined([clips, others])
    features = features_of(recognizer, clips)
    return Taught(recognizer, named, train_text_tower(recognizer, features, clips.subjects, text))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.compact.text_stage",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--start", default="compact", help="compact checkpoint")
    parser.add_argument("--frames", type=Path, nargs="+", default=[], help="labelled clips")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint folder")
    add_recipe_options(parser)
    parser.add_argument(
        "--keep",
        type=float,
        default=0.0,
        help="let the adapters of --start learn on, and weigh so much that they make of labelled "
        "clips what they made before; 0 begins with new ones",
    )
    parser.add_argument(
        "--precision", choices=("auto", "bf16", "fp32"), default="auto", help="of motions"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args(arguments)


def add_recipe_options(parser: argparse.ArgumentParser) -> None:
    """Add the lengths of both parts to a command line."""
    motions, text = MotionRecipe(), TextRecipe()
    parser.add_argument("--motion-clips", type=int, default=motions.clips, help="synthetic")
    parser.add_argument("--motion-steps", type=int, default=motions.steps)
    parser.add_argument("--text-steps", type=int, default=text.steps)


def recipes(options: argparse.Namespace) -> tuple[MotionRecipe, TextRecipe]:
    """Return the recipes that a command line asks for."""
    motions = MotionRecipe(
        clips=options.motion_clips, steps=options.motion_steps, seed=options.seed
    )
    return motions, TextRecipe(steps=options.text_steps, seed=options.seed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 2 for input that does not fit."""
    options = parse(arguments)
    start = time.monotonic()
    try:
        earlier = load_recognizer(options.start)
        image, tower = earlier.video.tower, earlier.config.backbone
        if not (isinstance(image, TimmImageTower) and isinstance(tower, CompactConfig)):
            raise InputError(f"{options.start!r} is no compact checkpoint; give one's folder.")
        if options.keep:
            check_keep(options, earlier, tower)
        motions, text = recipes(options)
        taught = teach(
            image,
            tower,
            options.frames,
            replace(motions, keep=options.keep),
            text,
            torch.device(options.device),
            start=earlier.video if options.keep else None,
            half=half_precision(options.precision, options.device),
        )
        save_checkpoint(taught.recognizer, options.out, card(earlier, taught), half=True)
    except (InputError, BackboneError, CheckpointError) as error:
        print(f"text_stage: {error}", file=sys.stderr)
        return 2
    result = {
        "motions_named": round(taught.named, 4),
        "text_loss": round(taught.text_loss, 5),
        "seconds": round(time.monotonic() - start, 1),
        "out": options.out.name,
    }
    print(json.dumps(result))
    return 0


def check_keep(options: argparse.Namespace, earlier: Recognizer, tower: CompactConfig) -> None:
    """Refuse to hold what cannot be held.

    Raises:
        InputError: A weight below 0, no labelled clips, or adapters of another form.
    """
    if options.keep < 0:
        raise InputError(f"--keep is {options.keep:g}; give 0 or more.")
    if not indexed_clips(options.frames):
        raise InputError(
            f"--keep is {options.keep:g}, but no folder of --frames has an index.csv with training "
            "clips to hold adapters by; name one."
        )
    taught = compact_method(tower)
    if (earlier.config.visual, earlier.config.frames) != (taught.visual, taught.frames):
        raise InputError(
            f"{options.start!r} has adapters of another form than are taught here; "
            "leave --keep out."
        )


def card(earlier: Recognizer, taught: Taught) -> str:
    """Say what the checkpoint was made of; accuracy is for whoever measures it."""
    return (
        f"# A compact checkpoint\n\nImage tower of {earlier.fingerprint[:12]}; adapters taught "
        f"motions of synthetic clips ({100 * taught.named:.1f} % of training stages named), text "
        f"tower taught captions and labels (loss {taught.text_loss:.4f}). Accuracy: not measured "
        "yet; run `python -m training.evaluate`.\n"
    )


if __name__ == "__main__":
    sys.exit(main())
