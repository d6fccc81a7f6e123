"""What the frozen blocks make of every clip and augmentation draw, computed once.

Training and evaluation then run the adapted blocks alone. Tokens are kept in half precision and
mapped into memory; a cache belongs to one backbone, one preprocessing and one list of clips.

Dimensions: C clips, B rows asked for, T frames, H = W pixels, L tokens, D token width.
"""

import hashlib
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from model.checkpoint import hash_tensors
from model.errors import ClipError
from model.recognizer import Recognizer
from training.data.datasets import LabelledClip
from training.data.local_video import reader_name
from training.errors import InputError
from training.features.clip_augmentation import VIEW_RULE, ClipAugmentation, clip_name, read_view
from training.features.token_files import DrawPart, TokenFolder, gigabytes

PASS_CLIPS = 4  # of one trunk pass; always the same clips, so that a resume gives the same bits
MOST_WORKERS = 16  # each holds the activations of one pass
SETTLE_S = 2.0  # work that a killed process loses at most
LARGEST = float(np.finfo(np.float16).max)


class TrunkCache:
    """Tokens of clips, mapped into memory.

    Args:
        views: One array [C, T, L, D] a view: draw 0, the evaluation view, then the draws.
    """

    def __init__(self, views: Sequence[NDArray[np.float16]]) -> None:
        self._views = [np.asarray(view) for view in views]
        self.clips = len(self._views[0])
        self.draws = len(views) - 1  # besides draw 0
        self.shape_TLD = tuple(self._views[0].shape[1:])

    def tokens(self, clips: Sequence[int], draws: Sequence[int] | None = None) -> Tensor:
        """Copy rows out of the cache, each once.

        Args:
            clips: Places in the list of clips.
            draws: Which view of each, 0 to `self.draws`; None is draw 0 for all.

        Returns:
            tokens_BTLD: float16, on the CPU; what `Recognizer.trunk` gives, rounded.
        """
        tokens_BTLD = torch.empty((len(clips), *self.shape_TLD), dtype=torch.float16)
        rows = tokens_BTLD.numpy()
        chosen = [0] * len(clips) if draws is None else draws
        for row, (clip, draw) in enumerate(zip(clips, chosen, strict=True)):
            rows[row] = self._views[draw][clip]
        return tokens_BTLD


def open_trunk_cache(
    folder: Path,
    recognizer: Recognizer,
    clips: Sequence[LabelledClip],
    *,
    draws: int,
    half: bool,
    seed: int = 0,
    augmentation: ClipAugmentation = ClipAugmentation(),  # noqa: B008  frozen
    tell: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
) -> TrunkCache:
    """Open a cache, building first what is missing of it; goes on where a killed process stopped.

    One process builds at a time: of several that start together, let one open it first.

    Args:
        folder: Of the cache; made when it is not there.
        recognizer: Whose trunk; adapters do not matter.
        clips: The list of clips; labels do not matter.
        draws: Augmentation draws of each clip besides the evaluation view; may grow later.
        half: Whether to compute in bfloat16.
        seed: Of the draws.
        augmentation: How strongly draws differ.
        tell: Takes a line for people before anything large is written.

    Raises:
        InputError: a torn or foreign cache, a clip that cannot be read, a full disk, tokens beyond
            float16, or a temporal embedding at the input, behind which nothing is constant.
    """
    if recognizer.video.at_input and recognizer.video.temporal_embedding is not None:
        raise InputError(
            "temporal_embedding 'input' is trained below the frozen blocks, whose output then "
            "changes; use 'first_adapted', or no trunk cache."
        )
    if not clips or draws < 0:
        raise InputError(
            f"A trunk cache of {len(clips)} clips and {draws} draws cannot be made; give one clip "
            "or more, and no draws or more."
        )
    files = TokenFolder(
        folder,
        (len(clips), *_token_shape(recognizer)),
        _origin(recognizer, clips, half=half),
        {"seed": seed, "reader": reader_name(), **asdict(augmentation)},
    )
    files.check(draws)
    views = range(draws + 1)
    missing = [draw for draw in views if not files.whole(draw)]
    if missing:
        files.check_space(missing)
        size, new = (gigabytes(files.draw_bytes * len(some)) for some in (views, missing))
        tell(
            f"trunk cache: {size} for {len(clips)} clips with {draws} draws each, {new} of it to "
            f"be made, in {folder}"
        )
        with files.claim(draws):
            builder = _Builder(recognizer, clips, half, seed, augmentation)
            builder.build(files.parts(draw for draw in missing if not files.whole(draw)))
    return TrunkCache([files.rows(draw) for draw in views])


def _token_shape(recognizer: Recognizer) -> tuple[int, int, int]:
    """Return T, L, D."""
    tower = recognizer.video.tower
    with torch.inference_mode():
        blank = torch.zeros(1, 3, tower.size, tower.size, device=recognizer.device)
        tokens = int(tower.patches(blank).shape[1])
    return recognizer.config.frames, tokens, tower.width


def _origin(recognizer: Recognizer, clips: Sequence[LabelledClip], *, half: bool) -> dict[str, Any]:
    """Name all that the tokens of draw 0 follow from."""
    tower = recognizer.video.tower
    return {
        "backbone weights": hash_tensors(tower.model.state_dict()),
        "number of frozen blocks": len(recognizer.video.plain_blocks),
        "frames": recognizer.config.frames,
        "size": recognizer.size,
        "mean": list(tower.mean),
        "std": list(tower.std),
        "view rule": VIEW_RULE,
        "precision": "bfloat16" if half else "float32",
        "clip list": _hash_clips(clips),
    }


def _hash_clips(clips: Sequence[LabelledClip]) -> str:
    """Hash names and sizes in their order; the data may be moved."""
    digest = hashlib.sha256()
    for clip in clips:
        digest.update(f"{clip_name(clip)}\0{_size(clip.path)}\0".encode())
    return digest.hexdigest()


def _size(path: Path) -> int:
    """Return the bytes of a video, or of all pictures of a folder."""
    try:
        files = [*path.iterdir()] if path.is_dir() else [path]
        return sum(file.stat().st_size for file in files)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error}); remove it from the data.") from error


@dataclass(frozen=True, slots=True)
class _Pass:
    """Clips of one trunk pass, from `first` on, all in the same draw."""

    draw: int
    first: int


class _Builder:
    """Makes passes in threads, each of which decodes its clips and runs the trunk on one core.

    A thread's next clips are so decoded while others compute, no thread waits for another inside
    an operation, and the bits do not depend on how many there are.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        clips: Sequence[LabelledClip],
        half: bool,
        seed: int,
        augmentation: ClipAugmentation,
    ) -> None:
        self.recognizer, self.clips, self.half = recognizer, clips, half
        self.seed, self.augmentation = seed, augmentation
        self.workers = min(len(os.sched_getaffinity(0)), MOST_WORKERS)
        self.device = Lock() if recognizer.device.type != "cpu" else nullcontext()

    def build(self, parts: dict[int, DrawPart]) -> None:
        """Fill what the parts lack."""
        todo = [
            _Pass(draw, first)
            for draw, part in parts.items()
            for first in range(0, len(self.clips), PASS_CLIPS)
            if not part.done[first : first + PASS_CLIPS].all()
        ]
        total = len(parts) * len(self.clips)
        lacking = sum(len(self._clips(one)) for one in todo)
        settled = time.monotonic()
        with tqdm(total=total, initial=total - lacking, desc="trunk cache", unit="clip") as bar:
            for one, rows_BTLD in self._made(todo):
                part = parts[one.draw]
                part.put(one.first, rows_BTLD)
                if part.done.all() or time.monotonic() - settled > SETTLE_S:
                    part.settle()
                    settled = time.monotonic()
                bar.update(len(rows_BTLD))
        for part in parts.values():  # killed between the last mark and the name
            if part.data.is_file():
                part.settle()

    def _clips(self, one: _Pass) -> Sequence[LabelledClip]:
        return self.clips[one.first : one.first + PASS_CLIPS]

    def _made(self, todo: Sequence[_Pass]) -> Iterator[tuple[_Pass, NDArray[np.float16]]]:
        """Hand out passes in order, with a few made ahead."""
        threads = torch.get_num_threads()
        pool = ThreadPoolExecutor(self.workers, "trunk", torch.set_num_threads, (1,))
        waiting: deque[tuple[_Pass, Future[NDArray[np.float16]]]] = deque()
        try:
            for one in todo:
                waiting.append((one, pool.submit(self._make, one)))
                if len(waiting) > 2 * self.workers:
                    first, rows = waiting.popleft()
                    yield first, rows.result()
            for one, rows in waiting:
                yield one, rows.result()
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)  # also for threads to come

    def _make(self, one: _Pass) -> NDArray[np.float16]:
        clips = self._clips(one)
        views_BTHWC = np.stack([self._read(clip, one.draw) for clip in clips])
        kind = self.recognizer.device.type
        half = torch.autocast(kind, torch.bfloat16, enabled=self.half)
        with self.device, torch.inference_mode(), half:
            tokens_BTLD = self.recognizer.trunk(views_BTHWC).float()
            largest_B = tokens_BTLD.abs().amax(dim=(1, 2, 3)).tolist()
            rows_BTLD: NDArray[np.float16] = tokens_BTLD.half().cpu().numpy()
        for clip, largest in zip(clips, largest_B, strict=True):
            if not largest <= LARGEST:
                raise InputError(
                    f"The frozen blocks give {largest:g} for {clip.path}, beyond float16's "
                    f"{LARGEST:g}; work without a trunk cache."
                )
        return rows_BTLD

    def _read(self, clip: LabelledClip, draw: int) -> NDArray[np.uint8]:
        try:
            return read_view(
                clip,
                frames=self.recognizer.config.frames,
                size=self.recognizer.size,
                draw=draw,
                seed=self.seed,
                augmentation=self.augmentation,
            )
        except ClipError as error:
            raise InputError(str(error)) from error
