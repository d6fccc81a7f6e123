"""A data set of families: labels of one mover that differ in the order of three motions alone.

In a family's clips each motion begins from the same pose, and stages are unevenly long, so that the
frames of a clip in any order tell nothing of its label. All files follow from the values of an
`OrderSet`; writing goes on where a killed process stopped.
"""

import csv
import io
import itertools
import multiprocessing
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple, Self

import numpy as np
from pydantic import Field, NonNegativeInt, model_validator
from pydantic.dataclasses import dataclass

from training.data.descriptions_file import write_descriptions
from training.data.listings import COLUMNS, FAMILY, SPLITS, Split
from training.errors import InputError
from training.progress import progress
from training.run_folder import claim_folder, write_aside
from training.synthetic.actions import Action, split_of
from training.synthetic.motions import distinct_trios
from training.synthetic.rendering import FLOWING, SEPARATE, write_clip
from training.synthetic.shapes import COLOURS, SHAPES, TEXTURES

HELD_OUT_SHARE = 0.15  # of the families, for val and for test each
INDEX, DESCRIPTIONS = "index.csv", "descriptions.json"
FEW_CLIPS = 16  # for fewer no process is started
MOST_FRAMES = 10_000  # of a clip


class Family(NamedTuple):
    """Actions of one mover that differ in the order of their motions alone."""

    split: Split
    number: int  # in its split
    actions: tuple[Action, ...]

    @property
    def name(self) -> str:
        """Its name in lists."""
        return f"{self.split}-{self.number:03d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderSet:
    """A data set of families; all of its files follow from these values."""

    families: tuple[int, int, int]  # of train, val and test
    orders: tuple[int, int] = (6, 6)  # fewest and most labels of a family
    clips: Annotated[int, Field(ge=2)] = 20  # of each label
    carried: bool = False  # whether a motion begins where the last one ended
    seed: NonNegativeInt = 0
    size: Annotated[int, Field(ge=32, multiple_of=2)] = 224  # pixels
    seconds: float = 3.0
    fps: int = 8

    @model_validator(mode="after")
    def _check_frames(self) -> Self:
        if not 1 <= round(self.fps * self.seconds) <= MOST_FRAMES:
            raise ValueError(
                f"{self.seconds:g} s at {self.fps} frames a second make no clip; give 1 to "
                f"{MOST_FRAMES:,} frames"
            )
        return self

    def drawn(self) -> list[Family]:
        """Return its families.

        Raises:
            InputError: As `draw_families`.
        """
        counts = dict(zip(SPLITS, self.families, strict=True))
        return draw_families(counts, self.orders, self.seed, carried=self.carried)


class _Job(NamedTuple):
    """One clip that is to be written."""

    name: str  # of the file, in the folder
    family: str
    action: Action
    seed: tuple[int, ...]


def draw_families(
    counts: Mapping[Split, int], orders: tuple[int, int], seed: int, *, carried: bool
) -> list[Family]:
    """Draw families; those of a split have movers of their own, and trios of the split.

    Args:
        counts: How many of each split.
        orders: Fewest and most labels of a family, 2 to 6.
        seed: Of the choice; the first families of a split do not depend on how many follow.
        carried: Whether motions are carried on in the clips.

    Raises:
        InputError: There are fewer movers than families of a split, or `orders` is out of range.
    """
    low, high = orders
    if not 2 <= low <= high <= 6:
        raise InputError(f"{low} to {high} orders cannot be drawn; three motions have 2 to 6.")
    known = distinct_trios(carried=carried)
    families = []
    for place, split in enumerate(SPLITS):
        count = counts.get(split, 0)
        rng = np.random.default_rng([seed, place])
        movers = rng.permutation(list(itertools.product(COLOURS, TEXTURES, SHAPES)))
        if not 0 <= count <= len(movers):
            raise InputError(
                f"{count} families of {split} cannot be drawn; there are {len(movers)} movers."
            )
        members = rng.permutation([trio for trio in known if split_of(trio) == split])
        for number in range(count):
            colour, texture, shape = map(str, movers[number])
            every = list(itertools.permutations(map(str, members[number % len(members)])))
            chosen = rng.permutation(len(every))[: rng.integers(low, high + 1)]
            actions = tuple(Action(colour, texture, shape, every[order]) for order in chosen)
            families.append(Family(split, number, actions))
    return families


def divided(families: int) -> tuple[int, int, int]:
    """Divide a number of families among train, val and test: 70, 15 and 15 %, one or more each.

    Raises:
        InputError: There are fewer than three.
    """
    if families < 3:
        raise InputError(f"{families} families are too few for three splits; give 3 or more.")
    held_out = max(1, round(HELD_OUT_SHARE * families))
    return families - 2 * held_out, held_out, held_out


def write_order_set(out: Path, order_set: OrderSet, *, processes: int = 1) -> list[Family]:
    """Write clips and stage sentences and, when all are there, index.csv.

    Args:
        out: A folder; it belongs to one order set, and clips that are in it stay.
        order_set: What to write.
        processes: How many render at once.

    Raises:
        InputError: The families cannot be drawn, or the folder holds another order set or cannot be
            written.
    """
    families = order_set.drawn()
    claim_folder(out, {"order_set": asdict(order_set)})
    for family in families:
        (out / "clips" / family.name).mkdir(parents=True, exist_ok=True)
    jobs = [job for family in families for job in _jobs(family, order_set)]
    lacking = [job for job in jobs if not (out / job.name).is_file()]
    with progress(
        total=len(jobs), initial=len(jobs) - len(lacking), desc="clips", unit="clip"
    ) as bar:
        for _ in _write_jobs(out, lacking, order_set, processes):
            bar.update()
    stages = {action.label: action.stages for family in families for action in family.actions}
    write_descriptions(out / DESCRIPTIONS, stages)
    write_aside(out / INDEX, _index(jobs).encode())
    return families


def _jobs(family: Family, order_set: OrderSet) -> Iterator[_Job]:
    split = SPLITS.index(family.split)
    for place, action in enumerate(family.actions):
        for take in range(order_set.clips):
            name = f"clips/{family.name}/{place}_{take:03d}.mp4"
            seed = (order_set.seed, split, family.number, place, take)
            yield _Job(name, family.name, action, seed)


def _write_jobs(
    out: Path, jobs: Sequence[_Job], order_set: OrderSet, processes: int
) -> Iterator[None]:
    """Write clips, in processes of their own where several are wanted; yield after each."""
    write = partial(_write_job, out, order_set)
    if processes == 1 or len(jobs) < FEW_CLIPS:
        yield from map(write, jobs)
        return
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, spawned, initializer=_end_with_parent) as pool:
        yield from pool.map(write, jobs, chunksize=8)


def _end_with_parent() -> None:
    """End this process when a kill has ended the one that started it."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _write_job(out: Path, order_set: OrderSet, job: _Job) -> None:
    file = out / job.name
    aside = file.with_name(f".{file.name}.part")
    try:
        write_clip(
            aside,
            job.action,
            job.seed,
            fps=order_set.fps,
            seconds=order_set.seconds,
            size=order_set.size,
            course=FLOWING if order_set.carried else SEPARATE,
        )
        aside.replace(file)
    finally:
        aside.unlink(missing_ok=True)


def _index(jobs: Sequence[_Job]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*COLUMNS, FAMILY))
    for job in jobs:
        split = job.family.partition("-")[0]
        writer.writerow((job.name, job.action.label, split, job.name, job.family))
    return text.getvalue()
