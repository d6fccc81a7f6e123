"""How right the spans of a video are: frames, and segments found by their overlap.

A span is (start_s, end_s, label). What a video shows is likewise, with None for background, and
leaves no gap.
"""

from collections.abc import Sequence

import numpy as np

RATE = 30  # frames a second that are judged
OVERLAPS = (0.1, 0.25, 0.5)
Truth = Sequence[tuple[float, float, str | None]]
Spans = Sequence[tuple[float, float, str]]


def right_frames(spans: Spans, truth: Truth) -> tuple[int, int]:
    """Count frames whose label, or background, is right, and all of them."""
    at_s = (np.arange(round(truth[-1][1] * RATE)) + 0.5) / RATE
    labels = {label: place for place, label in enumerate({label for *_, label in truth} - {None})}
    true, said = np.full((2, len(at_s)), -1)
    for shown, marks in ((truth, true), (spans, said)):
        for start, end, label in shown:
            inside = (start <= at_s) & (at_s < end)
            marks[inside] = -1 if label is None else labels.get(label, len(labels))
    return int((true == said).sum()), len(at_s)


def matches(spans: Spans, truth: Truth, overlap: float) -> int:
    """Count spans that overlap (IoU) a part of their label which no other span has."""
    free = [each for each in truth if each[2] is not None]
    found = 0
    for start, end, label in spans:
        ious = [
            (min(end, e) - max(start, s)) / (max(end, e) - min(start, s)) if named == label else -1
            for s, e, named in free
        ]
        if ious and max(ious) >= overlap:
            free.pop(int(np.argmax(ious)))
            found += 1
    return found


class Figures:
    """Accuracy of frames and F1 of segments over all videos."""

    def __init__(self) -> None:
        self.right = self.frames = self.spans = self.parts = 0
        self.matched = dict.fromkeys(OVERLAPS, 0)

    def add(self, spans: Spans, truth: Truth) -> None:
        """Count a video in."""
        right, total = right_frames(spans, truth)
        self.right, self.frames = self.right + right, self.frames + total
        self.spans += len(spans)
        self.parts += sum(label is not None for *_, label in truth)
        for overlap in OVERLAPS:
            self.matched[overlap] += matches(spans, truth, overlap)

    def percents(self) -> dict[str, float]:
        """Give percents of frames that are right, and F1 at each overlap."""
        percents = {"frames": 100 * self.right / self.frames}
        for overlap in OVERLAPS:
            percents[f"F1@{overlap:.0%}"] = 200 * self.matched[overlap] / (self.spans + self.parts)
        return percents

    def row(self) -> dict[str, float]:
        """Give percents and the number of spans, rounded."""
        row = self.percents() | {"spans": float(self.spans)}
        return {name: round(value, 1) for name, value in row.items()}
