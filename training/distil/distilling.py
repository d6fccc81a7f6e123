"""A student from its start to its checkpoint, watched on classes that it never saw."""

import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from model.assembly.recognizer import build_recognizer
from model.backbones.packaged.causal import CausalNetwork, CausalTower
from model.checkpoint import save_checkpoint
from model.methods import compact_method
from training.distil.beginning import SPACE_BATCHES, begin
from training.distil.imitation import Lesson
from training.distil.recipe import StudentJob
from training.distil.run import VideoRun, train
from training.distil.selection import HeldOut, accuracies, read_held_out
from training.distil.sources import clips_of, pictures_of
from training.distil.space import Space
from training.distil.teacher import VideoTeacher, open_video_teacher
from training.distil.views import Views
from training.progress import progress
from training.run_folder import claim_folder, write_state

LESSON = "lesson.pt"


def distil(job: StudentJob) -> dict[str, object]:
    """Train and write the checkpoint; return what the last line tells.

    Raises:
        InputError: There is nothing to learn from, or the folder belongs to another recipe.
    """
    recipe = job.recipe
    views = Views(
        clips_of(job.clips, job.leave_out), pictures_of(job.pictures), job.tower.size, recipe
    )
    teacher = open_video_teacher(job.teacher)
    asked = {"leave_out": list(job.leave_out), "tower": asdict(job.tower)}
    claim_folder(job.out, asked | {"recipe": asdict(recipe)})
    torch.manual_seed(recipe.seed)
    tower = CausalTower(job.tower)
    lesson = open_lesson(job.out, tower.model, teacher, views)
    run = VideoRun(tower.model, lesson, views, recipe)
    watch = Watch(job, run)
    done = train(run, job.out, job.steps, pause=watch.pause, every=watch.step)
    found = watch.check()
    config = replace(job.tower, size=job.served)
    served = CausalTower(config).eval()
    served.model.load_state_dict(run.average)
    recognizer = build_recognizer(compact_method(config), served, None)
    save_checkpoint(recognizer, job.out, _card(run, job, found), half=True)
    return {"finished": done, "steps": run.step, **found, "out": job.out.name}


def open_lesson(out: Path, network: CausalNetwork, teacher: VideoTeacher, views: Views) -> Lesson:
    """Return the run's lesson; it is measured once, when the run begins.

    Raises:
        InputError: The network's cells are not shaped as the teacher's, or clips are too few.
    """
    file = out / LESSON
    if not file.is_file():
        lesson = begin(network, teacher, views, SPACE_BATCHES)
        measured = {"scales": lesson.scales, "state_scales": lesson.state_scales}
        kept = {"network": network.state_dict(), "space": asdict(lesson.space), **measured}
        write_state(file, kept)
    kept = torch.load(file, weights_only=True)
    network.load_state_dict(kept["network"])
    space = Space(**kept["space"])
    return Lesson(kept["scales"], kept["state_scales"], space, teacher)


class Watch:
    """Tells how a run goes, looks at unseen classes, and says when to stop.

    Args:
        job: Which student is distilled.
        run: Is watched.
    """

    def __init__(self, job: StudentJob, run: VideoRun) -> None:
        self.job, self.run = job, run
        self.network: CausalNetwork = CausalTower(job.tower).eval().model
        self.held: list[HeldOut] = []
        if job.leave_out:
            frames = job.recipe.frames
            self.held = read_held_out(job.clips, job.leave_out, frames, job.served)
        self.began = time.monotonic()
        self.bar = progress(total=job.steps, desc="video tower", unit="step")

    def step(self, parts: Mapping[str, float]) -> None:
        """Take note of a step."""
        run = self.run
        self.bar.update(run.step - self.bar.n)
        told = " ".join(f"{name}={part:.3f}" for name, part in parts.items())
        self.bar.set_postfix_str(told, refresh=False)
        if run.step % self.job.check_every == 0:
            line = {"step": run.step, "cpu_s": round(time.process_time()), **self.check()}
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
        """Return features_BTE of uint8 frames."""
        features: Tensor = self.network(frames_BTSSC.permute(0, 1, 4, 2, 3).float() / 255)
        return features


def _card(run: VideoRun, job: StudentJob, found: Mapping[str, float]) -> str:
    """Describe how the checkpoint was made."""
    recipe = job.recipe
    figures = ", ".join(f"{name} {value:.1f}" for name, value in found.items())
    batch = f"{recipe.pictures} pictures, {recipe.clips} clips and {recipe.synthetic} drawn motions"
    return (
        "# A causal video tower\n\n"
        "Distilled from MoViNet-A0-Stream, which learned Kinetics-600: classes that have a "
        "relative there are not new to it.\n\n"
        f"{run.step} steps of {batch}, each block alone in the first {recipe.apart}, from random "
        "weights. Left out, with all that was cut from the same recordings: "
        f"{', '.join(job.leave_out) or 'nothing'}; test classes of an index.csv were not read. "
        f"Accuracy on what was left out, 5-way, in per cent: {figures or 'not measured'}.\n"
    )
