"""Captioned clips for the text stage: synthetic actions, and the labels of an index.csv.

Dimensions: C clips, T frames, E feature width.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from model.media import UNLIMITED, read_clip
from model.recognizer import Recognizer
from model.subactions import StageTexts, prompts, template_stages
from model.words import split_words
from training.frame_folders import SPLITS
from training.listings import Split, read_index
from training.motions import MOTIONS
from training.shapes import COLOURS, SHAPES, TEXTURES
from training.synthetic import Action, draw_action, render_clip


@dataclass(frozen=True, slots=True)
class CaptionedClips:
    """Frame features, and for each clip one or more texts of its three stages."""

    features_CTE: Tensor
    texts: tuple[tuple[StageTexts, ...], ...]  # whole captions, as the text tower gets them
    partial: tuple[tuple[StageTexts, ...], ...]  # less than the whole, true all the same


def action_texts(action: Action) -> tuple[StageTexts, ...]:
    """Return the prompts of an action: with its own stages, and with the template's."""
    return (
        prompts(action.label, action.stages),
        prompts(action.label, template_stages(action.label)),
    )


def partial_texts(action: Action) -> tuple[StageTexts, ...]:
    """Return the prompts of labels that name a part of an action: users write `arrow`, too."""
    motions = action.label.removeprefix(action.mover).strip()
    words = (action.colour, action.texture, action.shape)
    movers = (
        " ".join(word for word, kept in zip(words, choice, strict=True) if kept)
        for choice in itertools.product((False, True), repeat=len(words))
    )
    labels = (f"{mover} {rest}".strip() for mover, rest in itertools.product(movers, ("", motions)))
    return tuple(label_texts(label)[0] for label in labels if label not in ("", action.label))


def label_texts(label: str) -> tuple[StageTexts, ...]:
    """Return the prompts of a label that has nothing but its name."""
    return (prompts(label, template_stages(label)),)


def vocabulary(labels: Sequence[str]) -> tuple[str, ...]:
    """Return every word of the synthetic actions, the templates and `labels`."""
    movers = [*COLOURS, *TEXTURES, *SHAPES, *MOTIONS, "then"]
    texts = [text for label in ["", *labels, *movers] for text in label_texts(label)[0]]
    return tuple(sorted({word for text in texts for word in split_words(text)}))


def indexed_clips(folders: Sequence[Path]) -> list[tuple[Path, str]]:
    """Return the train and val clips of those folders that have an index.csv."""
    return [
        (folder / row["path"], row["label"])
        for folder in folders
        if (folder / "index.csv").is_file()
        for row in read_index(folder / "index.csv")
        if row["split"] in SPLITS
    ]


def synthetic_clips(count: int, split: Split, recognizer: Recognizer) -> CaptionedClips:
    """Render and encode captioned synthetic clips."""
    actions, clips = [], []
    for seed in range(count):
        rng = np.random.default_rng([seed, 7])
        action = draw_action(rng, split)
        actions.append(action)
        clips.append((action, rng))
    frames = (
        render_clip(action, rng, recognizer.config.frames, recognizer.size) for action, rng in clips
    )
    features = encode(recognizer, tqdm(frames, desc="synthetic clips", total=count))
    return CaptionedClips(
        features,
        tuple(action_texts(action) for action in actions),
        tuple(partial_texts(action) for action in actions),
    )


def real_clips(found: Sequence[tuple[Path, str]], recognizer: Recognizer) -> CaptionedClips:
    """Read and encode labelled clips."""
    frames = (
        read_clip(
            path, frames=recognizer.config.frames, size=recognizer.size, limits=UNLIMITED
        ).frames_THWC
        for path, _ in found
    )
    features = encode(recognizer, tqdm(frames, desc="labelled clips", total=len(found)))
    texts = tuple(label_texts(label) for _, label in found)
    return CaptionedClips(features, texts, ((),) * len(texts))


@torch.no_grad()
def encode(recognizer: Recognizer, clips: Iterable[NDArray[np.uint8]]) -> Tensor:
    """Return frame features [C, T, E] of clips by the frozen image tower."""
    made = [
        recognizer.video.adapt_query(recognizer.trunk(frames_THWC[None]), [])[0]
        for frames_THWC in clips
    ]
    return torch.stack(made).float()


def joined(parts: Sequence[CaptionedClips]) -> CaptionedClips:
    """Put sets of captioned clips together."""
    return CaptionedClips(
        torch.cat([part.features_CTE for part in parts]),
        tuple(text for part in parts for text in part.texts),
        tuple(text for part in parts for text in part.partial),
    )
