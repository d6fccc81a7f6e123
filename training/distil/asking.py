"""Asks the teacher about every view of every source, and keeps what it says."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from model.errors import ClipError
from training.distil.recipe import TargetsJob
from training.distil.sources import Source, SyntheticClip, clips_of, pictures_of
from training.distil.target_files import TargetFiles
from training.distil.teacher import SIZE, VideoTeacher, open_video_teacher
from training.errors import InputError
from training.features.token_parts import DrawPart
from training.progress import progress

PASS = 4  # views of one pass of the teacher
SETTLE_S = 20.0  # seconds between two syncs
MIXING = 1_000_003  # a stride through the sources, so that a part that is begun has some of all


def make_targets(job: TargetsJob) -> dict[str, object]:
    """Fill all draws; return what the last line tells.

    Raises:
        InputError: There is nothing to learn from, or the folder belongs to another list.
    """
    began = time.monotonic()
    kinds: dict[str, Sequence[Source]] = {
        "clips": clips_of(job.clips, job.leave_out),
        "pictures": pictures_of(job.pictures),
        "synthetic": [SyntheticClip(number) for number in range(job.synthetic)],
    }
    sources = [source for kind in kinds.values() for source in kind]
    if not sources:
        raise InputError("There is nothing to learn from; give --clips, --pictures or --synthetic.")
    teacher = open_video_teacher(job.teacher)
    names, counts = [one.name for one in sources], {kind: len(kinds[kind]) for kind in kinds}
    files = TargetFiles(job.out, names, counts, job.frames, job.side)
    files.claim({"seed": job.seed, "leave_out": list(job.leave_out)})
    files.save_reading(teacher.reading())
    for draw in range(job.draws):
        part = files.part(draw)
        if part is not None:
            fill(part, sources, teacher, files, draw=draw, seed=job.seed)
    return {
        "sources": len(sources),
        "draws": job.draws,
        "bytes": job.draws * files.draw_bytes(),
        "seconds": round(time.monotonic() - began, 1),
        "out": job.out.name,
    }


def fill(
    part: DrawPart,
    sources: Sequence[Source],
    teacher: VideoTeacher,
    files: TargetFiles,
    *,
    draw: int,
    seed: int,
) -> None:
    """Compute the rows that a draw lacks, in an order that mixes the sources.

    Raises:
        InputError: A source cannot be read, or the disk is full.
    """
    passes = -(-len(sources) // PASS)
    order = [(MIXING * number) % passes for number in range(passes)]
    todo = [
        first * PASS for first in order if not part.done[first * PASS : (first + 1) * PASS].all()
    ]
    settled = time.monotonic()
    desc = f"targets, draw {draw}"
    with progress(total=passes, initial=passes - len(todo), desc=desc, unit="pass") as bar:
        for first in todo:
            views = [
                read(source, files.frames, draw, seed) for source in sources[first : first + PASS]
            ]
            part.put(first, answer(np.stack(views), teacher, files))
            if time.monotonic() - settled > SETTLE_S:
                part.settle()
                settled = time.monotonic()
            bar.update()
    part.settle()


def read(source: Source, frames: int, draw: int, seed: int) -> NDArray[np.uint8]:
    """Read a view at the teacher's size.

    Raises:
        InputError: It cannot be read.
    """
    try:
        return source.view(frames, SIZE, draw, seed)
    except (ClipError, OSError) as error:
        raise InputError(f"{source.name} cannot be read ({error}); repair or remove it.") from error


def answer(
    views_BTSSC: NDArray[np.uint8], teacher: VideoTeacher, files: TargetFiles
) -> NDArray[Any]:
    """Return the rows of views: frames at the student's size, and the teacher's answers."""
    pixels = torch.from_numpy(views_BTSSC).permute(0, 1, 4, 2, 3).float() / 255
    said = teacher(pixels)
    rows = np.empty(len(views_BTSSC), files.type)
    rows["frames"] = shrink(pixels, files.side)
    rows["inner"] = said.inner_BTPC.numpy()
    rows["maps"] = said.maps_BTPC.numpy()
    rows["hidden"] = said.hidden_BC.numpy()
    rows["logits"] = said.logits_BC.numpy()
    return rows


def shrink(pixels_BTCHW: torch.Tensor, side: int) -> NDArray[np.uint8]:
    """Scale pixels in [0, 1] to uint8 frames [B, T, S, S, C]."""
    small = F.interpolate(pixels_BTCHW.flatten(0, 1), (side, side), mode="bilinear", antialias=True)
    small_BTCSS = small.mul(255).round().clamp(0, 255).unflatten(0, pixels_BTCHW.shape[:2])
    return small_BTCSS.to(torch.uint8).permute(0, 1, 3, 4, 2).numpy()
