"""Tables of where the memories of a batch are, so that one captured graph serves any tasks.

Dimensions: Q clips, B adapted blocks, P sites, H heads, E width of a head.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from model.episode import Memory
from model.slots import BlockView, TransformerBlock
from model.views import attend_across, attend_own

ALIGNED = 16  # bytes; what a thread of a GPU loads at once begins at a multiple

log = logging.getLogger("kshot.engine")


class AttendByTable(Protocol):
    """As `Attend`, of memories that rows of a table name."""

    def __call__(
        self,
        query_PHQE: Tensor,
        key_PHQE: Tensor,
        value_PHQE: Tensor,
        table_Q3: Tensor,
        aligned: int,
    ) -> Tensor:
        """Return attended_PHQE."""


@dataclass(frozen=True, slots=True)
class TableView:
    """Queries whose memories a kernel reads where a table says that they lie.

    Args:
        kernel: Reads memories by the table.
        table_QB3: From `table_of`, on the device.
    """

    alone = False
    kernel: AttendByTable
    table_QB3: Tensor

    def at(self, place: int) -> BlockView:
        """Return the view of one adapted block."""
        return TableOfBlock(self.kernel, self.table_QB3[:, place])


@dataclass(frozen=True, slots=True)
class TableOfBlock:
    """`TableView` in one adapted block."""

    kernel: AttendByTable
    table_Q3: Tensor

    def attend(self, block: TransformerBlock, tokens_QTRD: Tensor) -> Tensor:
        """Attend to the task's memory and to oneself."""
        attend = partial(self.kernel, table_Q3=self.table_Q3, aligned=ALIGNED)
        return attend_across(block, tokens_QTRD, attend)


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
    """Return the kernel where it runs and agrees with torch; else None, and the log says why."""
    if device.type != "cuda":
        return None
    try:
        from service.engine.passes.memory_kernel import attend_by_table  # needs triton

        noise = torch.randn(2, 2, 3, 4, device=device)
        memories = [Memory(noise, noise), None, Memory(noise, noise)]
        table_Q3 = table_of([memories], noise)[0].to(device)
        got = attend_by_table(noise, noise, noise, table_Q3, ALIGNED)
        torch.testing.assert_close(got, attend_own(noise, noise, noise, memories))
    except Exception as error:  # whatever the compiler's parts raise
        reason = str(error).strip().partition("\n")[0]
        log.warning("Memories of many tasks are read one by one, without a kernel: %s", reason)
        return None
    return attend_by_table


def _row(memory: Memory | None, like: Tensor) -> tuple[int, int, int]:
    if memory is None:
        return 0, 0, 0
    for tensor in (memory.keys_PHMW, memory.values_PHMW):
        if tensor.dtype != like.dtype or tensor.device != like.device:
            raise ValueError(
                f"A memory of {tensor.dtype} on {tensor.device} cannot be read by tokens of "
                f"{like.dtype} on {like.device}; encode the supports again."
            )
        if not tensor.is_contiguous() or tensor.data_ptr() % ALIGNED:
            raise ValueError("A memory is not dense or not aligned; clone it.")
    entries = memory.keys_PHMW.shape[2]
    return memory.keys_PHMW.data_ptr(), memory.values_PHMW.data_ptr(), entries
