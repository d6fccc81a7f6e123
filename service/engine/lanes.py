"""Cores that run parts of a batch beside each other, instead of every operation together.

The threads of one pass meet after each operation, a thousand times a clip. Where decoders and the
event loop use the same cores, one of them is always late, and the others wait. Parts of a batch
do not meet, and a lane that is done with its part goes on with one of the next batch.
"""

import concurrent.futures
import contextlib
import itertools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from service.decoding.cores import NICENESS
from service.engine.runtimes.protocol import Runtime

Part = TypeVar("Part")
Made = TypeVar("Made")


class Lanes:
    """Threads in which torch uses one core each.

    Args:
        count: How many, 2 or more.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        threads = torch.get_num_threads()
        niceness = os.getpriority(os.PRIO_PROCESS, 0) + NICENESS
        started = threading.Barrier(count + 1)

        def start() -> None:
            torch.get_num_threads()  # else the thread's first operation takes the number of others
            torch.set_num_threads(1)  # of this thread, and of those to come
            with contextlib.suppress(OSError):  # only on Linux has a thread a priority of its own
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
            started.wait()

        self._pool = ThreadPoolExecutor(count, "lane", initializer=start)
        for _ in range(count):
            self._pool.submit(int)
        started.wait()
        torch.set_num_threads(threads)

    def start(
        self, work: Callable[[Part], Made], parts: Sequence[Part]
    ) -> Callable[[], list[Made]]:
        """Begin to do the work with every part, behind what was begun before.

        Returns:
            A call that waits until all parts have ended. It raises what the first of those that
            failed has raised; no part runs on by then.
        """
        begun = [self._pool.submit(work, part) for part in parts]

        def finish() -> list[Made]:
            concurrent.futures.wait(begun)
            return [one.result() for one in begun]

        return finish

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()


def lanes_of(runtime: Runtime) -> int:
    """Tell how many cores take their share of a batch each; ONNX Runtime has threads of its own."""
    alone = runtime.device.type != "cpu" or runtime.kind == "onnx"
    return 1 if alone else torch.get_num_threads()


def usual_batch_frames(device: torch.device) -> int:
    """Tell the most frames of one batch where nobody says: larger passes leave a core's caches."""
    return 256 if device.type == "cuda" else 16 * torch.get_num_threads()


def shares(count: int, lanes: int) -> list[slice]:
    """Part so many things in order among lanes, none with two more than another."""
    least, more = divmod(count, lanes)
    starts = [lane * least + min(lane, more) for lane in range(lanes + 1)]
    return [slice(*ends) for ends in itertools.pairwise(starts)]
