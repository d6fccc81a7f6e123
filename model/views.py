"""Views: who is seen in one pass through the adapted blocks.

A block that lets clips see each other asks its view for attention across clips; all others leave
the view alone. Attention runs at each site, one token of one frame, over the clips that may be
seen there. Supports first, cached as memories, and then each query alone give what one masked pass
over all of them gives. Source: model/papers/task_adapter.md.

Dimensions: G episodes, B S Q clips, N classes, M memory entries, T frames, R tokens, D token width,
P sites (G * T * R), H heads, W width of a head.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from model.backbones.attention import attend
from model.config.method import QueryContext
from model.episode import Memory
from model.prototypes.mean import class_means
from model.slots import BlockView, TransformerBlock, View

ALONE: tuple[QueryContext, ...] = ("none", "self")  # a query sees no clip but itself

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From query_PHBW, key_PHBW and value_PHBW of clips to attended_PHBW."""


@dataclass(frozen=True, slots=True)
class Alone:
    """No clip attends to any, not even to itself."""

    alone = True
    memories: ClassVar[Mapping[int, Memory]] = {}

    def at(self, _: int) -> BlockView:
        """Return the view of one adapted block."""
        return self

    def attend(self, *_: object) -> None:
        """Attend to nothing: the block leaves its update across clips out."""
        return


@dataclass(frozen=True, slots=True)
class Itself:
    """Each clip attends to itself alone."""

    alone = True

    def at(self, _: int) -> BlockView:
        """Return the view of one adapted block."""
        return self

    def attend(self, block: TransformerBlock, tokens_BTRD: Tensor) -> Tensor:
        """Attend to one key, which gives its value."""
        return attend_across(block, tokens_BTRD, lambda query, key, value: value)  # noqa: ARG005


@dataclass(frozen=True, slots=True)
class SupportView:
    """The supports of one task: each attends to all of them.

    Args:
        entries_MS: Rows that mix supports into what queries will attend to; None when queries
            attend to no support.
        memories: What queries will attend to in each adapted block, written by the pass.
    """

    alone = False
    entries_MS: Tensor | None = None
    memories: dict[int, Memory] = field(default_factory=dict)

    def at(self, place: int) -> BlockView:
        """Return the view of one adapted block."""
        return SupportsOfBlock(self, place)


@dataclass(frozen=True, slots=True)
class SupportsOfBlock:
    """`SupportView` in one adapted block."""

    view: SupportView
    place: int

    def attend(self, block: TransformerBlock, tokens_STRD: Tensor) -> Tensor:
        """Attend to all supports, and keep what queries will attend to."""
        attended_STRD = attend_across(block, tokens_STRD, attend)
        if self.view.entries_MS is not None:
            normed_STRD = block.norm_attention(tokens_STRD)
            normed_MTRD = torch.einsum("ms,strd->mtrd", self.view.entries_MS, normed_STRD)
            _, keys_PHMW, values_PHMW = block.heads(sites(normed_MTRD[None]))
            memory = Memory(keys_PHMW.contiguous(), values_PHMW.contiguous())
            self.view.memories[self.place] = memory
        return attended_STRD


@dataclass(frozen=True, slots=True)
class QueryView:
    """Queries, each with the memory of its own task and itself, never with each other.

    Args:
        memories: Of each query, in each adapted block; tasks may be mixed.
    """

    alone = False
    memories: Sequence[Sequence[Memory | None]]

    def at(self, place: int) -> BlockView:
        """Return the view of one adapted block."""
        return QueriesOfBlock([of_query[place] for of_query in self.memories])


@dataclass(frozen=True, slots=True)
class QueriesOfBlock:
    """`QueryView` in one adapted block."""

    memories: Sequence[Memory | None]

    def attend(self, block: TransformerBlock, tokens_QTRD: Tensor) -> Tensor:
        """Attend to the task's memory and to oneself."""

        def to_memories(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            return attend_own(query, key, value, self.memories)

        return attend_across(block, tokens_QTRD, to_memories)


@dataclass(frozen=True, slots=True)
class EpisodeView:
    """Supports and queries of episodes of one layout in a masked pass, as training runs them.

    Args:
        episodes: G; the clips of one episode stand together, supports before queries.
        mask_BM: True where clip B may attend to entry M; M = B, or B + N with class means.
        means_NB: Rows that mix clips into class means, which are entries behind the clips; None
            where no clip attends to means.
    """

    alone = False
    episodes: int
    mask_BM: Tensor
    means_NB: Tensor | None = None

    def at(self, _: int) -> BlockView:
        """Return the view of one adapted block."""
        return self

    def attend(self, block: TransformerBlock, tokens_BTRD: Tensor) -> Tensor:
        """Attend to the clips and class means that the mask shows."""

        def masked(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            if self.means_NB is not None:
                normed_BTRD = block.norm_attention(tokens_BTRD)
                normed_GBTRD = normed_BTRD.unflatten(0, (self.episodes, -1))
                normed_GNTRD = torch.einsum("nb,gbtrd->gntrd", self.means_NB, normed_GBTRD)
                _, mean_key, mean_value = block.heads(sites(normed_GNTRD))
                key, value = (
                    torch.cat([key, mean_key], dim=2),
                    torch.cat([value, mean_value], dim=2),
                )
            return attend(query, key, value, self.mask_BM)

        return attend_across(block, tokens_BTRD, masked, self.episodes)


def support_view(
    context: QueryContext, classes_S: Tensor, dtype: torch.dtype
) -> Alone | SupportView:
    """Return what the supports of one task see, and what queries will see of them."""
    match context:
        case "none":
            return Alone()
        case "support":
            return SupportView(torch.eye(len(classes_S), dtype=dtype, device=classes_S.device))
        case "prototype":
            return SupportView(class_means(classes_S, dtype))
        case "self" | "joint":
            return SupportView()


def alone_view(context: QueryContext) -> View:
    """Return a view in which clips see no other, whatever queries attend to otherwise."""
    return Alone() if context == "none" else Itself()


def query_view(context: QueryContext, memories: Sequence[Sequence[Memory | None]]) -> View:
    """Return what queries see, each with the memories of its own task."""
    match context:
        case "none" | "self":
            return alone_view(context)
        case "support" | "prototype" | "joint":
            return QueryView(memories)


def episode_view(
    context: QueryContext, classes_S: Tensor, queries: int, episodes: int, dtype: torch.dtype
) -> View:
    """Return who sees whom where supports and queries of episodes share a pass.

    Args:
        context: What queries attend to.
        classes_S: Class index of each support, the same in all episodes.
        queries: Of each episode.
        episodes: How many share the pass.
        dtype: Of the tokens.
    """
    if context == "none":
        return Alone()
    supports, clips = len(classes_S), len(classes_S) + queries
    eye_BB = torch.eye(clips, dtype=torch.bool, device=classes_S.device)
    is_support_B = torch.arange(clips, device=classes_S.device) < supports
    mask_BB = (is_support_B[:, None] & is_support_B[None, :]) | eye_BB
    if context == "support":
        mask_BB = mask_BB | is_support_B[None, :]
    if context == "joint":
        mask_BB = mask_BB | (~is_support_B[:, None] & ~is_support_B[None, :])
    if context != "prototype":
        return EpisodeView(episodes, mask_BB)
    means_NS = class_means(classes_S, dtype)
    sees_means_BN = ~is_support_B[:, None].expand(clips, len(means_NS))
    means_NB = nn.functional.pad(means_NS, (0, queries))
    return EpisodeView(episodes, torch.cat([mask_BB, sees_means_BN], dim=1), means_NB)


def attend_across(
    block: TransformerBlock, tokens_BTRD: Tensor, attend_sites: Attend, episodes: int = 1
) -> Tensor:
    """Run a block's attention over clips, at each site by itself.

    Args:
        block: The frozen block.
        tokens_BTRD: The clips, in front of the block's first LayerNorm.
        attend_sites: What a clip attends to.
        episodes: G; clips of different episodes never meet.

    Returns:
        update_BTRD.
    """
    normed_GBTRD = block.norm_attention(tokens_BTRD).unflatten(0, (episodes, -1))
    update_PBD = block.merge(attend_sites(*block.heads(sites(normed_GBTRD))))
    update_GTRBD = update_PBD.unflatten(0, (episodes, *tokens_BTRD.shape[1:3]))
    # Linear maps of transposed tokens are slow, and one clip alone would round otherwise in
    # bfloat16 than in a batch.
    return update_GTRBD.permute(0, 3, 1, 2, 4).flatten(0, 1).contiguous()


def sites(tokens_GBTRD: Tensor) -> Tensor:
    """Make each (episode, frame, token) site a sequence of clips [P, B, D]."""
    return tokens_GBTRD.permute(0, 2, 3, 1, 4).flatten(0, 2).contiguous()


def attend_own(
    query_PHQW: Tensor, key_PHQW: Tensor, value_PHQW: Tensor, memories: Sequence[Memory | None]
) -> Tensor:
    """Let each clip attend to its memory and itself; clips of one memory read it together.

    Returns:
        attended_PHQW.
    """
    groups: dict[int, list[int]] = {}
    for place, memory in enumerate(memories):
        groups.setdefault(id(memory), []).append(place)
    if len(groups) == 1:
        return attend_to(query_PHQW, key_PHQW, value_PHQW, memories[0])
    parts = [
        attend_to(
            query_PHQW[:, :, places],
            key_PHQW[:, :, places],
            value_PHQW[:, :, places],
            memories[places[0]],
        )
        for places in groups.values()
    ]
    order = torch.tensor([place for places in groups.values() for place in places])
    return torch.cat(parts, dim=2)[:, :, order.argsort()]


def attend_to(
    query_PHQW: Tensor, key_PHQW: Tensor, value_PHQW: Tensor, memory: Memory | None
) -> Tensor:
    """Attend, each clip alone, to one memory and to itself, without copying the memory."""
    if memory is None:
        return value_PHQW  # attention to a single key gives its value
    query_PHQW = query_PHQW * query_PHQW.shape[-1] ** -0.5
    to_memory_PHQM = query_PHQW @ memory.keys_PHMW.transpose(-1, -2)
    to_self_PHQ1 = (query_PHQW * key_PHQW).sum(dim=-1, keepdim=True)
    weights = torch.cat([to_memory_PHQM, to_self_PHQ1], dim=-1).softmax(dim=-1)
    return weights[..., :-1] @ memory.values_PHMW + weights[..., -1:] * value_PHQW
