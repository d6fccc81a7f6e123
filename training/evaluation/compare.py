"""Methods compared at an equal budget: rows x seeds trained, chosen on val, read once on test.

Each cell is a training in `OUT/<row>-seed<k>`. After the last seed of a row, the weights that val
chose are asked on val and on test, once, and the row is kept in `OUT/<row>.json`. What is finished
is not done again, and a killed cell goes on where it was.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from model.config.method import MethodConfig
from training.data.datasets import DataChoice, Dataset
from training.data.episodes import DrawnEpisodes
from training.errors import InputError
from training.evaluation.examination import Examination, Subject, evaluate
from training.evaluation.kept import plain, read_result, step_seconds, write_result
from training.evaluation.matrix import Matrix, Row
from training.evaluation.questions import ExaminationJob, open_examination
from training.evaluation.results import SPLITS, compared, compared_row, markdown, seeds_of
from training.meta.card import environment
from training.meta.fit import FitJob, fit
from training.meta.methods import open_method
from training.meta.processes import half_precision
from training.meta.run import HISTORY
from training.report.page import write_report
from training.run_folder import write_aside

SEED = 0  # of the evaluation's episodes, the same for all cells
RESULT = "result.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareJob:
    """One comparison.

    Args:
        matrix: Rows, seeds, budget and evaluation.
        data: On which clips.
        out: Folder of cells, rows and tables.
        weights: File of the weights of each backbone that is not to come from the hub.
        descriptions: File of stage texts; None takes the template's.
        cache: Where trunk caches lie; None takes `trunk-cache` in `out`.
        device: `cpu` or `cuda`.
        precision: `auto`, `bf16` or `fp32`.
        command: The command line, for the report.
    """

    matrix: Matrix
    data: DataChoice
    out: Path
    weights: Mapping[str, Path] = field(default_factory=dict)
    descriptions: Path | None = None
    cache: Path | None = None
    device: str = "cpu"
    precision: str = "auto"
    command: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One training of a row."""

    folder: Path
    seed: int
    trained_parameters: int
    seconds: float  # of its steps, without cache and validations
    best_step: int
    steps: int


def compare(job: CompareJob) -> dict[str, Any]:
    """Do what is not done yet, write the tables, and return what the last line tells.

    Raises:
        InputError: Something of the job does not fit; told before anything is trained.
        KshotError: A backbone, a checkpoint or a clip cannot be used.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("compare trains one cell after another; start it without torchrun.")
    return _Comparison(job).run()


class _Comparison:
    """A matrix on one data set, in one folder."""

    def __init__(self, job: CompareJob) -> None:
        self.job, self.matrix = job, job.matrix
        self.data: Dataset = job.data.open()
        self.device = torch.device(job.device)
        self.cache = job.cache or job.out / "trunk-cache"
        # What does not fit fails here, before anything is trained.
        self.methods = {row.name: self._method(row) for row in self.matrix.rows}
        for row in self.matrix.rows:
            for seed in self.matrix.seeds_of(row):
                self._fit_job(row, seed)
        self.rows: list[dict[str, Any]] = []  # finished
        self.examinations = {split: self._examination(split) for split in SPLITS}

    def run(self) -> dict[str, Any]:
        """Do what is not done yet; return what the last line tells."""
        self.job.out.mkdir(parents=True, exist_ok=True)
        for row in self.matrix.rows:
            self.rows.append(self._row(row))
            table = self._write_tables()
        print(table)
        return {"out": self.job.out.name, "budget": self._budget(), "rows": compared(self.rows)}

    def _row(self, row: Row) -> dict[str, Any]:
        """Return a finished row, or finish it: all seeds, then one evaluation on val and test."""
        file = self.job.out / f"{row.folder}.json"
        claim = self._claim(row)
        held = read_result(file, claim)
        if held is None:
            cells = [self._cell(row, seed) for seed in self.matrix.seeds_of(row)]
            held = {"claim": claim, **self._evaluate(row, cells)}
            write_result(file, held)
        return {name: value for name, value in held.items() if name != "claim"}

    def _cell(self, row: Row, seed: int) -> Cell:
        """Train a cell, unless it is trained."""
        job = self._fit_job(row, seed)
        claim = plain(
            {
                "method": job.method.claim(),
                "recipe": job.recipe.claim(),
                "data": self.data.name,
                **self._described(),
            }
        )
        held = read_result(job.out / RESULT, claim)
        if held is None:
            print(f"{row.name}, seed {seed}", file=sys.stderr)
            result = fit(job)
            assert result is not None  # one process, which leads
            held = {"claim": claim, "fit": asdict(result)}
            write_result(job.out / RESULT, held)
            self._write_tables()
        told = {name: held["fit"][name] for name in ("trained_parameters", "best_step", "steps")}
        return Cell(folder=job.out, seed=seed, seconds=step_seconds(job.out / HISTORY), **told)

    def _fit_job(self, row: Row, seed: int) -> FitJob:
        job = self.job
        method = self.matrix.choice(row, self._weights(row))
        return FitJob(
            method=method,
            recipe=self.matrix.recipe_of(row, seed),
            data=job.data,
            out=job.out / f"{row.folder}-seed{seed}",
            descriptions=job.descriptions,
            cache=self.cache,
            # It may take scores after the mean feature, which no paper does, and asks 20 times as
            # many episodes as a validation.
            calibrated=False,
            device=job.device,
            precision=job.precision,
        )

    def _evaluate(self, row: Row, cells: Sequence[Cell]) -> dict[str, Any]:
        """Ask the weights of every seed on val and test; the only reading of test."""
        found: dict[str, Any] = {}
        subjects = self._subjects(row, cells)
        for split in SPLITS:
            results = evaluate(self.examinations[split], subjects, device=self.device)
            found[split] = [compared_row(*alike) for alike in seeds_of(results).items()]
        return {
            "name": row.name,
            "seeds": [cell.seed for cell in cells],
            "trained_parameters": cells[0].trained_parameters if cells else 0,
            "seconds": [round(cell.seconds, 1) for cell in cells],
            "steps": [cell.steps for cell in cells],
            "best_steps": [cell.best_step for cell in cells],
            **found,
        }

    def _subjects(self, row: Row, cells: Sequence[Cell]) -> list[Subject]:
        """Return the seeds of a row, or its method untrained."""
        weights = self._weights(row)
        if not cells:
            source = self.matrix.choice(row, weights)
            return [Subject(name=row.folder, method=row.name, source=source)]
        return [
            Subject(
                name=cell.folder.name, method=row.name, source=str(cell.folder), weights=weights
            )
            for cell in cells
        ]

    def _weights(self, row: Row) -> Path | None:
        return self.job.weights.get(row.backbone or self.matrix.backbone)

    def _method(self, row: Row) -> MethodConfig:
        """Return a row's method; building it fails if it does not fit."""
        return open_method(self.matrix.choice(row, self._weights(row)), row.name).config

    def _examination(self, split: str) -> Examination:
        """Return the episodes and clips of a split, the same for all rows."""
        wanted = self.matrix
        episodes = DrawnEpisodes(
            ways=(min(wanted.ways, len(self.data.labels(split))),),
            shots=wanted.shots,
            queries=wanted.queries,
            episodes=wanted.episodes,
            seed=SEED,
        )
        examination = open_examination(
            ExaminationJob(
                data=self.job.data,
                split=split,
                episodes=episodes,
                descriptions=self.job.descriptions,
                cache=self.cache,
                half=half_precision(self.job.precision, self.device.type),
            )
        )
        if examination.stages is not None:
            for method in self.methods.values():
                examination.stages(method.stages)
        return examination

    def _claim(self, row: Row) -> object:
        """Return what a row's result follows from."""
        wanted = self.matrix
        return plain(
            {
                "method": wanted.choice(row, self._weights(row)).claim(),
                "recipes": [wanted.recipe_of(row, seed).claim() for seed in wanted.seeds_of(row)],
                "data": self.data.name,
                "evaluation": [wanted.ways, wanted.shots, wanted.queries, wanted.episodes],
                **self._described(),
            }
        )

    def _described(self) -> dict[str, str]:
        """Return the name of the descriptions, where there are any."""
        return {"descriptions": self.job.descriptions.name} if self.job.descriptions else {}

    def _budget(self) -> str:
        """Say what every row was given."""
        wanted = self.matrix
        recipe = wanted.recipe_of(Row(name="any", preset="any"), wanted.seeds[0])
        val, test = (min(wanted.ways, len(self.data.labels(split))) for split in SPLITS)
        return (
            f"{recipe.episodes} training episodes a cell, validated every {recipe.val_every} "
            f"steps on {recipe.val_episodes} episodes of {list(recipe.val_shots)} shots; "
            f"{len(wanted.seeds)} seeds; evaluated on {wanted.episodes} episodes for each number "
            f"of shots, {wanted.queries} queries a class, {val}-way on val and {test}-way on "
            f"test of {self.data.name}"
        )

    def _unfinished(self) -> list[dict[str, Any]]:
        """Return the rows that are not read yet, with their seeds and those that are trained."""
        found = []
        for row in self.matrix.rows[len(self.rows) :]:
            seeds = self.matrix.seeds_of(row)
            folders = {seed: self.job.out / f"{row.folder}-seed{seed}" for seed in seeds}
            trained = [seed for seed, folder in folders.items() if (folder / RESULT).is_file()]
            found.append({"name": row.name, "seeds": list(seeds), "trained": trained})
        return found

    def _write_tables(self) -> str:
        """Write the rows as Markdown, JSON and a report; return the Markdown."""
        out, budget = self.job.out, self._budget()
        table = markdown(self.rows, self.matrix.shots, budget)
        write_aside(out / "table.md", table.encode())
        result = {
            "measured": {
                "command": self.job.command,
                "data": self.data.name,
                "environment": environment(self.device),
            },
            "budget": budget,
            "rows": compared(self.rows),
            "unfinished": self._unfinished(),
        }
        write_result(out / "table.json", result)
        write_report(result, out / "report.html")
        return table
