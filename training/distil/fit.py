"""Distil a causal video tower from random weights, on targets that the teacher has answered.

    python -m training.distil.fit --targets DIR --held-out INDEX.csv --steps 20000 --out DIR

A killed run goes on when it is started again; a finished one goes on with more --steps. Targets may
still be in the making. It is watched on the classes that were left out of the targets. The
checkpoint has no text tower yet. The last line of stdout is JSON.
"""

import argparse
import io
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from model.backbones.packaged.causal import CausalNetwork, CausalTower
from model.build import build_recognizer
from model.checkpoint import save_checkpoint
from model.config import CausalConfig
from model.methods import compact_method
from training import cli
from training.distil.batches import Batches
from training.distil.run import VideoRecipe, VideoRun, train
from training.distil.selection import HeldOut, accuracies, read_held_out
from training.distil.space import Space, fit_space
from training.distil.student import Student, Weights, measure_scales, normalised
from training.distil.target_files import TargetFiles
from training.errors import InputError, refusal
from training.progress import progress
from training.run_folder import claim_folder, write_aside

SPACE = "space.pt"
SPACE_ROWS, SCALE_ROWS = 8192, 256  # that the space and the scales are measured on
REFRESH_STEPS = 50  # between two looks at which targets are finished
INNER_STATE = 2  # the stage of 8 x 8 cells imitates the teacher's 11 x 11
TOWER_OPTIONS = ("size", "features", "widths", "depths")
STEP_OPTIONS = {
    "pictures": "Pictures of a step.",
    "window": "Frames of each picture that are seen.",
    "clips": "Real and synthetic clips of a step.",
    "seed": "Seed of all that is drawn by chance.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """What the command line asks for."""

    targets: Path
    held_out: tuple[Path, ...]
    steps: int
    check_every: int
    max_seconds: float
    tower: CausalConfig
    recipe: VideoRecipe
    out: Path


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add, recipe, tower = parser.add_argument, VideoRecipe(), CausalConfig()
    add("--targets", type=Path, required=True, help="Folder that training.distil.targets fills.")
    add("--held-out", type=Path, nargs="+", default=[], help="index.csv files with unseen labels.")
    add("--steps", type=int, default=6000, help="Steps of the optimiser, those done included.")
    add("--check-every", type=int, default=500, help="Steps between two looks at unseen classes.")
    add("--max-seconds", type=float, default=float("inf"), help="Stop then; to be gone on with.")
    add("--out", type=Path, required=True, help="Folder of the state and of the checkpoint.")
    for name, text in STEP_OPTIONS.items():
        add(f"--{name}", type=int, default=getattr(recipe, name), help=text)
    add("--lr", type=float, default=recipe.lr, help="Rate of learning of matrices.")
    add("--size", type=int, default=tower.size, help="Pixels of a side of the student's frames.")
    add("--features", type=int, default=tower.features, help="Width of a frame's features.")
    for name in ("widths", "depths"):
        text = f"{name.capitalize()} of the four stages."
        add(f"--{name}", type=int, nargs=4, default=getattr(tower, name), help=text)


def read_values(options: argparse.Namespace) -> Values:
    """Return the values of parsed options.

    Raises:
        InputError: A value is out of range.
    """
    if options.steps < 1 or options.check_every < 1:
        raise InputError("--steps and --check-every are 1 or more; give such numbers.")
    try:
        recipe = VideoRecipe(
            lr=options.lr, **{name: getattr(options, name) for name in STEP_OPTIONS}
        )
    except ValidationError as error:
        raise refusal(error) from error
    sizes = {name: getattr(options, name) for name in TOWER_OPTIONS}
    try:
        tower = TypeAdapter(CausalConfig).validate_python(sizes)
    except ValidationError as error:
        raise refusal(error) from error
    return Values(
        targets=options.targets,
        held_out=tuple(options.held_out),
        steps=options.steps,
        check_every=options.check_every,
        max_seconds=options.max_seconds,
        tower=tower,
        recipe=recipe,
        out=options.out,
    )


def distil(values: Values) -> dict[str, object]:
    """Train and write the checkpoint; return what the last line tells.

    Raises:
        InputError: There are too few targets, or the folder belongs to another recipe.
    """
    files = TargetFiles.opened(values.targets)
    claim_folder(values.out, {"tower": asdict(values.tower), "recipe": asdict(values.recipe)})
    batches = Batches(files, values.recipe.seed)
    torch.manual_seed(values.recipe.seed)
    tower = CausalTower(values.tower)
    space = open_space(values.out, batches, values.tower.features)
    run = make_run(tower.model, values.tower, batches, space, values.recipe)
    watch = Watch(values, run)
    done = train(run, values.out, values.steps, pause=watch.pause, every=watch.step)
    found = watch.check()
    tower.model.load_state_dict(run.average)
    recognizer = build_recognizer(compact_method(values.tower), tower.eval(), None)
    save_checkpoint(recognizer, values.out, _card(run, values, found), half=True)
    return {"finished": done, "steps": run.step, **found, "out": values.out.name}


def make_run(
    network: nn.Module,
    tower: CausalConfig,
    batches: Batches,
    space: Space,
    recipe: VideoRecipe,
) -> VideoRun:
    """Put a run together: the student's heads, the scales, the weights of the loss."""
    frames = batches.files.frames
    sample = batches.draw(("clips", "pictures"), SCALE_ROWS, frames, 0)
    student = Student(network, INNER_STATE, tower.widths[INNER_STATE], measure_scales(sample))
    colours = (tower.mean, tower.std)
    reading = batches.files.reading()
    return VideoRun(student, batches, space, reading, recipe, Weights(), tower.size, colours)


def open_space(out: Path, batches: Batches, width: int) -> Space:
    """Return the run's space; it is found once, when the run begins.

    Raises:
        InputError: There are too few finished targets for so many directions.
    """
    file = out / SPACE
    if not file.is_file():
        hidden_CH = batches.hidden(SPACE_ROWS)
        if len(hidden_CH) <= width:
            raise InputError(
                f"{batches.files.folder} has {len(hidden_CH)} finished targets, and features of "
                f"width {width} need more; let training.distil.targets go on."
            )
        space = fit_space(hidden_CH, batches.files.reading(), width)
        buffer = io.BytesIO()
        torch.save(asdict(space), buffer)
        write_aside(file, buffer.getvalue())
    return Space(**torch.load(file, weights_only=True))


class Watch:
    """Tells how a run goes, looks at unseen classes, and says when to stop.

    Args:
        values: What the command line asks for.
        run: Is watched.
    """

    def __init__(self, values: Values, run: VideoRun) -> None:
        self.values, self.run = values, run
        self.network: CausalNetwork = CausalTower(values.tower).eval().model
        labels = run.batches.files.left_out()
        frames = run.batches.files.frames
        self.held: list[HeldOut] = read_held_out(values.held_out, labels, frames, values.tower.size)
        self.began = time.monotonic()
        self.bar = progress(total=values.steps, desc="video tower", unit="step")

    def step(self, parts: Mapping[str, float]) -> None:
        """Take note of a step."""
        run = self.run
        self.bar.update(run.step - self.bar.n)
        told = " ".join(f"{name}={part:.3f}" for name, part in parts.items())
        self.bar.set_postfix_str(told, refresh=False)
        if run.step % REFRESH_STEPS == 0:
            run.batches.refresh()
        if run.step % self.values.check_every == 0:
            cpu = time.process_time()
            line = {"step": run.step, "cpu_s": round(cpu), **self.check()}
            print(f"{line} {told}", file=sys.stderr, flush=True)

    def pause(self) -> bool:
        """Tell whether time is up."""
        return time.monotonic() - self.began > self.values.max_seconds

    def check(self) -> dict[str, float]:
        """Return the accuracy of the running average on unseen classes."""
        self.network.load_state_dict(self.run.average)
        found: dict[str, float] = {}
        for held in self.held:
            found |= accuracies(held, self.features)
        return found

    def features(self, frames_BTSSC: Tensor) -> Tensor:
        """Return features_BTE of frames."""
        pixels = normalised(frames_BTSSC, self.run.size, *self.run.colours)
        return self.network.read(self.network.states(pixels)[-1])


def _card(run: VideoRun, values: Values, found: Mapping[str, float]) -> str:
    """Describe how the checkpoint was made."""
    figures = ", ".join(f"{name} {value:.1f}" for name, value in found.items())
    left_out = ", ".join(run.batches.files.left_out())
    return (
        "# A causal video tower\n\n"
        "Distilled from MoViNet-A0-Stream, which learned Kinetics-600: classes that have a "
        "relative there are not new to it.\n\n"
        f"{run.step} steps of {values.recipe.pictures} pictures ({values.recipe.window} frames of "
        f"each) and {values.recipe.clips} clips, from random weights. Left out, with all that was "
        f"cut from the same recordings: {left_out}; test classes of an index.csv were not read. "
        f"Accuracy on what was left out, 5-way, in per cent: {figures or 'not measured'}.\n"
    )


def run(options: argparse.Namespace) -> dict[str, object]:
    """Run the command."""
    return distil(read_values(options))


COMMAND = cli.Command("distil.fit", __doc__, declare, run)
main = partial(cli.main, COMMAND)

if __name__ == "__main__":
    sys.exit(main())
