"""Progress bars, on a terminal alone: a log gets no bar."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tqdm import tqdm

from kshot_client.uploads import Progress

T = TypeVar("T")


@contextmanager
def bytes_bar(total: int, *, quiet: bool) -> Iterator[Progress]:
    """Show how many bytes have gone out."""
    with _bar(total, "B", quiet=quiet, scale=True) as bar:
        yield bar.update


def counted(items: Iterable[T], total: int, unit: str, *, quiet: bool) -> Iterator[T]:
    """Show how many of the items have come."""
    with _bar(total, unit, quiet=quiet) as bar:
        for item in items:
            bar.update()
            yield item


@contextmanager
def seconds_bar(*, quiet: bool) -> Iterator["tqdm[None]"]:
    """Show how far a video is looked at; its length is set when it is known."""
    with _bar(None, "s", quiet=quiet) as bar:
        yield bar


def _bar(total: int | None, unit: str, *, quiet: bool, scale: bool = False) -> "tqdm[None]":
    off = quiet or not sys.stderr.isatty()
    nothing: list[None] = []
    return tqdm(
        nothing,
        total=total,
        unit=unit,
        unit_scale=scale,
        disable=off,
        leave=False,
        dynamic_ncols=True,
    )
