"""Motions, then words, for a compact checkpoint whose image tower stays as it is."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from model.assembly.recognizer import build_recognizer
from model.backbones.packaged.compact import compact_text_tower
from model.checkpoint import load_recognizer, save_checkpoint
from model.config.towers import CompactConfig, CompactTextConfig
from model.encoder import VideoEncoder
from model.methods import compact_method
from model.recognizer import Recognizer
from model.slots import Backbone
from training.compact.captions import (
    features_of,
    indexed_clips,
    joined,
    real_clips,
    synthetic_clips,
    vocabulary,
)
from training.compact.motion_stage import train_motions
from training.compact.recipes import MotionRecipe, TextRecipe
from training.compact.text_tower import train_text_tower
from training.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class TeachJob:
    """A compact checkpoint that is to learn motions and words."""

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


def teach_checkpoint(job: TeachJob) -> dict[str, object]:
    """Teach a checkpoint and write it; return what the last line tells.

    Raises:
        InputError: The start is no compact checkpoint, or its adapters cannot be held.
    """
    began = time.monotonic()
    earlier = load_recognizer(job.start)
    tower = earlier.config.backbone
    if not isinstance(tower, CompactConfig):
        raise InputError(f"{job.start!r} is no compact checkpoint; give one's folder.")
    if job.motions.keep:
        _check_keep(job, earlier, tower)
    taught = teach(
        earlier.video.tower,
        tower,
        job.frames,
        job.motions,
        job.text,
        torch.device(job.device),
        start=earlier.video if job.motions.keep else None,
        half=job.half,
    )
    save_checkpoint(taught.recognizer, job.out, _card(earlier, taught), half=True)
    return {
        "motions_named": round(taught.named, 4),
        "text_loss": round(taught.text_loss, 5),
        "seconds": round(time.monotonic() - began, 1),
        "out": job.out.name,
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


def _check_keep(job: TeachJob, earlier: Recognizer, tower: CompactConfig) -> None:
    """Refuse to hold adapters without labelled clips, or adapters of another form."""
    if not indexed_clips(job.frames):
        raise InputError(
            f"--keep is {job.motions.keep:g}, but no folder of --frames has an index.csv with "
            "training clips to hold adapters by; name one."
        )
    taught = compact_method(tower)
    if (earlier.config.visual, earlier.config.frames) != (taught.visual, taught.frames):
        raise InputError(
            f"{job.start!r} has adapters of another form than are taught here; leave --keep out."
        )


def _card(earlier: Recognizer, taught: Taught) -> str:
    """Describe how the checkpoint was made; accuracy is not known yet."""
    return (
        f"# A compact checkpoint\n\nImage tower of {earlier.fingerprint[:12]}; adapters taught "
        f"motions of synthetic clips ({100 * taught.named:.1f} % of training stages named), text "
        f"tower taught captions and labels (loss {taught.text_loss:.4f}). Accuracy: not measured "
        "yet; run `python -m training.evaluate`.\n"
    )
