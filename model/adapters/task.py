"""Task-Adapter: attention across the videos of a task (specs/methods-1, sections 5.1 and 6.10).

At each site, one frame and one token, the frozen attention runs over the task's clips. A clip
reads *memory*: keys and values of clips, or of class means, that a mask lets it see.

Dimensions: G episodes, B S Q clips, N classes, M memory entries, T frames, L tokens, R read
tokens, P sites = T*R (of each episode), H heads, E width of a head, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model import blocks
from model.adapters.aim import ALL, AimBlock
from model.adapters.bottleneck import Bottleneck
from model.blocks import FrozenBlock

STACK_BYTES = 512 << 20  # of memories read at once


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


class TaskBlock(AimBlock):
    """A frozen block adapted in time, in space, across clips and beside its MLP.

    Args:
        block: The frozen block; its weights stay its tower's.
        width: Token width D.
        ratio: Hidden width of the adapters as a fraction of D.
        zero_init: False starts the task adapter at random, as released.
    """

    def __init__(
        self, block: FrozenBlock, width: int, ratio: float, *, zero_init: bool = True
    ) -> None:
        super().__init__(block, width, ratio, joint_scale=1.0)
        self.task = Bottleneck(width, ratio, zero_init=zero_init)

    def across_clips(
        self, tokens_GBTRD: Tensor, means_NB: Tensor | None, mask_BM: Tensor
    ) -> Tensor:
        """Run what follows `across_frames` for the clips of episodes; all have one layout.

        Args:
            tokens_GBTRD: What `across_frames` gives for all clips.
            means_NB: Rows that sum to 1 and mix clips into class means, which are memory entries
                behind the clips; None where no clip attends to means.
            mask_BM: True where clip B may attend to entry M, M = B or B + N.

        Returns:
            tokens_GBTRD.
        """
        normed_GBTRD = self.block.norm_attention(tokens_GBTRD)
        query, keys, values = self.block.heads(sites(normed_GBTRD))
        if means_NB is not None:
            normed_GNTRD = torch.einsum("nb,gbtrd->gntrd", means_NB, normed_GBTRD)
            _, mean_keys, mean_values = self.block.heads(sites(normed_GNTRD))
            keys = torch.cat([keys, mean_keys], dim=2)
            values = torch.cat([values, mean_values], dim=2)
        attended = blocks.attend(query, keys, values, mask_BM)
        return self._finish(tokens_GBTRD, self.block.merge(attended))

    def support(
        self, tokens_STLD: Tensor, entries_MS: Tensor | None, reads: slice = ALL
    ) -> tuple[Tensor, Memory | None]:
        """Run the support clips of a task; each sees all of them.

        Args:
            tokens_STLD: The support clips.
            entries_MS: Rows that mix clips into what queries will see; None when they see none.
            reads: As in `across_frames`.

        Returns:
            tokens_STRD and the memory.
        """
        tokens_STRD = self.across_frames(tokens_STLD, reads)
        normed_STRD = self.block.norm_attention(tokens_STRD)
        query, key, value = self.block.heads(sites(normed_STRD[None]))
        attended = blocks.attend(query, key, value)
        memory = None
        if entries_MS is not None:
            normed_MTRD = torch.einsum("ms,strd->mtrd", entries_MS, normed_STRD)
            _, keys_PHME, values_PHME = self.block.heads(sites(normed_MTRD[None]))
            memory = Memory(keys_PHME.contiguous(), values_PHME.contiguous())
        return self._finish(tokens_STRD[None], self.block.merge(attended))[0], memory

    def query(
        self, tokens_QTLD: Tensor, memories: Sequence[Memory | None], reads: slice = ALL
    ) -> Tensor:
        """Run query clips, each with the memory of its own task and itself, never each other.

        Returns:
            tokens_QTRD.
        """
        tokens_QTRD = self.across_frames(tokens_QTLD, reads)
        normed_QTRD = self.block.norm_attention(tokens_QTRD)
        query, key, value = self.block.heads(sites(normed_QTRD[None]))
        attended = attend_own(query, key, value, memories)
        return self._finish(tokens_QTRD[None], self.block.merge(attended))[0]

    def _finish(self, tokens_GBTRD: Tensor, attended_PBD: Tensor) -> Tensor:
        episodes, _, frames, read, _ = tokens_GBTRD.shape
        update_GTRBD = self.task(attended_PBD).unflatten(0, (episodes, frames, read))
        return self.per_token(tokens_GBTRD + update_GTRBD.permute(0, 3, 1, 2, 4))


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
    together = list(groups.values())
    stacks: list[list[int]] = []
    if query_PHQE.device.type == "cuda":
        together, stacks = stacked(together, memories)
    parts = [
        attend_to(
            query_PHQE[:, :, places],
            key_PHQE[:, :, places],
            value_PHQE[:, :, places],
            memories[places[0]],
        )
        for places in together
    ]
    parts += [
        attend_each(
            query_PHQE[:, :, places],
            key_PHQE[:, :, places],
            value_PHQE[:, :, places],
            [memory for memory in (memories[place] for place in places) if memory is not None],
        )
        for places in stacks
    ]
    order = torch.tensor([place for places in (*together, *stacks) for place in places])
    return torch.cat(parts, dim=2)[:, :, order.argsort()]


def stacked(
    groups: Sequence[list[int]], memories: Sequence[Memory | None]
) -> tuple[list[list[int]], list[list[int]]]:
    """Part groups of clips of one memory into those to be read one by one, and stacks.

    A stack is of clips that are alone with their memory, as many entries each, and of no more than
    `STACK_BYTES`. Reading them one by one is thousands of kernels, each too small for a GPU.
    """
    together: list[list[int]] = []
    by_entries: dict[int, list[int]] = {}
    for places in groups:
        memory = memories[places[0]]
        if memory is None or len(places) > 1:
            together.append(places)
        else:
            by_entries.setdefault(memory.keys_PHME.shape[2], []).append(places[0])
    stacks: list[list[int]] = []
    for places in by_entries.values():
        first = memories[places[0]]
        size = max(1, STACK_BYTES // max(1, 0 if first is None else first.bytes))
        stacks += [places[start : start + size] for start in range(0, len(places), size)]
    return together, stacks


def attend_each(
    query_PHQE: Tensor, key_PHQE: Tensor, value_PHQE: Tensor, memories: Sequence[Memory]
) -> Tensor:
    """Attend, each clip to a memory of its own and to itself, all memories of one size.

    The stack is a copy; on an H100 its products took a quarter (5 entries) to three quarters (25)
    of the time of reading one memory after the other (`tests/bench/README.md`).
    """
    keys_PHQME = torch.stack([memory.keys_PHME for memory in memories], dim=2)
    values_PHQME = torch.stack([memory.values_PHME for memory in memories], dim=2)
    query_PHQE = query_PHQE * query_PHQE.shape[-1] ** -0.5
    to_memory_PHQM = (query_PHQE[:, :, :, None] @ keys_PHQME.transpose(-1, -2)).squeeze(3)
    to_self_PHQ1 = (query_PHQE * key_PHQE).sum(dim=-1, keepdim=True)
    weights = torch.cat([to_memory_PHQM, to_self_PHQ1], dim=-1).softmax(dim=-1)
    of_memory_PHQE = (weights[..., None, :-1] @ values_PHQME).squeeze(3)
    return of_memory_PHQE + weights[..., -1:] * value_PHQE


def attend_to(
    query_PHQE: Tensor, key_PHQE: Tensor, value_PHQE: Tensor, memory: Memory | None
) -> Tensor:
    """Attend, each clip alone, to one memory and to itself, without copying the memory."""
    if memory is None:
        return value_PHQE  # attention to a single key is its value
    query_PHQE = query_PHQE * query_PHQE.shape[-1] ** -0.5
    to_memory_PHQM = query_PHQE @ memory.keys_PHME.transpose(-1, -2)
    to_self_PHQ1 = (query_PHQE * key_PHQE).sum(dim=-1, keepdim=True)
    weights = torch.cat([to_memory_PHQM, to_self_PHQ1], dim=-1).softmax(dim=-1)
    return weights[..., :-1] @ memory.values_PHME + weights[..., -1:] * value_PHQE


def sites(tokens_GBTRD: Tensor) -> Tensor:
    """Make each (episode, frame, token) site a sequence of clips [P, B, D]."""
    return tokens_GBTRD.permute(0, 2, 3, 1, 4).flatten(0, 2).contiguous()  # else linear maps crawl
