"""Task-Adapter: attention across the videos of a task (specs/methods-1, sections 5.1 and 6.10).

At each site, one frame and one token, the frozen attention runs over the task's clips. A clip
reads *memory*: keys and values of clips, or of class means, that a mask lets it see.

Dimensions: G episodes, B S Q clips, N classes, M memory entries, T frames, L tokens, R read
tokens, P sites = T*R (of each episode), H heads, E width of a head, D width.
"""

import torch
from torch import Tensor

from model.adapters.aim import ALL, AimBlock
from model.adapters.bottleneck import Bottleneck
from model.adapters.memory import Attend, Memory
from model.backbones import blocks
from model.backbones.blocks import FrozenBlock


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
        return self._finish(tokens_GBTRD, attended)

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
        return self._finish(tokens_STRD[None], attended)[0], memory

    def query(self, tokens_QTLD: Tensor, attend: Attend, reads: slice = ALL) -> Tensor:
        """Run query clips, each with the memory of its own task and itself, never each other.

        Args:
            tokens_QTLD: The query clips.
            attend: Reads each clip's memory.
            reads: As in `across_frames`.

        Returns:
            tokens_QTRD.
        """
        tokens_QTRD = self.across_frames(tokens_QTLD, reads)
        normed_QTRD = self.block.norm_attention(tokens_QTRD)
        query, key, value = self.block.heads(sites(normed_QTRD[None]))
        attended = attend(query, key, value)
        return self._finish(tokens_QTRD[None], attended)[0]

    def behind_attention(self) -> tuple[Bottleneck, ...]:
        """Add the task adapter to those that alone read what attention gives."""
        return (*super().behind_attention(), self.task)

    def _finish(self, tokens_GBTRD: Tensor, attended_PHBE: Tensor) -> Tensor:
        episodes, _, frames, read, _ = tokens_GBTRD.shape
        update_PBD = self.update(self.task, attended_PHBE)
        update_GTRBD = update_PBD.unflatten(0, (episodes, frames, read))
        return self.per_token(tokens_GBTRD + update_GTRBD.permute(0, 3, 1, 2, 4))


def sites(tokens_GBTRD: Tensor) -> Tensor:
    """Make each (episode, frame, token) site a sequence of clips [P, B, D]."""
    return tokens_GBTRD.permute(0, 2, 3, 1, 4).flatten(0, 2).contiguous()  # else linear maps crawl
