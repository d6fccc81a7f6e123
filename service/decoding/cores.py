"""How many processors this process may use, by affinity and quota, and who goes first on them."""

import math
import os
from pathlib import Path

NICENESS = 10  # of decoders and the engine's lanes: the event loop, which is soon done, goes first
LEAST = 2  # so that one long clip does not stand before all others
QUOTA = Path("/sys/fs/cgroup/cpu.max")  # control groups, version 2


def usable_cores(quota: Path = QUOTA) -> int:
    """Count the cores that can be kept busy, at least 2.

    Args:
        quota: Where the kernel shows microseconds of processor time, and of which period.
    """
    cores = len(os.sched_getaffinity(0))
    try:
        allowed, period = quota.read_text().split()
        cores = min(cores, math.ceil(int(allowed) / int(period)))
    except (OSError, ValueError):
        pass  # no quota file, or "max"
    return max(LEAST, cores)
