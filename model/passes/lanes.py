"""Cores that run parts of some work beside each other, instead of every operation together.

The threads of one pass meet after each operation, a thousand times a clip. Where others use the
same cores, one of them is always late, and the others wait. Parts do not meet, and a lane that is
done with its part goes on with the next.
"""

import concurrent.futures
import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Part = TypeVar("Part")
Made = TypeVar("Made")


class Lanes:
    """Threads in which torch uses one core each.

    Args:
        count: How many, 2 or more.
        niceness: By how much others go first.
    """

    def __init__(self, count: int, niceness: int = 0) -> None:
        self.count = count
        threads = torch.get_num_threads()
        priority = os.getpriority(os.PRIO_PROCESS, 0) + niceness
        started = threading.Barrier(count + 1)

        def start() -> None:
            torch.get_num_threads()  # else the thread's first operation takes the number of others
            torch.set_num_threads(1)  # of this thread, and of those to come
            with contextlib.suppress(OSError):  # only on Linux has a thread a priority of its own
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), priority)
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

    def each(self, work: Callable[[Part], Made], parts: Iterable[Part]) -> Iterator[Made]:
        """Do the work with every part, and yield what is made of each, in order."""
        return self._pool.map(work, parts)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()
