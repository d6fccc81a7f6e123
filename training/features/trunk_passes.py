"""Trunk passes that fill a cache, in threads that each decode their clips and run on one core.

A thread's next clips are so decoded while others compute, no thread waits for another inside an
operation, and the bits do not depend on the number of threads.

Dimensions: B clips of a pass, T frames, H = W pixels, C colours, L tokens, D token width.
"""

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from threading import Lock
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from model.errors import ClipError
from model.recognizer import Recognizer
from training.data.datasets import LabelledClip
from training.errors import InputError
from training.features.clip_views import ClipAugmentation, read_view
from training.features.token_parts import DrawPart
from training.progress import progress

PASS_CLIPS = 4  # of one trunk pass; always the same clips, so that a resume gives the same bits
MOST_WORKERS = 16  # each holds the activations of one pass
SETTLE_S = 2.0  # work that a killed process loses at most
LARGEST = float(np.finfo(np.float16).max)


class _Pass(NamedTuple):
    """Clips of one trunk pass, from `first` on, all in the same draw."""

    draw: int
    first: int


class TrunkPasses:
    """Runs the trunk on clips in fixed groups.

    Args:
        recognizer: Whose trunk.
        clips: All clips of the cache.
        half: Whether to compute in bfloat16.
        seed: Of the augmentation draws.
        augmentation: How strongly draws differ.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        clips: Sequence[LabelledClip],
        *,
        half: bool,
        seed: int,
        augmentation: ClipAugmentation,
    ) -> None:
        self.recognizer, self.clips, self.half = recognizer, clips, half
        self.seed, self.augmentation = seed, augmentation
        self.workers = min(len(os.sched_getaffinity(0)), MOST_WORKERS)
        self.device = Lock() if recognizer.device.type != "cpu" else nullcontext()

    def fill(self, parts: dict[int, DrawPart]) -> None:
        """Compute the rows that parts lack, by draw.

        Raises:
            InputError: A clip cannot be read, tokens exceed float16, or the disk is full.
        """
        todo = [
            _Pass(draw, first)
            for draw, part in parts.items()
            for first in range(0, len(self.clips), PASS_CLIPS)
            if not part.done[first : first + PASS_CLIPS].all()
        ]
        total = len(parts) * len(self.clips)
        lacking = sum(len(self._clips(one)) for one in todo)
        settled = time.monotonic()
        with progress(total=total, initial=total - lacking, desc="trunk cache", unit="clip") as bar:
            for one, rows_BTLD in self._computed(todo):
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

    def _computed(self, todo: Sequence[_Pass]) -> Iterator[tuple[_Pass, NDArray[np.float16]]]:
        """Yield passes in order, computing a few ahead."""
        threads = torch.get_num_threads()
        pool = ThreadPoolExecutor(self.workers, "trunk", torch.set_num_threads, (1,))
        waiting: deque[tuple[_Pass, Future[NDArray[np.float16]]]] = deque()
        try:
            for one in todo:
                waiting.append((one, pool.submit(self._compute, one)))
                if len(waiting) > 2 * self.workers:
                    first, rows = waiting.popleft()
                    yield first, rows.result()
            for one, rows in waiting:
                yield one, rows.result()
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)  # also for threads to come

    def _compute(self, one: _Pass) -> NDArray[np.float16]:
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
                squash=self.recognizer.squash,
                draw=draw,
                seed=self.seed,
                augmentation=self.augmentation,
            )
        except ClipError as error:
            raise InputError(str(error)) from error
