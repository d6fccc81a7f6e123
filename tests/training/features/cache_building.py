"""Trunk caches of a tiny model, built here or by a process of its own."""

import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.model.tiny import tiny_recognizer
from training.data.datasets import LabelledClip
from training.errors import InputError
from training.features import trunk_passes
from training.features.trunk_cache import TrunkCache, open_trunk_cache


def labelled(folder: Path) -> list[LabelledClip]:
    return [LabelledClip(path, "any", path.stem) for path in sorted(folder.glob("*.mp4"))]


def build(
    folder: Path, clips: Sequence[LabelledClip], *, draws: int = 2, **changes: object
) -> TrunkCache:
    recognizer = changes.pop("recognizer", None) or tiny_recognizer("task_adapter")
    given: dict[str, object] = {"half": False, "tell": lambda _: None, **changes}
    return open_trunk_cache(folder, recognizer, clips, draws=draws, **given)  # type: ignore[arg-type]


def main() -> int:
    """Build `VIDEOS FOLDER...` slowly, or each FOLDER:BYTES with files no larger than that."""
    videos, *wanted = sys.argv[1:]
    compute = trunk_passes.TrunkPasses._compute

    def slowly(*arguments: object) -> object:
        time.sleep(0.2)
        return compute(*arguments)  # type: ignore[arg-type]

    for one in wanted:
        out, _, limit = one.partition(":")
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), resource.RLIM_INFINITY))
        else:
            trunk_passes.SETTLE_S = 0.0
            trunk_passes.TrunkPasses._compute = slowly  # type: ignore[assignment,method-assign]
        try:
            build(Path(out), labelled(Path(videos)))
        except InputError as error:
            sys.stdout.write(f"{error}\n")
    sys.stdout.flush()
    return 0
