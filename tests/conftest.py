"""Shared by all tests."""

import os

# Two cores, many small tensors: threads that wait for each other cost more than they give.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

# A GPU's kernels run on the processor where there is no GPU; triton reads it when it is imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
