"""Synthetic actions: a textured shape goes through three motions, with a label and sentences.

Trios of motions are split into train, val and test whatever their order and whatever moves, so that
the labels of `val` and `test` are new to a model trained on `train`. What is drawn is a function of
its seed.
"""

import hashlib
import itertools
from dataclasses import dataclass

import numpy as np

from training.data.listings import Split
from training.synthetic.motions import MOTIONS, Trio
from training.synthetic.shapes import COLOURS, SHAPES, TEXTURES


@dataclass(frozen=True, slots=True)
class Action:
    """What moves, and its three motions in order."""

    colour: str
    texture: str
    shape: str
    motions: Trio

    @property
    def mover(self) -> str:
        """What moves, in words."""
        return f"{self.colour} {self.texture} {self.shape}"

    @property
    def label(self) -> str:
        """The action as a label."""
        first, second, third = self.motions
        return f"{self.mover} {first} then {second} then {third}"

    @property
    def stages(self) -> tuple[str, str, str]:
        """One sentence for each of the three stages."""
        one, two, three = (f"The {self.mover} {name}." for name in self.motions)
        return one, two, three

    @property
    def split(self) -> Split:
        """The split of the action's trio of motions."""
        return split_of(self.motions)


def split_of(motions: Trio) -> Split:
    """Return the split of a trio: about 70, 15 and 15 % of all trios, whatever the order."""
    digest = hashlib.sha256(" ".join(sorted(motions)).encode()).digest()[0]
    return "train" if digest < 179 else "val" if digest < 218 else "test"


def trios(split: Split) -> list[Trio]:
    """Return the unordered trios of a split."""
    return [trio for trio in itertools.combinations(MOTIONS, 3) if split_of(trio) == split]


def draw_action(rng: np.random.Generator, split: Split) -> Action:
    """Draw any action of a split."""
    members = trios(split)
    motions = _shuffled(members[rng.integers(len(members))], rng)
    colour, texture, shape = (str(rng.choice(list(kind))) for kind in (COLOURS, TEXTURES, SHAPES))
    return Action(colour, texture, shape, motions)


def demo_actions(count: int, seed: int, split: Split = "test") -> list[Action]:
    """Return actions that all differ in colour, shape and motions.

    Args:
        count: How many; at most the number of colours.
        seed: Of the choice.
        split: Of the trios.
    """
    if not 1 <= count <= len(COLOURS):
        raise ValueError(f"count is {count}; demo actions number 1 to {len(COLOURS)}.")
    rng = np.random.default_rng(seed)
    colours = rng.permutation(list(COLOURS))[:count]
    shapes = rng.permutation(list(SHAPES))[:count]
    textures = np.concatenate([rng.permutation(list(TEXTURES)) for _ in range(2)])[:count]
    members = trios(split)
    chosen = rng.permutation(len(members))[:count]
    return [
        Action(str(colour), str(texture), str(shape), _shuffled(members[index], rng))
        for colour, texture, shape, index in zip(colours, textures, shapes, chosen, strict=True)
    ]


def _shuffled(trio: Trio, rng: np.random.Generator) -> Trio:
    first, second, third = map(str, rng.permutation(trio))
    return first, second, third
