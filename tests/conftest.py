"""Shared by all tests."""

import gc
import os
from contextlib import suppress

# Two cores, many small tensors: threads that wait for each other cost more than they give.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from tests.frozen import freeze_again

with suppress(ImportError):  # a lent GPU's machine may lack it
    from hypothesis import HealthCheck, settings

    # How long an example takes to make is another matter when two tests share two cores.
    settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("shared")

gc.disable()  # until everything is imported: nothing of it is garbage

# A GPU's kernels run on the processor where there is no GPU; triton reads it when it is imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_collection_finish() -> None:
    """Take away what test modules have read by now: a service refuses what is no setting of its."""
    for name in [*os.environ]:
        if name.startswith(("KSHOT_SHARED", "KSHOT_KILLS", "KSHOT_TEST_")):
            del os.environ[name]
    gc.enable()
    freeze_again()


def pytest_runtest_logfinish() -> None:
    """Freeze what a service of the test thawed."""
    freeze_again()
