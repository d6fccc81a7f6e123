"""Compare methods at an equal budget: rows x seeds trained, chosen on val, read once on test.

python -m training.compare --matrix FILE.json --data INDEX.csv|DIR --out DIR

Each cell is a `training.fit` in OUT/<row>-seed<k>. After the last seed of a row, the weights that
val chose are read on val and on test, once, and kept in OUT/<row>.json. What is finished is not
done again, and a killed cell goes on where it was. OUT/table.md, table.json and table.png show all
rows that are finished; the last line is JSON. A matrix:

"""

import argparse
import csv
import dataclasses
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from model.checkpoint import load_recognizer
from model.errors import BackboneError, CheckpointError, ClipError, MethodError
from model.recognizer import Recognizer
from training import fit
from training.data.datasets import MAX_MISSING, open_dataset
from training.data.descriptions_file import stage_texts
from training.errors import InputError
from training.evaluation import matrix
from training.evaluation.comparison_table import SPLITS, lines, markdown
from training.evaluation.layouts import Layout, draw_layouts
from training.evaluation.matrix import Matrix, Row, read_matrix
from training.evaluation.readings import Examination, Reading, seeds_of, seeds_row
from training.evaluation.report import draw_lines
from training.features.tokens import TokenSources
from training.meta.methods import open_method
from training.meta.processes import half_precision
from training.meta.run import HISTORY
from training.run_folder import write_aside

SEED = 0  # of the evaluation's episodes, the same for all cells
RESULT = "result.json"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.compare",
        description=f"{__doc__}{matrix.__doc__}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--matrix", type=Path, required=True, help="rows, seeds, budget, evaluation")
    add("--data", type=Path, required=True, help="as training.data.datasets reads it")
    add("--root", type=Path, help="of the clips that split files list")
    add("--names", type=Path, help="of the labels, where split files have ids")
    add("--max-missing", type=float, default=MAX_MISSING, help="share of files")
    add("--weights", nargs="+", default=[], metavar="BACKBONE=FILE", help="default: the hub")
    add("--descriptions", type=Path, help="stage texts; default: the template's")
    add("--cache", type=Path, help="trunk caches; default: in --out")
    add("--out", type=Path, required=True, help="cells, rows and tables")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--precision", choices=("auto", "bf16", "fp32"), default="auto")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 2 for input that does not fit."""
    options = parse(arguments)
    try:
        result = Comparison(options).run()
    except (InputError, BackboneError, CheckpointError, ClipError, MethodError) as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"compare: a file cannot be written or read ({error}); see to it.", file=sys.stderr)
        return 2
    print(json.dumps(result))
    return 0


@dataclass(frozen=True, slots=True)
class Cell:
    """One training of a row."""

    folder: Path
    seed: int
    trained_parameters: int
    seconds: float  # of its steps, without cache and validations
    best_step: int
    steps: int


class Comparison:
    """A matrix on one data set, in one folder.

    Args:
        options: Of the command line.

    Raises:
        InputError: something of it does not fit; told before anything is trained.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise InputError("compare trains one cell after another; start it without torchrun.")
        self.options = options
        self.matrix: Matrix = read_matrix(options.matrix)
        self.weights = read_weights(options.weights)
        self.data = open_dataset(
            options.data, root=options.root, names=options.names, max_missing=options.max_missing
        )
        self.device = torch.device(options.device)
        self.half = half_precision(options.precision, self.device.type)
        self.cache: Path = options.cache or options.out / "trunk-cache"
        self._examinations: dict[str, Examination] = {}
        for row in self.matrix.rows:
            self._open(row)  # fails here if it fails
        for split in SPLITS:
            self._examination(split)

    def run(self) -> dict[str, Any]:
        """Do what is not done yet; return what the last line tells."""
        self.options.out.mkdir(parents=True, exist_ok=True)
        rows: list[dict[str, Any]] = []
        for row in self.matrix.rows:
            rows.append(self._row(row))
            table = self._write_tables(rows)
        print(table)
        return {"out": self.options.out.name, "budget": self._budget(), "rows": rows}

    def _row(self, row: Row) -> dict[str, Any]:
        """Return a finished row, or finish it: all seeds, then one reading of val and test."""
        file = self.options.out / f"{row.folder}.json"
        claim = self._claim(row)
        held = read_result(file, claim)
        if held is None:
            cells = [self._cell(row, seed) for seed in self.matrix.seeds_of(row)]
            held = {"claim": claim, **self._read(row, cells)}
            write_aside(file, (json.dumps(held, indent=1) + "\n").encode())
        return {name: value for name, value in held.items() if name != "claim"}

    def _cell(self, row: Row, seed: int) -> Cell:
        """Train a cell, unless it is trained."""
        folder: Path = self.options.out / f"{row.folder}-seed{seed}"
        choice = self.matrix.choice(row, None)
        recipe = self.matrix.recipe_of(row, seed)
        claim = plain(
            {
                "method": dataclasses.asdict(choice),
                "recipe": dataclasses.asdict(recipe),
                "data": self.data.name,
            }
        )
        held = read_result(folder / RESULT, claim)
        if held is None:
            print(f"{row.name}, seed {seed}", file=sys.stderr)
            found = fit.fit(fit.parse(self._fit_arguments(row, seed, folder)))
            assert found is not None  # one process, which leads
            held = {"claim": claim, "fit": found}
            write_aside(folder / RESULT, (json.dumps(held, indent=1) + "\n").encode())
        told = held["fit"]
        return Cell(
            folder,
            seed,
            told["trained_parameters"],
            step_seconds(folder / HISTORY),
            told["best_step"],
            told["steps"],
        )

    def _fit_arguments(self, row: Row, seed: int, folder: Path) -> list[str]:
        """Write a cell as a command line of `training.fit`."""
        options, choice = self.options, self.matrix.choice(row, None)
        values = {
            "method": choice.preset,
            "backbone": choice.backbone,
            "backbone-weights": self.weights.get(choice.backbone),
            "blocks": choice.blocks,
            "text-blocks": choice.text_blocks,
            "ratio": choice.ratio,
            "query-context": choice.query_context,
            "matcher": choice.matcher,
            "frames": choice.frames,
            "data": options.data,
            "root": options.root,
            "names": options.names,
            "max-missing": options.max_missing,
            "descriptions": options.descriptions,
            "recipe": self.matrix.recipe,
            "cache": self.cache / f"fit-{self._open(row).config.frames}",  # folders have no T
            "out": folder,
            "device": options.device,
            "precision": options.precision,
        }
        given = [f"--{name}={value}" for name, value in values.items() if value is not None]
        flags = ["--at-input", "--no-cache"] if choice.at_input else []
        changes = self.matrix.changes(row, seed)
        return [*given, *flags, "--set", *(f"{name}={value}" for name, value in changes.items())]

    def _open(self, row: Row) -> Recognizer:
        """Build a row's method, untrained."""
        weights = self.weights.get(row.backbone or self.matrix.backbone)
        return open_method(self.matrix.choice(row, weights), row.name)

    def _read(self, row: Row, cells: Sequence[Cell]) -> dict[str, Any]:
        """Read val and test with the weights of every seed; the only reading of test."""
        weights = self.weights.get(row.backbone or self.matrix.backbone)
        found: dict[str, Any] = {}
        for split in SPLITS:
            readings: list[Reading] = []
            for cell in cells:
                recognizer = load_recognizer(str(cell.folder), weights=weights)
                readings += self._ask(split, recognizer, cell.folder.name, row)
            if not cells:
                readings += self._ask(split, self._open(row), row.folder, row)
            found[split] = [seeds_row(*of_kind) for of_kind in seeds_of(readings).items()]
        return {
            "name": row.name,
            "seeds": [cell.seed for cell in cells],
            "trained_parameters": cells[0].trained_parameters if cells else 0,
            "seconds": [round(cell.seconds, 1) for cell in cells],
            "steps": [cell.steps for cell in cells],
            "best_steps": [cell.best_step for cell in cells],
            **found,
        }

    def _ask(self, split: str, recognizer: Recognizer, name: str, row: Row) -> list[Reading]:
        examination = self._examination(split)
        asked = recognizer.to(self.device)
        return list(examination.read(asked, checkpoint=name, method=row.name))

    def _examination(self, split: str) -> Examination:
        """Return the episodes and clips of a split, the same for all rows."""
        if split not in self._examinations:
            wanted, clips, labels = self.matrix, self.data.split(split), self.data.labels(split)
            ways = min(wanted.ways, len(labels))
            layouts = draw_layouts(
                clips,
                [Layout(ways, shots) for shots in wanted.shots],
                queries=wanted.queries,
                episodes=wanted.episodes,
                seed=SEED,
            )
            sources = TokenSources(
                f"{self.data.name}-{split}", clips, cache=self.cache, half=self.half
            )
            stages = stage_texts(self.data, [split], self.options.descriptions)
            self._examinations[split] = Examination(layouts, labels, sources, stages)
        return self._examinations[split]

    def _claim(self, row: Row) -> object:
        """Return what a row's result follows from."""
        wanted = self.matrix
        seeds = wanted.seeds_of(row)
        return plain(
            {
                "method": dataclasses.asdict(wanted.choice(row, None)),
                "recipes": [dataclasses.asdict(wanted.recipe_of(row, seed)) for seed in seeds],
                "data": self.data.name,
                "evaluation": [wanted.ways, wanted.shots, wanted.queries, wanted.episodes],
            }
        )

    def _budget(self) -> str:
        """Say what every row was given."""
        wanted = self.matrix
        recipe = wanted.recipe_of(Row(name="any", preset="any"), wanted.seeds[0])
        ways = [len(self.data.labels(split)) for split in SPLITS]
        val, test = (min(wanted.ways, count) for count in ways)
        return (
            f"{recipe.episodes} training episodes a cell, validated every {recipe.val_every} "
            f"steps on {recipe.val_episodes} episodes of {list(recipe.val_shots)} shots; "
            f"{len(wanted.seeds)} seeds; evaluated on {wanted.episodes} episodes for each number "
            f"of shots, {wanted.queries} queries a class, {val}-way on val and {test}-way on "
            f"test of {self.data.name}"
        )

    def _write_tables(self, rows: Sequence[Mapping[str, Any]]) -> str:
        """Write the finished rows as Markdown, JSON and a picture; return the Markdown."""
        out, budget = self.options.out, self._budget()
        table = markdown(rows, self.matrix.shots, budget)
        document = {"budget": budget, "rows": list(rows)}
        write_aside(out / "table.md", table.encode())
        write_aside(out / "table.json", (json.dumps(document, indent=1) + "\n").encode())
        draw_lines(
            {line: points for row in rows for line, points in lines(row).items()},
            out / "table.png",
            across="shots",
            up="test accuracy, %",
        )
        return table


def read_weights(pairs: Sequence[str]) -> dict[str, Path]:
    """Return the weights file of each backbone.

    Raises:
        InputError: a pair without '='.
    """
    found: dict[str, Path] = {}
    for pair in pairs:
        backbone, equals, file = pair.partition("=")
        if not equals:
            raise InputError(f"--weights {pair!r} has no '='; write BACKBONE=FILE.")
        found[backbone] = Path(file)
    return found


def read_result(file: Path, claim: object) -> dict[str, Any] | None:
    """Return what is finished, or None.

    Raises:
        InputError: it was made from something else, or cannot be read.
    """
    if not file.is_file():
        return None
    try:
        held: dict[str, Any] = json.loads(file.read_text())
        same = held["claim"] == claim
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} cannot be read ({error}); remove it to make it again.") from error
    if not same:
        raise InputError(
            f"{file} is of another method, recipe, evaluation or data set; give another --out, or "
            "the row another name."
        )
    return held


def plain(value: object) -> object:
    """Return a value as JSON gives it back."""
    return json.loads(json.dumps(value))


def step_seconds(file: Path) -> float:
    """Add up the seconds of the steps in a history, of all the processes that made them."""
    with file.open() as opened:
        return sum(float(row["seconds"] or 0) for row in csv.DictReader(opened))


if __name__ == "__main__":
    sys.exit(main())
