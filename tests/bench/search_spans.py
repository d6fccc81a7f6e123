"""Which defaults make the best spans: every setting of a grid, on scores that are there already.

    python -m tests.bench.bench_timeline --tune --no-lengths --keep TRAIN.json
    python -m tests.bench.bench_timeline --no-lengths --keep VAL.json
    python -m tests.bench.search_spans TRAIN.json [MORE.json ...] --read VAL.json [MORE.json ...]

What is best is the mean of four: frames that are right, and F1 of segments at 10, 25 and 50 %
overlap; of several files, each of another model, the mean over them. The files after --read are
read with the defaults and with the best. The last line of stdout is JSON.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from model.media.windows import WindowGrid
from model.timeline.segments import SpanRule, WindowScores, segment
from service.tasks.timeline.asked import ENTER, LEAVE, MIN_SPAN_PART, SMOOTH_PART, UNKNOWN_SLACK
from tests.bench.span_figures import Figures, Spans, Truth

SMOOTH_PARTS = (0.0, 0.5, 1.0, 1.5)  # of a window's length, as MIN_SPAN_PARTS
ENTERS = (0.3, 0.4, 0.45, 0.5, 0.55, 0.6)
DROPS = (0.0, 0.1, 0.2)  # from `enter` to `leave`
MIN_SPAN_PARTS = (0.0, 0.25, 0.5, 0.75)
SLACKS = (0.0, 0.05)
SHOWN = 5  # of the best


@dataclass(frozen=True, slots=True)
class Defaults:
    """What is taken where a client says nothing; lengths in parts of a window."""

    smooth_part: float = SMOOTH_PART
    enter: float = ENTER
    leave: float = LEAVE
    min_span_part: float = MIN_SPAN_PART
    unknown_slack: float = UNKNOWN_SLACK

    def rule(self, window_s: float, unknown_below: float) -> SpanRule:
        """Return how spans are made of windows of a length."""
        return SpanRule(
            smooth_s=self.smooth_part * window_s,
            enter=self.enter,
            leave=self.leave,
            min_span_s=self.min_span_part * window_s,
            unknown_below=unknown_below,
            unknown_slack=self.unknown_slack,
        )


def grid() -> Iterator[Defaults]:
    """Yield every setting that is tried."""
    for smooth, enter, drop, least, slack in itertools.product(
        SMOOTH_PARTS, ENTERS, DROPS, MIN_SPAN_PARTS, SLACKS
    ):
        yield Defaults(smooth, enter, round(enter - drop, 2), least, slack)


class Scored:
    """A video whose windows have scores.

    Args:
        kept: As `bench_timeline --keep` wrote it.
    """

    def __init__(self, kept: dict[str, Any]) -> None:
        found, self._labels = kept["found"], kept["labels"]
        self._grid = WindowGrid.of(8, found["window_s"], found["stride_s"])
        self._windows = [
            WindowScores(tuple(each["scores"][label] for label in self._labels), each["nearest"])
            for each in found["scores"]
        ]
        self._lasts_s = found["duration_s"]
        self._unknown_below = found["parameters"]["unknown_below"]
        self.truth: Truth = kept["truth"]

    def spans(self, defaults: Defaults) -> Spans:
        """Make spans."""
        rule = defaults.rule(self._grid.window_s, self._unknown_below)
        spans = segment(self._windows, self._grid, rule, self._lasts_s)
        return [(span.start_s, span.end_s, self._labels[span.label]) for span in spans]


def read(file: Path) -> list[Scored]:
    """Read the videos of a file."""
    return [Scored(kept) for kept in json.loads(file.read_text())]


def figures(videos: Sequence[Scored], defaults: Defaults) -> Figures:
    """Judge the spans of some videos."""
    judged = Figures()
    for video in videos:
        judged.add(video.spans(defaults), video.truth)
    return judged


def worth(models: Sequence[Sequence[Scored]], defaults: Defaults) -> float:
    """Return the mean of all percents."""
    percents = [
        value for videos in models for value in figures(videos, defaults).percents().values()
    ]
    return sum(percents) / len(percents)


def main() -> None:
    """Print the best settings; the last line is JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, help="scores that settings are chosen on")
    parser.add_argument("--read", nargs="*", type=Path, default=[], help="scores to report on")
    asked = parser.parse_args()
    models = [read(file) for file in asked.files]
    ranked = sorted(
        ((worth(models, each), each) for each in grid()), key=lambda pair: pair[0], reverse=True
    )
    for value, each in [*ranked[:SHOWN], (worth(models, Defaults()), Defaults())]:
        sys.stdout.write(f"{value:.2f} {asdict(each)}\n")
    best, rows = ranked[0][1], []
    for file in [*asked.files, *asked.read]:
        for name, each in (("defaults", Defaults()), ("best", best)):
            rows.append({"file": file.name, "with": name} | figures(read(file), each).row())
            sys.stdout.write(f"{rows[-1]}\n")
    sys.stdout.write(json.dumps({"best": asdict(best), "rows": rows}) + "\n")


if __name__ == "__main__":
    main()
