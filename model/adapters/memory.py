"""What queries of a task attend to beside themselves, and how torch reads it.

Dimensions: Q clips, M memory entries, P sites, H heads, E width of a head.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# From query_PHQE, key_PHQE and value_PHQE of clips to attended_PHQE.
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
ALIGNED = 16  # bytes; what a thread of a GPU loads at once begins at a multiple


@dataclass(frozen=True, slots=True)
class Memory:
    """What a query may attend to in one adapted block, beside itself."""

    keys_PHME: Tensor
    values_PHME: Tensor

    @property
    def bytes(self) -> int:
        """Memory held by the keys and values."""
        return self.keys_PHME.nbytes + self.values_PHME.nbytes

    def to(self, device: torch.device) -> "Memory":
        """Return the same memory on another device."""
        return Memory(self.keys_PHME.to(device), self.values_PHME.to(device))


def attend_own(
    query_PHQE: Tensor, key_PHQE: Tensor, value_PHQE: Tensor, memories: Sequence[Memory | None]
) -> Tensor:
    """Let each clip attend to its memory and itself; clips of one memory read it together.

    Returns:
        attended_PHQE.
    """
    groups: dict[int, list[int]] = {}
    for place, memory in enumerate(memories):
        groups.setdefault(id(memory), []).append(place)
    if len(groups) == 1:
        return attend_to(query_PHQE, key_PHQE, value_PHQE, memories[0])
    parts = [
        attend_to(
            query_PHQE[:, :, places],
            key_PHQE[:, :, places],
            value_PHQE[:, :, places],
            memories[places[0]],
        )
        for places in groups.values()
    ]
    order = torch.tensor([place for places in groups.values() for place in places])
    return torch.cat(parts, dim=2)[:, :, order.argsort()]


def attend_to(
    query_PHQE: Tensor, key_PHQE: Tensor, value_PHQE: Tensor, memory: Memory | None
) -> Tensor:
    """Attend, each clip alone, to one memory and to itself, without copying the memory."""
    if memory is None:
        return attend_alone(query_PHQE, key_PHQE, value_PHQE)
    query_PHQE = query_PHQE * query_PHQE.shape[-1] ** -0.5
    to_memory_PHQM = query_PHQE @ memory.keys_PHME.transpose(-1, -2)
    to_self_PHQ1 = (query_PHQE * key_PHQE).sum(dim=-1, keepdim=True)
    weights = torch.cat([to_memory_PHQM, to_self_PHQ1], dim=-1).softmax(dim=-1)
    return weights[..., :-1] @ memory.values_PHME + weights[..., -1:] * value_PHQE


def attend_alone(query_PHQE: Tensor, key_PHQE: Tensor, value_PHQE: Tensor) -> Tensor:  # noqa: ARG001
    """Attend, each clip to itself: attention to a single key is its value."""
    return value_PHQE
