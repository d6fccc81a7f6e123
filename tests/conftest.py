"""Shared by all tests."""

import os

# Two cores, many small tensors: threads that wait for each other cost more than they give.
os.environ.setdefault("OMP_NUM_THREADS", "1")
