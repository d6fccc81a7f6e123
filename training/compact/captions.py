"""Captioned clips for pretraining: synthetic actions, and the training labels of an index.csv.

Dimensions: C clips, T frames, L tokens, D token width, E feature width.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import eq
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.backbones.words import split_words
from model.media.container import UNLIMITED
from model.media.video import read_clip
from model.recognizer import SLICE_CLIPS, Recognizer
from model.text import STAGES, StageTexts, prompts, template_stages
from model.views import alone_view
from training.data.listings import Split, read_index
from training.data.local_video import decode_local
from training.progress import progress
from training.synthetic.actions import Action, draw_action
from training.synthetic.motions import MOTIONS, Trio
from training.synthetic.rendering import FLOWING, SEPARATE, render_clip
from training.synthetic.shapes import COLOURS, SHAPES, TEXTURES

Subject = Action | str  # what a clip shows: a synthetic action, or a label


@dataclass(frozen=True, slots=True)
class Caption:
    """A text of three stages, and what it claims of each."""

    texts: StageTexts  # prompts, as the text tower reads them
    words: frozenset[str]  # what is seen: words of the mover, or a label; empty claims nothing
    motions: Trio | None = None  # None claims nothing of motions

    def holds(self, subject: Subject) -> tuple[bool, ...]:
        """Tell of each stage whether the caption is true of a clip that shows `subject`."""
        seen = {subject} if isinstance(subject, str) else set(_mover_words(subject))
        if not self.words <= seen:
            return (False,) * STAGES
        if self.motions is None:
            return (True,) * STAGES
        if isinstance(subject, str):
            return (False,) * STAGES
        return tuple(map(eq, self.motions, subject.motions))


@dataclass(frozen=True, slots=True)
class CaptionedClips:
    """The trunk's output of clips, in half precision, and what each shows."""

    tokens_CTLD: Tensor
    subjects: tuple[Subject, ...]


def whole_captions(subject: Subject) -> tuple[Caption, ...]:
    """Return the captions of a whole action: with its own stages, and with the template's."""
    if isinstance(subject, str):
        return (Caption(prompts(subject, template_stages(subject)), frozenset({subject})),)
    words = frozenset(_mover_words(subject))
    return tuple(
        Caption(prompts(subject.label, stages), words, subject.motions)
        for stages in (subject.stages, template_stages(subject.label))
    )


def partial_captions(subject: Subject) -> tuple[Caption, ...]:
    """Return captions of labels that name a part of an action, as users write `arrow`."""
    if isinstance(subject, str):
        return ()
    motions = subject.label.removeprefix(subject.mover).strip()
    captions: list[Caption] = []
    for choice in itertools.product((False, True), repeat=len(_mover_words(subject))):
        kept = tuple(itertools.compress(_mover_words(subject), choice))
        for said, rest in ((None, ""), (subject.motions, motions)):
            label = " ".join((*kept, rest)).strip()
            if label not in ("", subject.label):
                texts = prompts(label, template_stages(label))
                captions.append(Caption(texts, frozenset(kept), said))
    return tuple(captions)


def rival_captions(action: Action, rng: np.random.Generator, count: int) -> tuple[Caption, ...]:
    """Draw captions of the same mover in other motions, every second one in another order only."""
    captions: list[Caption] = []
    for number in range(count):
        among = list(action.motions) if number % 2 else list(MOTIONS)
        first, second, third = map(str, rng.permutation(among)[:STAGES])
        captions += whole_captions(replace(action, motions=(first, second, third)))
    return tuple(captions)


def _mover_words(action: Action) -> tuple[str, str, str]:
    return action.colour, action.texture, action.shape


def vocabulary(labels: Sequence[str]) -> tuple[str, ...]:
    """Return every word of the synthetic actions, the templates and `labels`."""
    movers = [*COLOURS, *TEXTURES, *SHAPES, *MOTIONS, "then"]
    texts = [
        text for label in ["", *labels, *movers] for text in prompts(label, template_stages(label))
    ]
    return tuple(sorted({word for text in texts for word in split_words(text)}))


def indexed_clips(folders: Sequence[Path]) -> list[tuple[Path, str]]:
    """Return the training clips of those folders that have an index.csv."""
    return [
        (folder / row["path"], row["label"])
        for folder in folders
        if (folder / "index.csv").is_file()
        for row in read_index(folder / "index.csv")
        if row["split"] == "train"
    ]


def drawn_clips(
    count: int, split: Split, frames: int, size: int
) -> tuple[list[Action], Iterator[NDArray[np.uint8]]]:
    """Draw actions, and render each when asked; in every fourth one motions are carried on.

    Returns:
        The actions, and views [T, size, size, 3] of them.
    """
    seeded = [np.random.default_rng([seed, 7]) for seed in range(count)]
    actions = [draw_action(rng, split) for rng in seeded]
    rendered = (
        render_clip(action, rng, frames, size, SEPARATE if number % 4 else FLOWING)
        for number, (action, rng) in enumerate(zip(actions, seeded, strict=True))
    )
    return actions, rendered


def synthetic_clips(count: int, split: Split, recognizer: Recognizer) -> CaptionedClips:
    """Draw synthetic clips and run the trunk."""
    actions, rendered = drawn_clips(count, split, recognizer.config.frames, recognizer.size)
    tokens = trunk_tokens(recognizer, progress(rendered, desc="synthetic clips", total=count))
    return CaptionedClips(tokens, tuple(actions))


def real_clips(found: Sequence[tuple[Path, str]], recognizer: Recognizer) -> CaptionedClips:
    """Read labelled clips and run the trunk."""
    frames, size = recognizer.config.frames, recognizer.size
    read = (
        read_clip(path, frames=frames, size=size, limits=UNLIMITED, decode=decode_local).frames_THWC
        for path, _ in found
    )
    tokens = trunk_tokens(recognizer, progress(read, desc="labelled clips", total=len(found)))
    return CaptionedClips(tokens, tuple(label for _, label in found))


@torch.no_grad()
def trunk_tokens(recognizer: Recognizer, clips: Iterable[NDArray[np.uint8]]) -> Tensor:
    """Return the trunk's output [C, T, L, D] of clips, in half precision on the CPU."""
    return torch.cat([recognizer.trunk(frames_THWC[None]).half().cpu() for frames_THWC in clips])


@torch.no_grad()
def features_of(recognizer: Recognizer, clips: CaptionedClips) -> Tensor:
    """Return the frame features [C, T, E] of clips, each alone."""
    parts = clips.tokens_CTLD.split(SLICE_CLIPS)
    bar = progress(parts, desc="features", unit="slice")
    alone = alone_view(recognizer.config.query_context)
    return torch.cat(
        [recognizer.video(part.to(recognizer.device).float(), alone).float() for part in bar]
    )


def joined(parts: Sequence[CaptionedClips]) -> CaptionedClips:
    """Put sets of captioned clips together."""
    return CaptionedClips(
        torch.cat([part.tokens_CTLD for part in parts]),
        tuple(subject for part in parts for subject in part.subjects),
    )
