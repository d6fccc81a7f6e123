"""Tables of where the memories of a batch are, so that one captured graph serves any tasks.

Dimensions: Q clips, B adapted blocks, P sites, H heads, E width of a head.
"""

import logging
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from model.adapters.memory import ALIGNED, Memory, attend_own

log = logging.getLogger("kshot.model")


class AttendByTable(Protocol):
    """As `Attend`, of memories that rows of a table name."""

    def __call__(
        self, query_PHQE: Tensor, key_PHQE: Tensor, value_PHQE: Tensor, table_Q3: Tensor
    ) -> Tensor:
        """Return attended_PHQE."""


def table_of(memories_QB: Sequence[Sequence[Memory | None]], like: Tensor) -> Tensor:
    """Write down where memories are; they have to be there until the pass that reads them is done.

    Args:
        memories_QB: Of each clip, in each adapted block.
        like: Of the type and on the device of the tokens that will read them.

    Returns:
        table_QB3, on the processor: address of keys, address of values, and entries, 0 for None.

    Raises:
        ValueError: A memory lies elsewhere, is of another type, is not dense or not aligned.
    """
    return torch.tensor([[_row(one, like) for one in of_clip] for of_clip in memories_QB])


def kernel_or_none(device: torch.device) -> AttendByTable | None:
    """Give what reads memories by a table, or say in the log why there is nothing."""
    if device.type != "cuda":
        return None
    try:
        from model.adapters.memory_kernel import attend_by_table  # needs triton

        noise = torch.randn(2, 2, 3, 4, device=device)
        memories = [Memory(noise, noise), None, Memory(noise, noise)]
        table_Q3 = table_of([memories], noise)[0].to(device)
        got = attend_by_table(noise, noise, noise, table_Q3)
        torch.testing.assert_close(got, attend_own(noise, noise, noise, memories))
    except Exception as error:  # whatever the compiler's parts raise
        reason = str(error).strip().partition("\n")[0]
        log.warning("Memories of many tasks are read one by one, without a kernel: %s", reason)
        return None
    return attend_by_table


def _row(memory: Memory | None, like: Tensor) -> tuple[int, int, int]:
    if memory is None:
        return 0, 0, 0
    for tensor in (memory.keys_PHME, memory.values_PHME):
        if tensor.dtype != like.dtype or tensor.device != like.device:
            raise ValueError(
                f"A memory of {tensor.dtype} on {tensor.device} cannot be read by tokens of "
                f"{like.dtype} on {like.device}; encode the supports again."
            )
        if not tensor.is_contiguous() or tensor.data_ptr() % ALIGNED:
            raise ValueError("A memory is not dense or not aligned; clone it.")
    entries = memory.keys_PHME.shape[2]
    return memory.keys_PHME.data_ptr(), memory.values_PHME.data_ptr(), entries
