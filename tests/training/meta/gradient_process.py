"""One of the processes of a test: adds up the gradient of the first step and writes it."""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.training.learners import tiny_learner
from training.meta.processes import join_processes, leave_processes


def main() -> None:
    processes = join_processes(torch.device("cpu"))
    learner = tiny_learner(processes=processes)
    loss = learner.accumulate()
    gradients = {n: p.grad for n, p in learner.trained.items() if p.grad is not None}
    file = Path(sys.argv[1]) / f"{processes.rank}-of-{processes.count}.safetensors"
    save_file({**gradients, "loss": torch.tensor([loss])}, file)
    leave_processes(processes)
