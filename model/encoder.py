"""Towers with adapters: clips to frame features, stage texts to stage features.

Dimensions: G episodes, B S Q clips, N classes, A stages, T frames, C H W pixels, L tokens, D token
width, E feature width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from model.adapters.aim import ALL, AimBlock
from model.adapters.memory import Attend, Memory, attend_alone, attend_own
from model.adapters.memory_table import AttendByTable
from model.adapters.order import OrderBlock
from model.adapters.task import TaskBlock
from model.backbones import blocks
from model.backbones.towers import ImageTower, TextTower
from model.config import QueryContext

ALONE: tuple[QueryContext, ...] = ("none", "self")  # a query sees no clip but itself


@dataclass(frozen=True, slots=True)
class SupportContext:
    """What queries of a task attend to in each adapted block; None where only themselves."""

    memories: tuple[Memory | None, ...]

    @property
    def bytes(self) -> int:
        """Memory held."""
        return sum(memory.bytes for memory in self.memories if memory is not None)

    def to(self, device: torch.device) -> "SupportContext":
        """Return the same context on another device."""
        memories = (memory if memory is None else memory.to(device) for memory in self.memories)
        return SupportContext(tuple(memories))


class VideoEncoder(nn.Module):
    """An image tower whose top blocks are adapted.

    Args:
        tower: The frozen image tower.
        adapted: The adapted blocks, lowest first; they take the place of the tower's top ones.
        frames: T.
        temporal_embedding: Where the trained embedding of frame places is added: in front of the
            first adapted block (the trunk below stays frozen and cacheable) or at the input, as
            released. A tower without adapted blocks has none.
        query_context: What queries attend to (design 3.2).
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        tower: ImageTower,
        adapted: Sequence[AimBlock | TaskBlock],
        *,
        frames: int,
        temporal_embedding: Literal["first_adapted", "input"],
        query_context: QueryContext,
    ) -> None:
        super().__init__()
        self.tower = tower
        self.adapted = nn.ModuleList(adapted)
        self.query_context = query_context
        self.at_input = temporal_embedding == "input"
        self.folded = False  # whether `tower` takes pixels as they are
        self.plain_blocks = tower.blocks[: len(tower.blocks) - len(adapted)]
        self.temporal_embedding = (
            nn.Parameter(torch.zeros(frames, 1, tower.width)) if adapted else None
        )
        self.register_buffer("mean", torch.tensor(tower.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(tower.std).view(3, 1, 1), persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        """What the tower computes in; pixels are normalised in fp32 before."""
        return next(self.tower.model.parameters()).dtype

    def trunk(self, frames_BTHWC: Tensor) -> Tensor:
        """Run the plain frozen blocks, which know no task and hold nothing that is trained.

        (A temporal embedding at the input is trained, and then the trunk is not constant.)

        Args:
            frames_BTHWC: RGB, uint8 in [0, 255], square at the tower's size.

        Returns:
            tokens_BTLD in front of the first adapted block.
        """
        pixels_BTCHW = frames_BTHWC.permute(0, 1, 4, 2, 3)
        if not self.folded:
            pixels = pixels_BTCHW.to(self.mean.dtype) / 255
            pixels_BTCHW = pixels.sub_(self.mean).div_(self.std).to(self.dtype)
        return self.trunk_of_pixels(pixels_BTCHW)

    @torch.no_grad()
    def fold(self) -> None:
        """Fold into the tower's weights what they can take: faster, same tokens.

        That is the normalisation of pixels, the factors of activations, and linear maps of adapters
        that meet others of the block. For inference alone: the state dict is no checkpoint's any
        more, and nothing can be trained.
        """
        if not self.folded:
            self.folded = self.tower.fold_pixels(self.mean, self.std)
            for block, _ in self._adapted_blocks():
                block.fold()
            self.tower.fold_activations()

    def trunk_of_pixels(self, pixels_BTCHW: Tensor) -> Tensor:
        """Run the trunk on pixels that are normalised already."""
        tokens_BTLD = self.tower.patches(pixels_BTCHW.flatten(0, 1)).unflatten(
            0, pixels_BTCHW.shape[:2]
        )
        if self.at_input and self.temporal_embedding is not None:
            tokens_BTLD = tokens_BTLD + self.temporal_embedding
        tokens = self.tower.norm(tokens_BTLD.flatten(0, 1))
        for block in self.plain_blocks:
            tokens = blocks.forward(block, tokens)
        return tokens.unflatten(0, tokens_BTLD.shape[:2])

    def adapt_support(
        self,
        tokens_STLD: Tensor,
        classes_S: Tensor,
        query_context: QueryContext | None = None,
    ) -> tuple[Tensor, SupportContext]:
        """Encode the support clips of one task.

        Args:
            tokens_STLD: The trunk's output.
            classes_S: Class index of each clip, 0 .. N-1, every class present.
            query_context: What queries will attend to, where that is less than the method's own;
                the supports attend to each other all the same.

        Returns:
            features_STE and what the task's queries attend to.
        """
        entries_MS = query_entries(
            query_context or self.query_context, classes_S, tokens_STLD.dtype
        )
        memories: list[Memory | None] = []
        tokens_STLD = self._placed(tokens_STLD)
        for block, reads in self._adapted_blocks():
            if isinstance(block, TaskBlock) and self.query_context != "none":
                tokens_STLD, memory = block.support(tokens_STLD, entries_MS, reads)
                memories.append(memory)
            else:
                tokens_STLD = block(tokens_STLD, reads)
                memories.append(None)
        return self._features(tokens_STLD), SupportContext(tuple(memories))

    def adapt_query(self, tokens_QTLD: Tensor, contexts: Sequence[SupportContext]) -> Tensor:
        """Encode query clips, each with the context of its own task; tasks may be mixed.

        Returns:
            features_QTE.
        """
        if self.query_context in ALONE:
            return self.adapt_alone(tokens_QTLD)
        by_block = zip(*(context.memories for context in contexts), strict=True)
        return self._adapt(tokens_QTLD, [partial(attend_own, memories=of) for of in by_block])

    def adapt_by_table(
        self, attend: AttendByTable, tokens_QTLD: Tensor, table_QB3: Tensor
    ) -> Tensor:
        """Encode query clips, as `adapt_query`, by a kernel that reads memories where they lie.

        Args:
            attend: The kernel.
            tokens_QTLD: The trunk's output.
            table_QB3: From `table_of`, on the same device.

        Returns:
            features_QTE.
        """
        by_block = table_QB3.unbind(1)
        return self._adapt(tokens_QTLD, [partial(attend, table_Q3=of) for of in by_block])

    def adapt_alone(self, tokens_BTLD: Tensor) -> Tensor:
        """Encode clips that attend to nothing but themselves; returns features_BTE."""
        return self._adapt(tokens_BTLD, [attend_alone] * len(self.adapted))

    def _adapt(self, tokens_BTLD: Tensor, attends: Sequence[Attend]) -> Tensor:
        tokens_BTLD = self._placed(tokens_BTLD)
        for (block, reads), attend in zip(self._adapted_blocks(), attends, strict=True):
            if isinstance(block, TaskBlock) and self.query_context != "none":
                tokens_BTLD = block.query(tokens_BTLD, attend, reads)
            else:
                tokens_BTLD = block(tokens_BTLD, reads)
        return self._features(tokens_BTLD)

    def adapt_episode(
        self, tokens_STLD: Tensor, classes_S: Tensor, tokens_QTLD: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Encode one episode as `adapt_episodes` does; features_STE and features_QTE."""
        support, query = self.adapt_episodes(tokens_STLD[None], classes_S, tokens_QTLD[None])
        return support[0], query[0]

    def adapt_episodes(
        self,
        tokens_GSTLD: Tensor,
        classes_S: Tensor,
        tokens_GQTLD: Tensor,
        *,
        begun: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Encode supports and queries of episodes in one masked pass, as training does.

        Equal to `adapt_support`, then `adapt_query` for each query; `joint` exists here alone.

        Args:
            tokens_GSTLD: The supports of each episode.
            classes_S: Class index of each support, the same in all episodes.
            tokens_GQTLD: The queries of each episode.
            begun: Whether tokens went through `begin` already.

        Returns:
            features_GSTE and features_GQTE.
        """
        episodes, supports = tokens_GSTLD.shape[:2]
        tokens = torch.cat([tokens_GSTLD, tokens_GQTLD], dim=1)
        if not begun:
            tokens = self.begin(tokens.flatten(0, 1)).unflatten(0, (episodes, -1))
        means_NB, mask_BM = episode_layout(
            self.query_context, classes_S, tokens_GQTLD.shape[1], tokens.dtype
        )
        for index, (block, reads) in enumerate(self._adapted_blocks()):
            if index:
                in_time = block.across_frames(tokens.flatten(0, 1), reads)
                tokens = in_time.unflatten(0, (episodes, -1))
            if isinstance(block, TaskBlock) and self.query_context != "none":
                tokens = block.across_clips(tokens, means_NB, mask_BM)
            else:
                tokens = block.per_token(tokens)
        features_GBTE = self._features(tokens.flatten(0, 1)).unflatten(0, (episodes, -1))
        return features_GBTE[:, :supports], features_GBTE[:, supports:]

    def begin(self, tokens_BTLD: Tensor) -> Tensor:
        """Run what a clip goes through alone, before it meets others in the first adapted block.

        Returns:
            tokens_BTRD for `adapt_episodes`; R is 1 where nobody reads more, else L.
        """
        tokens_BTLD = self._placed(tokens_BTLD)
        for block, reads in self._adapted_blocks():
            return block.across_frames(tokens_BTLD, reads)
        return tokens_BTLD

    def _placed(self, tokens: Tensor) -> Tensor:
        """Add the places of frames where the first adapted block wants them."""
        if self.at_input or self.temporal_embedding is None:
            return tokens
        return tokens + self.temporal_embedding

    def _adapted_blocks(self) -> Iterator[tuple[AimBlock | TaskBlock, slice]]:
        """Yield each adapted block with the tokens that are read of it."""
        last = len(self.adapted) - 1
        only_class = slice(0, 1) if self.tower.reads_class_token else ALL
        for index, block in enumerate(self.adapted):
            assert isinstance(block, AimBlock)
            yield block, only_class if index == last else ALL

    def _features(self, tokens_BTLD: Tensor) -> Tensor:
        return self.tower.head(tokens_BTLD.flatten(0, 1)).unflatten(0, tokens_BTLD.shape[:2])


def class_means(classes_S: Tensor, dtype: torch.dtype) -> Tensor:
    """Return rows [N, S] that average the clips of each class."""
    member_SN = nn.functional.one_hot(classes_S).to(dtype)
    return (member_SN / member_SN.sum(dim=0)).T


def query_entries(context: QueryContext, classes_S: Tensor, dtype: torch.dtype) -> Tensor | None:
    """Return rows [M, S] that mix supports into what a query sees beside itself, or None."""
    match context:
        case "support":
            return torch.eye(len(classes_S), dtype=dtype, device=classes_S.device)
        case "prototype":
            return class_means(classes_S, dtype)
        case "none" | "self" | "joint":
            return None


def episode_layout(
    context: QueryContext, classes_S: Tensor, queries: int, dtype: torch.dtype
) -> tuple[Tensor | None, Tensor]:
    """Return means_NB and mask_BM of a masked pass; supports stand before queries.

    Memory holds every clip, and the class means behind them where queries attend to those.
    """
    supports = len(classes_S)
    clips = supports + queries
    eye_BB = torch.eye(clips, dtype=torch.bool, device=classes_S.device)
    support_row = torch.arange(clips, device=classes_S.device) < supports
    mask_BB = (support_row[:, None] & support_row[None, :]) | eye_BB
    if context == "support":
        mask_BB = mask_BB | support_row[None, :]
    if context == "joint":
        mask_BB = mask_BB | (~support_row[:, None] & ~support_row[None, :])
    if context != "prototype":
        return None, mask_BB
    means_NS = class_means(classes_S, dtype)
    means_NB = nn.functional.pad(means_NS, (0, queries))
    sees_means_BN = ~support_row[:, None].expand(clips, len(means_NS))
    return means_NB, torch.cat([mask_BB, sees_means_BN], dim=1)


class TextEncoder(nn.Module):
    """A text tower whose top blocks carry order adapters.

    Args:
        tower: The frozen text tower.
        adapted: The adapted blocks, lowest first, in place of the tower's top ones.
    """

    def __init__(self, tower: TextTower, adapted: Sequence[OrderBlock]) -> None:
        super().__init__()
        self.tower = tower
        self.adapted = nn.ModuleList(adapted)
        self.plain_blocks = tower.blocks[: len(tower.blocks) - len(adapted)]

    def stages(self, ids_NAL: Tensor) -> Tensor:
        """Encode stage texts; any number of classes, each by itself.

        Returns:
            features_NAE.
        """
        mask_LL = self.tower.mask()
        tokens = self.tower.embed(ids_NAL.flatten(0, 1))
        for block in self.plain_blocks:
            tokens = blocks.forward(block, tokens, mask_LL)
        tokens_NALD = tokens.unflatten(0, ids_NAL.shape[:2])
        for adapted in self.adapted:
            tokens_NALD = adapted(tokens_NALD, mask_LL)
        pooled = self.tower.pool(tokens_NALD.flatten(0, 1), ids_NAL.flatten(0, 1))
        return pooled.unflatten(0, ids_NAL.shape[:2])
