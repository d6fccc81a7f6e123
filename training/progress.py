"""Progress bars: on a terminal they move; elsewhere there is a plain line every 10 seconds."""

import io
import sys
from collections.abc import Iterable
from functools import partial

from tqdm import tqdm
from typing_extensions import TypeVar

LINE_S = 10.0  # between two lines where stderr is no terminal
T = TypeVar("T", default=None)


def progress(
    items: Iterable[T] | None = None,
    *,
    desc: str,
    total: int | None = None,
    unit: str = "it",
    initial: int = 0,
    leave: bool = True,
    quiet: bool = False,
) -> "tqdm[T]":
    """Return a `tqdm` bar on stderr; without a terminal, work under 10 seconds prints nothing.

    Args:
        items: What to iterate over; None for a bar that is updated by hand.
        desc: What is done, in front of the bar.
        total: How many items there are; None asks `items`.
        unit: What is counted.
        initial: Items done before.
        leave: Whether a finished bar stays on the terminal.
        quiet: Show nothing, as in a process that does not lead.
    """
    bar = partial(tqdm, items, desc, total, leave, unit=unit, initial=initial, disable=quiet)
    if sys.stderr.isatty():
        return bar()
    return bar(file=_Lines(), mininterval=LINE_S, delay=LINE_S)


class _Lines(io.TextIOBase):
    """Ends each state of a bar with a line end, in place of returning to the line's start."""

    def write(self, text: str) -> int:
        if line := text.strip():
            sys.stderr.write(f"{line}\n")
        return len(text)

    def flush(self) -> None:
        sys.stderr.flush()
