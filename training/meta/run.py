"""A training run in its folder: steps, validations, the best weights, and what a kill leaves.

The state is written aside and renamed, so a killed run goes on from a whole one and repeats the
steps after it to the same values.
"""

import csv
import io
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from model.checkpoint import save_checkpoint
from model.recognizer import Recognizer
from model.text import StageTexts
from training.data.episodes import EpisodeSampler
from training.evaluation.scoring import EpisodeScorer
from training.features.tokens import TokenSource
from training.meta.learner import Learner
from training.meta.processes import Processes
from training.progress import progress
from training.run_folder import write_aside, write_state

STATE, HISTORY = "fit_state.pt", "history.csv"


@dataclass(frozen=True, slots=True)
class Validator:
    """Fixed episodes of the val classes, the same at every validation.

    Args:
        source: Tokens of the val clips.
        clips: How many there are.
        samplers: One for each number of shots.
        episodes: Of each sampler.
        stages: Stage texts of the val labels.
        half: Whether to compute in bfloat16.
    """

    source: TokenSource
    clips: int
    samplers: Mapping[int, EpisodeSampler]
    episodes: int
    stages: Mapping[str, StageTexts] | None
    half: bool

    def accuracies(self, recognizer: Recognizer, processes: Processes) -> dict[int, float]:
        """Return the share of right answers in percent, for each number of shots."""
        scorer = EpisodeScorer(
            recognizer, self.source, self.clips, stages=self.stages, half=self.half
        )
        return {shots: self._accuracy(scorer, s, processes) for shots, s in self.samplers.items()}

    def _accuracy(
        self, scorer: EpisodeScorer, sampler: EpisodeSampler, processes: Processes
    ) -> float:
        episodes = [sampler.draw(number) for number in processes.own(range(self.episodes))]
        answers = scorer.answers(episodes)
        right = sum(
            int((answer == torch.tensor(episode.query_classes)).sum())
            for answer, episode in zip(answers, episodes, strict=True)
        )
        asked = sum(len(episode.query) for episode in episodes)
        counts = torch.tensor([right, asked], dtype=torch.float, device=scorer.recognizer.device)
        processes.add_up([counts])
        return 100 * float(counts[0] / counts[1])


@dataclass(slots=True)
class History:
    """What happened so far: a row a step, with accuracies where it was validated."""

    rows: list[dict[str, float]] = field(default_factory=list)
    best: float = float("-inf")  # mean val accuracy over shots, percent
    best_step: int = 0
    worse: int = 0  # validations since the best

    @property
    def untrained(self) -> float:
        """The mean val accuracy before the first step, percent."""
        found = [value for name, value in self.rows[0].items() if name.startswith("val_")]
        return sum(found) / len(found)

    def table(self) -> str:
        """Return the rows as CSV."""
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()


class FitRun:
    """Trains until the recipe ends or stops.

    Args:
        learner: Fresh; goes on from the state in `out` where there is one.
        validator: Chooses among the steps.
        out: The run's folder.
        card: Makes the checkpoint's card from the history.
        half: Whether the checkpoint is stored in 16 bits.
    """

    def __init__(
        self,
        learner: Learner,
        validator: Validator,
        out: Path,
        card: Callable[[History], str],
        *,
        half: bool = False,
    ) -> None:
        self.learner, self.validator, self.out, self.card = learner, validator, out, card
        self.half = half
        self.history = History()

    def run(self, *, tell: Callable[[str], None]) -> History:
        """Train to the end; the folder then holds the best checkpoint and the curve.

        Raises:
            InputError: the loss is not a number any more.
        """
        recipe, processes = self.learner.recipe, self.learner.processes
        if (self.out / STATE).is_file():
            self._resume()
            tell(f"going on from step {self.learner.steps_done} of {recipe.steps}")
        else:
            self._validate()  # the untrained method: what training has to beat
            self._save()
        bar = progress(
            total=recipe.steps,
            initial=self.learner.steps_done,
            desc="fit",
            unit="step",
            quiet=not processes.leads,
        )
        with bar:
            while not self._finished():
                start = time.monotonic()
                loss = self.learner.step()
                row = {"step": self.learner.steps_done, "loss": loss}
                self.history.rows.append(row | {"seconds": round(time.monotonic() - start, 3)})
                bar.update()
                if self._due():
                    self._validate()
                    self._save()
                bar.set_postfix(loss=f"{loss:.3f}", val=f"{self.history.best:.1f}", refresh=False)
        return self.history

    def _finished(self) -> bool:
        recipe = self.learner.recipe
        stopped = bool(recipe.patience) and self.history.worse >= recipe.patience
        return stopped or self.learner.steps_done >= recipe.steps

    def _due(self) -> bool:
        recipe, done = self.learner.recipe, self.learner.steps_done
        return done % recipe.val_every == 0 or done == recipe.steps

    def _validate(self) -> None:
        """Measure the averaged weights; keep them where they are the best so far."""
        processes, history = self.learner.processes, self.history
        with self.learner.averaged() as recognizer:
            found = self.validator.accuracies(recognizer, processes)
            mean = sum(found.values()) / len(found)
            better = mean > history.best
            if better:
                history.best, history.best_step = mean, self.learner.steps_done
            history.worse = 0 if better else history.worse + 1
            self._note(found)
            if better and processes.leads:
                save_checkpoint(recognizer, self.out, self.card(history), half=self.half)

    def _note(self, found: Mapping[int, float]) -> None:
        if not self.history.rows:
            self.history.rows.append({"step": 0})
        self.history.rows[-1].update({f"val_{shots}": value for shots, value in found.items()})

    def _save(self) -> None:
        if not self.learner.processes.leads:
            return
        state = {"learner": self.learner.state(), "history": self._kept_history()}
        write_state(self.out / STATE, state)
        write_aside(self.out / HISTORY, self.history.table().encode())

    def _kept_history(self) -> dict[str, Any]:
        history = self.history
        return {
            "rows": history.rows,
            "best": history.best,
            "best_step": history.best_step,
            "worse": history.worse,
        }

    def _resume(self) -> None:
        state = torch.load(
            self.out / STATE, map_location=self.learner.recognizer.device, weights_only=True
        )
        self.learner.resume(state["learner"])
        self.history = History(**state["history"])
