"""Meta-train a method on the train classes of a data set; the val classes choose the weights."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

from model.calibration.fitted import write_calibration
from model.checkpoint import load_recognizer
from model.recognizer import Recognizer
from training.data.datasets import DataChoice, Dataset
from training.data.descriptions_file import stage_texts
from training.data.episodes import CALIBRATING
from training.errors import InputError
from training.evaluation.fitting import fit_calibration, mean_feature
from training.evaluation.pictures import draw_curve
from training.evaluation.scoring import EpisodeScorer
from training.features.frames import HeldFrames
from training.features.readable import readable_splits
from training.features.tokens import (
    TokenSource,
    TrunkTokens,
    cache_name,
    trunk_fingerprint,
)
from training.features.trunk_cache import open_trunk_cache, trains_trunk
from training.meta.card import card, counted, environment, warn_if_few
from training.meta.choice import MethodChoice
from training.meta.learner import Learner
from training.meta.losses.names import check_losses
from training.meta.methods import open_method, start_from_adapters
from training.meta.optimizer import trained_parameters
from training.meta.plans import augmentation_of, draws_name, training_episodes, val_samplers
from training.meta.processes import (
    Processes,
    half_precision,
    join_processes,
    leave_processes,
    own_device,
)
from training.meta.recipe import FitRecipe
from training.meta.run import FitRun, Validator
from training.run_folder import claim_folder, write_aside

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class FitJob:
    """One training.

    Args:
        method: What is trained.
        recipe: How.
        data: On which clips.
        out: The run's folder, which then is a checkpoint; a run that was killed goes on in it.
        start: Checkpoint whose adapters learn on.
        descriptions: File of stage texts; None takes the template's.
        with_text: Whether text takes part; else the video score is trained alone.
        cache: Where trunk caches lie; None takes `trunk-cache` beside `out`.
        cached: Whether to use them; else, and where the trunk learns, it runs at every step.
        stored_half: Whether the checkpoint is stored in 16 bits.
        calibrated: Whether the checkpoint gets a calibration, as one that is served should.
        device: `cpu` or `cuda`; of several processes each has its own.
        precision: `auto`, `bf16` or `fp32`.
    """

    method: MethodChoice
    recipe: FitRecipe
    data: DataChoice
    out: Path
    start: Path | None = None
    descriptions: Path | None = None
    with_text: bool = True
    cache: Path | None = None
    cached: bool = True
    stored_half: bool = False
    calibrated: bool = True
    device: str = "cpu"
    precision: str = "auto"

    def __post_init__(self) -> None:
        check_losses(self.recipe)

    def claim(self, start: str | None) -> dict[str, object]:
        """Return what a folder belongs to; where files lie on this machine does not matter.

        Args:
            start: Fingerprint of the checkpoint whose adapters learn on.
        """
        return {
            "method": self.method.claim(),
            "data": "+".join(data.name for data in self.data.data),
            "descriptions": self.descriptions.name if self.descriptions else None,
            "text": self.with_text,
            "recipe": self.recipe.claim(),
            "start": start,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class FitResult:
    """What a training ended with; accuracies are those of the val classes, percent."""

    steps: int
    best_step: int
    best_val: float
    untrained_val: float
    trained_parameters: int
    seconds: float
    out: str


def fit(job: FitJob) -> FitResult | None:
    """Train; return the result in the leading process, None in the others.

    Raises:
        InputError: Something of the job does not fit, or the loss is not a number any more.
        KshotError: The backbone, a checkpoint or a clip cannot be used.
    """
    device = own_device(job.device)
    processes = join_processes(device)
    try:
        return _Training(job, device, processes).run()
    finally:
        leave_processes(processes)


class _Training:
    """A job in one of its processes."""

    def __init__(self, job: FitJob, device: torch.device, processes: Processes) -> None:
        self.job, self.device, self.processes = job, device, processes
        self.began = time.monotonic()
        self.half = half_precision(job.precision, device.type)
        self.frames: dict[str, HeldFrames] = {}  # of each split, where no cache is used

    def run(self) -> FitResult | None:
        """Open everything, train, and write what the folder holds besides the checkpoint."""
        job, processes = self.job, self.processes
        torch.manual_seed(job.recipe.seed)  # adapters start at random below their zero
        recognizer = open_method(job.method, job.out.name)
        start = None
        if job.start is not None:
            start = start_from_adapters(recognizer, job.start, job.method.backbone_weights)
        recognizer.to(self.device)
        data = self._leader_first(self.readable)
        self.tell(f"{data.name}: {counted(data)}")
        self.tell(str(job.recipe))
        warn_if_few(data, self.tell)
        if processes.leads:
            claim_folder(job.out, job.claim(start))
        learner, validator = self.open(recognizer, data)
        describe = partial(card, data, job.method, job.recipe)
        run = FitRun(learner, validator, job.out, describe, half=job.stored_half)
        history = run.run(tell=self.tell)
        if not processes.leads:
            return None
        if job.calibrated:
            self.calibrate(data, validator, learner.passes.source)
        draw_curve(history.rows, job.out / "curve.png")
        made_with = json.dumps(environment(self.device))
        write_aside(job.out / "environment.json", made_with.encode())
        return FitResult(
            steps=learner.steps_done,
            best_step=history.best_step,
            best_val=round(history.best, 2),
            untrained_val=round(history.untrained, 2),
            trained_parameters=sum(p.numel() for p in trained_parameters(recognizer).values()),
            seconds=round(time.monotonic() - self.began, 1),
            out=job.out.name,
        )

    def readable(self) -> Dataset:
        """Open the data, without the clips that cannot be read."""
        cache = self.cache if self.job.cached else None
        return readable_splits(self.job.data.open(), ("train", "val"), cache, self.tell)

    @property
    def cache(self) -> Path:
        """Where trunk caches lie."""
        return self.job.cache or self.job.out.parent / "trunk-cache"

    def calibrate(self, data: Dataset, validator: Validator, train: TokenSource) -> None:
        """Fit what turns the best weights' scores into probabilities, on the val classes."""
        job, clips = self.job, data.split("val")
        best = load_recognizer(str(job.out), weights=job.method.backbone_weights).to(self.device)
        val = validator.source
        if trains_trunk(best):  # its trunk is not the last step's
            train, val = (self.source(best, data, split) for split in ("train", "val"))
        scorer = EpisodeScorer(best, val, len(clips), stages=validator.stages, half=self.half)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            mean_E = mean_feature(best, train, data.split("train"))
        plan = replace(CALIBRATING, episodes=job.recipe.val_episodes)
        source = f"{data.name}, val classes"
        try:
            found = fit_calibration(best, scorer, clips, mean_E, plan=plan, source=source)
        except InputError as error:
            self.tell(f"Not calibrated, so that a default serves: {error}")
        else:
            write_calibration(job.out, found)

    def open(self, recognizer: Recognizer, data: Dataset) -> tuple[Learner, Validator]:
        """Return what trains and what validates, with their clips and episodes."""
        job, recipe = self.job, self.job.recipe
        train, val = (self.source(recognizer, data, split) for split in ("train", "val"))
        stages = None
        if job.with_text:
            count = recognizer.config.stages
            stages = stage_texts(data, ("train", "val"), job.descriptions, count)
        learner = Learner(
            recognizer,
            recipe,
            training_episodes(data.split("train"), recipe, self.tell),
            train,
            stages=stages,
            processes=self.processes,
            half=self.half,
        )
        validator = Validator(
            source=val,
            clips=len(data.split("val")),
            samplers=val_samplers(data.split("val"), recipe, self.tell),
            episodes=recipe.val_episodes,
            stages=stages,
            half=self.half,
        )
        return learner, validator

    def source(self, recognizer: Recognizer, data: Dataset, split: str) -> TokenSource:
        """Open the trunk cache of a split, built by the leading process; or run at each step."""
        job, clips = self.job, data.split(split)
        draws = job.recipe.views if split == "train" else 0
        augmentation = augmentation_of(job.recipe)
        if not job.cached or trains_trunk(recognizer):
            held = HeldFrames(
                clips,
                frames=recognizer.config.frames,
                size=recognizer.size,
                squash=recognizer.squash,
                augmentation=augmentation,
            )
            return TrunkTokens(recognizer, self.frames.setdefault(split, held))
        drawn = draws_name(job.recipe) if draws else ""
        name, trunk = f"{data.name}-{split}{drawn}", trunk_fingerprint(recognizer)
        open_cache = partial(
            open_trunk_cache,
            self.cache / cache_name(name, trunk, half=self.half),
            recognizer,
            clips,
            draws=draws,
            half=self.half,
            augmentation=augmentation,
        )
        return self._leader_first(open_cache)

    def _leader_first(self, open_it: Callable[[], T]) -> T:
        """Let the leading process build what is kept on disk, and the others then open it."""
        for turn in (True, False):
            if self.processes.leads == turn:
                opened = open_it()
            self.processes.wait()
        return opened

    def tell(self, line: str) -> None:
        """Print a line for people, once."""
        if self.processes.leads:
            print(line, file=sys.stderr)
