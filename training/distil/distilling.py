"""A student from its start to its checkpoint, watched on classes that it never saw."""

import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from model.assembly.recognizer import build_recognizer
from model.backbones.packaged.causal import CausalNetwork, CausalTower
from model.checkpoint import save_checkpoint
from model.config.towers import CausalConfig
from model.methods import compact_method
from training.distil.batches import Batches
from training.distil.recipe import StudentJob, VideoRecipe
from training.distil.run import VideoRun, train
from training.distil.selection import HeldOut, accuracies, read_held_out
from training.distil.space import Space, fit_space
from training.distil.student import Student, Weights, measure_scales, normalised
from training.distil.target_files import TargetFiles
from training.errors import InputError
from training.progress import progress
from training.run_folder import claim_folder, write_state

SPACE = "space.pt"
SPACE_ROWS, SCALE_ROWS = 8192, 256  # that the space and the scales are measured on
REFRESH_STEPS = 50  # between two looks at which targets are finished
INNER_STATE = 2  # the stage of 8 x 8 cells imitates the teacher's 11 x 11


def distil(job: StudentJob) -> dict[str, object]:
    """Train and write the checkpoint; return what the last line tells.

    Raises:
        InputError: There are too few targets, or the folder belongs to another recipe.
    """
    files = TargetFiles.opened(job.targets)
    claim_folder(job.out, {"tower": asdict(job.tower), "recipe": asdict(job.recipe)})
    batches = Batches(files, job.recipe.seed)
    torch.manual_seed(job.recipe.seed)
    tower = CausalTower(job.tower)
    space = open_space(job.out, batches, job.tower.features)
    run = make_run(tower.model, job.tower, batches, space, job.recipe)
    watch = Watch(job, run)
    done = train(run, job.out, job.steps, pause=watch.pause, every=watch.step)
    found = watch.check()
    tower.model.load_state_dict(run.average)
    recognizer = build_recognizer(compact_method(job.tower), tower.eval(), None)
    save_checkpoint(recognizer, job.out, _card(run, job, found), half=True)
    return {"finished": done, "steps": run.step, **found, "out": job.out.name}


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
        write_state(file, asdict(space))
    return Space(**torch.load(file, weights_only=True))


class Watch:
    """Tells how a run goes, looks at unseen classes, and says when to stop.

    Args:
        job: Which student is distilled.
        run: Is watched.
    """

    def __init__(self, job: StudentJob, run: VideoRun) -> None:
        self.job, self.run = job, run
        self.network: CausalNetwork = CausalTower(job.tower).eval().model
        labels = run.batches.files.left_out()
        frames = run.batches.files.frames
        self.held: list[HeldOut] = read_held_out(job.held_out, labels, frames, job.tower.size)
        self.began = time.monotonic()
        self.bar = progress(total=job.steps, desc="video tower", unit="step")

    def step(self, parts: Mapping[str, float]) -> None:
        """Take note of a step."""
        run = self.run
        self.bar.update(run.step - self.bar.n)
        told = " ".join(f"{name}={part:.3f}" for name, part in parts.items())
        self.bar.set_postfix_str(told, refresh=False)
        if run.step % REFRESH_STEPS == 0:
            run.batches.refresh()
        if run.step % self.job.check_every == 0:
            cpu = time.process_time()
            line = {"step": run.step, "cpu_s": round(cpu), **self.check()}
            print(f"{line} {told}", file=sys.stderr, flush=True)

    def pause(self) -> bool:
        """Tell whether time is up."""
        return time.monotonic() - self.began > self.job.max_seconds

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


def _card(run: VideoRun, job: StudentJob, found: Mapping[str, float]) -> str:
    """Describe how the checkpoint was made."""
    figures = ", ".join(f"{name} {value:.1f}" for name, value in found.items())
    left_out = ", ".join(run.batches.files.left_out())
    return (
        "# A causal video tower\n\n"
        "Distilled from MoViNet-A0-Stream, which learned Kinetics-600: classes that have a "
        "relative there are not new to it.\n\n"
        f"{run.step} steps of {job.recipe.pictures} pictures ({job.recipe.window} frames of "
        f"each) and {job.recipe.clips} clips, from random weights. Left out, with all that was "
        f"cut from the same recordings: {left_out}; test classes of an index.csv were not read. "
        f"Accuracy on what was left out, 5-way, in per cent: {figures or 'not measured'}.\n"
    )
