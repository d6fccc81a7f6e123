"""Synthetic actions: a textured shape goes through three motions; labels and captions included.

    python -m training.synthetic --out DIR --families 60 --clips 20

writes a data set of labels that differ in the order of their motions alone. A family is one mover
and one trio of motions; its labels are orders of the trio. In a family's clips each motion begins
from the same pose, and stages are unevenly long, so that a clip's frames in any order tell nothing
of the label; `--carried` lets a motion begin where the last one ended, as in the demo. Goes on when
killed and started again. The last line is JSON.

Everything is a function of its seed. Trios of motions are split into train, val and test whatever
their order and shape, so that labels of `val` and `test` are new to a model trained on `train`.

Dimensions: T frames, H = W = size pixels, C = 3 colours (RGB).
"""

import argparse
import csv
import hashlib
import io
import itertools
import json
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from training.compact.run_folder import claim_folder, write_aside
from training.data.descriptions_file import write_descriptions
from training.data.listings import COLUMNS, SPLITS, Split
from training.errors import InputError
from training.synthetic.motions import MARGIN, MOTIONS, Change, follow
from training.synthetic.orders import distinct_trios
from training.synthetic.shapes import (
    COLOURS,
    SHAPES,
    TEXTURES,
    Array,
    Look,
    Pose,
    draw_background,
    draw_look,
    paint,
)

Trio = tuple[str, str, str]

HELD_OUT_SHARE = 0.15  # of the families, for val and for test each
INDEX, DESCRIPTIONS = "index.csv", "descriptions.json"
FEW = 16  # clips for which no process is started


@dataclass(frozen=True, slots=True)
class Action:
    """What moves, and how: a kind of shape and three motions in order."""

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
        """The three stages as sentences."""
        one, two, three = (f"The {self.mover} {name}." for name in self.motions)
        return one, two, three

    @property
    def split(self) -> Split:
        """Which split the action's trio of motions belongs to."""
        return split_of(self.motions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How the three stages of a clip follow one another."""

    carried: bool = True  # a motion begins where the last one ended; else as the clip began
    uneven: float = 0.0  # a stage's length is drawn from 1 +- this, in shares of a third


FLOWING = Course()
# Even stages of 3, 2 and 3 of 8 frames would tell which motion is the middle one.
SEPARATE = Course(carried=False, uneven=0.3)


@dataclass(frozen=True, slots=True)
class Family:
    """Actions of one mover that differ in the order of their motions alone."""

    split: Split
    number: int  # in its split
    actions: tuple[Action, ...]

    @property
    def name(self) -> str:
        """How lists call it."""
        return f"{self.split}-{self.number:03d}"


def split_of(motions: Trio) -> Split:
    """Return the split of a trio: about 70, 15 and 15 % of all, whatever the order."""
    digest = hashlib.sha256(" ".join(sorted(motions)).encode()).digest()[0]
    return "train" if digest < 179 else "val" if digest < 218 else "test"


def trios(split: Split) -> list[Trio]:
    """Return the unordered trios of a split."""
    every = itertools.combinations(MOTIONS, 3)
    return [trio for trio in every if split_of(trio) == split]


def draw_action(rng: np.random.Generator, split: Split) -> Action:
    """Draw any action of a split."""
    members = trios(split)
    first, second, third = rng.permutation(members[rng.integers(len(members))])
    colour, texture, shape = (str(rng.choice(list(kind))) for kind in (COLOURS, TEXTURES, SHAPES))
    return Action(colour, texture, shape, (str(first), str(second), str(third)))


def demo_actions(count: int, seed: int, split: Split = "test") -> list[Action]:
    """Return actions that all differ in colour, shape and motions.

    Args:
        count: How many; at most the number of colours.
        seed: The choice.
        split: Where the trios come from.
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


def draw_families(
    counts: Mapping[Split, int], orders: tuple[int, int], seed: int, *, carried: bool
) -> list[Family]:
    """Draw families; those of a split have movers of their own, and trios of the split.

    Args:
        counts: How many for each split.
        orders: Fewest and most labels of a family, 2 to 6.
        seed: The choice; the first families of a split do not depend on how many follow.
        carried: Whether motions are carried on in the clips.

    Raises:
        InputError: more families of a split than there are movers, or other numbers of orders.
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


def divided(families: int) -> dict[Split, int]:
    """Divide a number of families among the splits, 70, 15 and 15 %, one or more each.

    Raises:
        InputError: fewer than three.
    """
    if families < 3:
        raise InputError(f"{families} families are too few for three splits; give 3 or more.")
    held_out = max(1, round(HELD_OUT_SHARE * families))
    return {"train": families - 2 * held_out, "val": held_out, "test": held_out}


def _shuffled(trio: Trio, rng: np.random.Generator) -> Trio:
    first, second, third = rng.permutation(trio)
    return str(first), str(second), str(third)


def render_clip(
    action: Action, rng: np.random.Generator, frames: int, size: int, course: Course = FLOWING
) -> NDArray[np.uint8]:
    """Render a clip [T, H, W, C], each frame from the centre of one of T equal spans.

    Args:
        action: What moves, and how.
        rng: Draws colours, background, place, size, angle, the camera's drift, and the lengths of
            stages where they are uneven.
        frames: T.
        size: Pixels.
        course: How the stages follow one another.
    """
    look = draw_look(action.colour, action.texture, action.shape, rng)
    wide = size + size // 8
    background = draw_background(wide, rng)
    times = _times(frames, course.uneven, rng)
    changes = [follow(action.motions, at, carried=course.carried) for at in times]
    poses = _place(changes, action.motions, rng, carried=course.carried)
    drift = rng.uniform(0, wide - size, (2, 2))
    clip = np.empty((frames, size, size, 3), np.uint8)
    for index, (change, pose) in enumerate(zip(changes, poses, strict=True)):
        top, left = (drift[0] + (drift[1] - drift[0]) * index / frames).astype(int)
        canvas = background[top : top + size, left : left + size].copy()
        _paint_moment(canvas, look, pose, change)
        clip[index] = np.round(canvas * 255)
    return clip


def _times(frames: int, uneven: float, rng: np.random.Generator) -> list[float]:
    """Return where frames fall in a course of three equal stages, themselves drawn uneven."""
    even = [(index + 0.5) / frames for index in range(frames)]
    if not uneven:
        return even
    lengths = rng.uniform(1 - uneven, 1 + uneven, 3)
    ends = np.cumsum(lengths) / lengths.sum()
    return np.interp(even, [0, *ends], [0, 1 / 3, 2 / 3, 1]).tolist()


def _paint_moment(canvas: Array, look: Look, pose: Pose, change: Change) -> None:
    paint(canvas, look, pose)
    if change.visitor is not None:
        x = pose.x + change.visitor * pose.radius
        paint(canvas, look, Pose(x, pose.y, pose.radius, -pose.angle))


def _place(
    changes: list[Change], motions: Trio, rng: np.random.Generator, *, carried: bool
) -> list[Pose]:
    """Draw a start so that the whole path stays inside the picture, smaller where it must."""
    dense = [follow(motions, at, carried=carried) for at in np.linspace(0, 1, 61)]
    room = max(change.growth for change in dense)
    radius = rng.uniform(0.16, 0.21) * np.exp(-max(room - 0.4, 0) * 0.7)
    largest = radius * np.exp(room) + MARGIN
    starts = []
    for axis in ("x", "y"):
        path = np.array([getattr(change, axis) for change in dense])
        low, high = largest - path.min(), 1 - largest - path.max()
        if axis == "x" and "collides" in motions:
            high -= 2 * largest  # so that the visitor is seen when they meet
        starts.append(rng.uniform(low, high) if low < high else (low + high) / 2)
    angle = rng.uniform(-0.3, 0.3)
    return [
        Pose(
            x=starts[0] + change.x,
            y=starts[1] + change.y,
            radius=float(radius * np.exp(change.growth)),
            angle=float(angle + 2 * np.pi * change.turns),
            opacity=change.opacity,
        )
        for change in changes
    ]


def write_clip(
    path: Path,
    action: Action,
    seed: int | Sequence[int],
    *,
    fps: int = 12,
    seconds: float = 3.0,
    size: int = 240,
    course: Course = FLOWING,
) -> None:
    """Write a clip as an H.264 mp4 file.

    Args:
        path: Where; the folder exists.
        action: What moves, and how.
        seed: Of everything that is drawn.
        fps: Frames a second.
        seconds: Length.
        size: Pixels, even.
        course: How the stages follow one another.
    """
    import av  # lazily: rendering needs no codec

    frames = round(fps * seconds)
    clip = render_clip(action, np.random.default_rng(seed), frames, size, course)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps))
        stream.width, stream.height, stream.pix_fmt = size, size, "yuv420p"
        # x264 does not always choose the same B frames again; without them bytes repeat.
        stream.options = {"crf": "20", "preset": "veryfast", "threads": "1", "bf": "0"}
        for picture in clip:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderSet:
    """A data set of families; all of its files follow from these values."""

    families: tuple[int, int, int]  # of train, val and test
    orders: tuple[int, int] = (6, 6)  # fewest and most labels of a family
    clips: int = 20  # of each label
    carried: bool = False
    seed: int = 0
    size: int = 224  # pixels
    seconds: float = 3.0
    fps: int = 8

    def check(self) -> None:
        """Refuse numbers that make no clip.

        Raises:
            InputError: which, and what fits.
        """
        if self.clips < 2:
            raise InputError(f"{self.clips} clips a label make no episode; give 2 or more.")
        if self.size < 32 or self.size % 2:
            raise InputError(f"The size is {self.size} pixels; give an even number from 32 on.")
        if not 1 <= round(self.fps * self.seconds) <= 10_000:
            raise InputError(
                f"{self.seconds:g} s at {self.fps} frames a second make no clip; give 1 to 10,000 "
                "frames."
            )
        if self.seed < 0:
            raise InputError(f"The seed is {self.seed}; give 0 or more.")

    def drawn(self) -> list[Family]:
        """Return its families."""
        counts = dict(zip(SPLITS, self.families, strict=True))
        return draw_families(counts, self.orders, self.seed, carried=self.carried)


@dataclass(frozen=True, slots=True)
class _Job:
    """One clip that is to be written."""

    name: str  # of the file, in the folder
    family: str
    action: Action
    seed: tuple[int, ...]


def write_order_set(out: Path, order_set: OrderSet, *, processes: int = 1) -> list[Family]:
    """Write clips, stage texts and, when all are there, index.csv.

    Args:
        out: A folder; it belongs to one order set, and clips that are in it stay.
        order_set: What to write.
        processes: That render at once.

    Raises:
        InputError: values that do not fit, or a folder of other values or that cannot be written.
    """
    order_set.check()
    families = order_set.drawn()
    claim_folder(out, {"order_set": asdict(order_set)})
    for family in families:
        (out / "clips" / family.name).mkdir(parents=True, exist_ok=True)
    jobs = [job for family in families for job in _jobs(family, order_set)]
    lacking = [job for job in jobs if not (out / job.name).is_file()]
    with tqdm(total=len(jobs), initial=len(jobs) - len(lacking), desc="clips", unit="clip") as bar:
        for _ in _written(out, lacking, order_set, processes):
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


def _written(
    out: Path, jobs: Sequence[_Job], order_set: OrderSet, processes: int
) -> Iterator[None]:
    """Write clips, in processes of their own where several are wanted."""
    write = partial(_write_job, out, order_set)
    if processes == 1 or len(jobs) < FEW:
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
    writer.writerow((*COLUMNS, "family"))
    for job in jobs:
        split = job.family.partition("-")[0]
        writer.writerow((job.name, job.action.label, split, job.name, job.family))
    return text.getvalue()


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    usual = OrderSet(families=(1, 1, 1))
    parser = argparse.ArgumentParser(
        prog="python -m training.synthetic",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the data set")
    count = parser.add_mutually_exclusive_group(required=True)
    count.add_argument("--families", type=int, help="in all: 70, 15 and 15 %% of the splits")
    count.add_argument(
        "--split-families", type=int, nargs=3, metavar=("TRAIN", "VAL", "TEST"), help="or of each"
    )
    parser.add_argument("--orders", default="6", help="labels of a family: 6, or a range 5..6")
    parser.add_argument("--clips", type=int, default=usual.clips, help="of each label")
    parser.add_argument("--carried", action="store_true", help="motions begin where others ended")
    parser.add_argument("--seed", type=int, default=usual.seed)
    parser.add_argument("--size", type=int, default=usual.size, help="pixels")
    parser.add_argument("--seconds", type=float, default=usual.seconds, help="of a clip")
    parser.add_argument("--fps", type=int, default=usual.fps, help="frames a second")
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--processes", type=int, default=cores, help="that render at once")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 2 for input that does not fit."""
    options = parse(arguments)
    start = time.monotonic()
    try:
        order_set = _order_set(options)
        families = write_order_set(options.out, order_set, processes=max(1, options.processes))
    except InputError as error:
        print(f"synthetic: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"synthetic: a clip cannot be written ({error}); free its disk.", file=sys.stderr)
        return 2
    labels = sum(len(family.actions) for family in families)
    result = {
        "families": {s: sum(f.split == s for f in families) for s in SPLITS},
        "labels": labels,
        "clips": labels * order_set.clips,
        "carried": order_set.carried,
        "seconds": round(time.monotonic() - start, 1),
        "out": options.out.name,
    }
    print(json.dumps(result))
    return 0


def _order_set(options: argparse.Namespace) -> OrderSet:
    low, _, high = options.orders.partition("..")
    try:
        orders = (int(low), int(high or low))
    except ValueError as error:
        raise InputError(f"--orders is {options.orders!r}; give 6, or a range 5..6.") from error
    counts = options.split_families or divided(options.families).values()
    train, val, test = counts
    return OrderSet(
        families=(train, val, test),
        orders=orders,
        clips=options.clips,
        carried=options.carried,
        seed=options.seed,
        size=options.size,
        seconds=options.seconds,
        fps=options.fps,
    )
