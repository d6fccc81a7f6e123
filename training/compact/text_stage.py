"""Teach a compact checkpoint motions and words; its image tower stays as it is.

    python -m training.compact.text_stage --start compact --frames DIR --out DIR

is the last part of `training.pretrain` by itself. Adapters learn to name the motions of synthetic
clips, then the text tower learns captions of those clips, and the training labels of the folders
that have an index.csv. The last line is JSON.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from pydantic import ValidationError

from model.backbones.packaged.compact import compact_text_tower
from model.build import build_recognizer
from model.checkpoint import load_recognizer, save_checkpoint
from model.config import CompactConfig, CompactTextConfig
from model.encoder import VideoEncoder
from model.methods import compact_method
from model.recognizer import Recognizer
from model.slots import Backbone
from training import cli
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
from training.errors import InputError, refusal
from training.meta.processes import half_precision


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """What the command line asks for."""

    start: str  # compact checkpoint
    frames: tuple[Path, ...]  # folders of labelled clips
    out: Path
    motions: MotionRecipe
    text: TextRecipe
    device: str
    half: bool  # whether motions are learned in bfloat16


@dataclass(frozen=True, slots=True)
class Taught:
    """A compact method that knows motions and words, and how well."""

    recognizer: Recognizer
    named: float  # share of stages whose motion was named at the end
    text_loss: float


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--start", default="compact", help="Compact checkpoint to begin with.")
    parser.add_argument(
        "--frames",
        type=Path,
        nargs="+",
        default=[],
        help="Folders of labelled clips beside the synthetic ones.",
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="Folder of the checkpoint to write."
    )
    add_recipe_options(parser)
    parser.add_argument(
        "--keep",
        type=float,
        default=0.0,
        help="Let the adapters of --start learn on, held by this weight to their features of "
        "labelled clips; 0 begins with new ones.",
    )
    parser.add_argument("--seed", type=int, default=0, help="Seed of all that is drawn by chance.")
    cli.add_device_options(parser)


def read_values(options: argparse.Namespace) -> Values:
    """Return the values of parsed options.

    Raises:
        InputError: A value is out of range.
    """
    motions, text = recipes(options, keep=options.keep)
    return Values(
        start=options.start,
        frames=tuple(options.frames),
        out=options.out,
        motions=motions,
        text=text,
        device=options.device,
        half=half_precision(options.precision, options.device),
    )


def add_recipe_options(parser: argparse.ArgumentParser) -> None:
    """Add the lengths of both parts to a command line."""
    motions, text = MotionRecipe(), TextRecipe()
    parser.add_argument(
        "--motion-clips",
        type=int,
        default=motions.clips,
        help="Synthetic clips that teach motions.",
    )
    parser.add_argument(
        "--motion-steps", type=int, default=motions.steps, help="Steps of the optimiser on motions."
    )
    parser.add_argument(
        "--text-steps", type=int, default=text.steps, help="Steps of the optimiser on text."
    )


def recipes(options: argparse.Namespace, *, keep: float = 0.0) -> tuple[MotionRecipe, TextRecipe]:
    """Return the recipes of both parts that a command line asks for.

    Raises:
        InputError: A value is out of range.
    """
    try:
        motions = MotionRecipe(
            clips=options.motion_clips, steps=options.motion_steps, seed=options.seed, keep=keep
        )
        return motions, TextRecipe(steps=options.text_steps, seed=options.seed)
    except ValidationError as error:
        raise refusal(error) from error


def teach_checkpoint(values: Values) -> dict[str, object]:
    """Teach a checkpoint and write it; return what the last line tells.

    Raises:
        InputError: The start is no compact checkpoint, or its adapters cannot be held.
    """
    began = time.monotonic()
    earlier = load_recognizer(values.start)
    tower = earlier.config.backbone
    if not isinstance(tower, CompactConfig):
        raise InputError(f"{values.start!r} is no compact checkpoint; give one's folder.")
    if values.motions.keep:
        _check_keep(values, earlier, tower)
    taught = teach(
        earlier.video.tower,
        tower,
        values.frames,
        values.motions,
        values.text,
        torch.device(values.device),
        start=earlier.video if values.motions.keep else None,
        half=values.half,
    )
    save_checkpoint(taught.recognizer, values.out, _card(earlier, taught), half=True)
    return {
        "motions_named": round(taught.named, 4),
        "text_loss": round(taught.text_loss, 5),
        "seconds": round(time.monotonic() - began, 1),
        "out": values.out.name,
    }


def teach(
    image: Backbone,
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
        start: The encoder whose adapters learn on, and are held to their features of labelled clips
            with the weight `motions.keep`; new adapters if None.
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


def _check_keep(values: Values, earlier: Recognizer, tower: CompactConfig) -> None:
    """Refuse to hold adapters without labelled clips, or adapters of another form."""
    if not indexed_clips(values.frames):
        raise InputError(
            f"--keep is {values.motions.keep:g}, but no folder of --frames has an index.csv with "
            "training clips to hold adapters by; name one."
        )
    taught = compact_method(tower)
    if (earlier.config.visual, earlier.config.frames) != (taught.visual, taught.frames):
        raise InputError(
            f"{values.start!r} has adapters of another form than are taught here; leave --keep out."
        )


def _card(earlier: Recognizer, taught: Taught) -> str:
    """Describe how the checkpoint was made; accuracy is not known yet."""
    return (
        f"# A compact checkpoint\n\nImage tower of {earlier.fingerprint[:12]}; adapters taught "
        f"motions of synthetic clips ({100 * taught.named:.1f} % of training stages named), text "
        f"tower taught captions and labels (loss {taught.text_loss:.4f}). Accuracy: not measured "
        "yet; run `python -m training.evaluate`.\n"
    )


def run(options: argparse.Namespace) -> dict[str, object]:
    """Run the command."""
    return teach_checkpoint(read_values(options))


COMMAND = cli.Command("compact.text_stage", __doc__, declare, run)
main = partial(cli.main, COMMAND)

if __name__ == "__main__":
    sys.exit(main())
