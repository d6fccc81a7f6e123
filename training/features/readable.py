"""Which clips of a data set can be read: the others are counted and named, and left out.

Episodes are drawn from clips that can be read, so each is read once before; with a cache, only
once for all runs.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from model.errors import ClipError
from model.media.container import UNLIMITED, MediaLimits
from training.data.datasets import Dataset, LabelledClip
from training.data.listings import SPLITS
from training.errors import InputError
from training.features.clip_views import VIEW_RULE, hash_clips, read_frames
from training.progress import progress
from training.run_folder import write_aside

FRAMES, SIZE = 8, 32  # of the view that is read and dropped
MOST_READERS = 16
MOST_NAMED = 5

Tell = Callable[[str], None]


def tell_people(line: str) -> None:
    """Print a line on stderr."""
    print(line, file=sys.stderr)


def readable_splits(
    data: Dataset, splits: Iterable[str], cache: Path | None, tell: Tell = tell_people
) -> Dataset:
    """Return a data set without the clips of some splits that cannot be read.

    Args:
        data: The data set.
        splits: Whose clips are read; `all` means every one.
        cache: Folder of trunk caches, where the outcome is kept; None keeps nothing.
        tell: Takes a line for people where clips are left out.

    Raises:
        InputError: No clip of a split can be read.
    """
    found = dict(data.clips)
    chosen = list(splits)
    for split in SPLITS:
        if (split in chosen or "all" in chosen) and (clips := found.get(split)):
            memo = None if cache is None else cache / f"{data.name}-{split}-unreadable.json"
            found[split] = tuple(readable(clips, memo=memo, tell=tell))
    return replace(data, clips=found)


def readable(
    clips: Sequence[LabelledClip],
    *,
    limits: MediaLimits = UNLIMITED,
    memo: Path | None = None,
    tell: Tell = tell_people,
) -> list[LabelledClip]:
    """Return the clips that can be read, in their order.

    Args:
        clips: Each is read once, on all cores.
        limits: What a clip may be.
        memo: File that keeps the outcome, for the same files alone; None keeps nothing.
        tell: Takes a line for people where clips are left out.

    Raises:
        InputError: There is none.
    """
    reasons = _remembered(memo, clips)
    if reasons is None:
        reasons = _read_all(clips, limits)
        if memo is not None:
            memo.parent.mkdir(parents=True, exist_ok=True)
            write_aside(memo, json.dumps(_key(clips) | {"unreadable": reasons}).encode())
    left = [clip for place, clip in enumerate(clips) if str(place) not in reasons]
    if not left:
        raise InputError(
            f"None of the {len(clips)} clips can be read, first: {next(iter(reasons.values()))}"
        )
    if reasons:
        tell(f"{len(reasons)} of {len(clips)} clips cannot be read and are left out:")
        for reason in [*reasons.values()][:MOST_NAMED]:
            tell(f"  {reason}")
        if len(reasons) > MOST_NAMED:
            tell(f"  and {len(reasons) - MOST_NAMED} more")
    return left


def _read_all(clips: Sequence[LabelledClip], limits: MediaLimits) -> dict[str, str]:
    """Read every clip; return why some cannot be read, by their place."""
    readers = min(len(os.sched_getaffinity(0)), MOST_READERS)
    pool = ThreadPoolExecutor(readers, "reading")
    try:
        told = progress(
            pool.map(partial(_fault, limits=limits), clips),
            desc="reading",
            total=len(clips),
            unit="clip",
        )
        return {str(place): fault for place, fault in enumerate(told) if fault is not None}
    finally:
        pool.shutdown(cancel_futures=True)


def _fault(clip: LabelledClip, limits: MediaLimits) -> str | None:
    try:
        read_frames(clip, frames=FRAMES, size=SIZE, limits=limits)
    except ClipError as error:
        return str(error)
    return None


def _remembered(memo: Path | None, clips: Sequence[LabelledClip]) -> dict[str, str] | None:
    if memo is None or not memo.is_file():
        return None
    try:
        held = json.loads(memo.read_bytes())
        same = {name: held[name] for name in ("clips", "view rule")} == _key(clips)
        return {str(place): str(why) for place, why in held["unreadable"].items()} if same else None
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None  # torn: the clips are read again


def _key(clips: Sequence[LabelledClip]) -> dict[str, str]:
    return {"clips": hash_clips(clips), "view rule": VIEW_RULE}
