"""Where a run computes: its processes, one a device, its device and its precision.

Without `torchrun` a run is one process. Several share episodes by number; none is cut in two.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among its peers."""

    rank: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files and speaks to people."""
        return self.rank == 0

    def own(self, numbers: Sequence[int]) -> Sequence[int]:
        """Return this process's part of what is to be done."""
        return numbers[self.rank :: self.count]

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by their sums over all processes."""
        if self.count > 1:
            kept = list(tensors)
            flat = torch.cat([tensor.flatten() for tensor in kept])
            dist.all_reduce(flat)
            parts = flat.split([tensor.numel() for tensor in kept])
            for tensor, part in zip(kept, parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.count > 1:
            dist.barrier()


def join_processes(device: torch.device) -> Processes:
    """Join the peers that `torchrun` started, or stay alone."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return Processes()
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Processes(dist.get_rank(), count)


def leave_processes(processes: Processes) -> None:
    """Let go of the peers."""
    if processes.count > 1:
        dist.destroy_process_group()


def own_device(name: str) -> torch.device:
    """Return the device of this process: `cuda` means the one of its place on this machine."""
    if name == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
        return device
    return torch.device(name)


def half_precision(choice: str, device: str) -> bool:
    """Return whether to compute in bfloat16: by default where the hardware has it.

    Args:
        choice: `auto`, `bf16` or `fp32`.
        device: `cpu` or another kind.
    """
    if choice == "auto":
        return device != "cpu" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return choice == "bf16"
