"""Towers with adapters: clips to frame features, stage texts to stage features.

Dimensions: B clips, N classes, A stages, T frames, C H W pixels, L tokens, D token width,
E feature width.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Literal, cast

import torch
from torch import Tensor, nn

from model.slots import (
    AdaptedBlock,
    AdaptedTextBlock,
    Backbone,
    Block,
    ClipBackbone,
    Temporal,
    TextBackbone,
    View,
)

Run = Callable[[Tensor], Tensor]


class Normalize(nn.Module):
    """Bytes to normalised pixels.

    Args:
        mean: Of RGB in [0, 1].
        std: Likewise.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            few = values if len({*values}) > 1 else values[:1]  # one for all colours is faster
            self.register_buffer(name, torch.tensor(few).view(-1, 1, 1), persistent=False)

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """Return fp32 pixels of uint8 ones."""
        pixels = pixels_BCHW.to(torch.float32) / 255
        return pixels.sub_(self.mean).div_(self.std)


class VideoEncoder(nn.Module):
    """An image tower whose top blocks are adapted.

    Args:
        tower: The image tower.
        adapted: The adapted blocks, lowest first; they take the place of the tower's top ones.
        frames: T.
        temporal_embedding: Where the trained embedding of frame places is added: in front of the
            first adapted block, so that the trunk below stays constant, or at the input, as
            released, or nowhere. A tower without adapted blocks has none.
        temporal: What happens along time above the tower, or None. Where it reads levels, the trunk
            ends below the lowest of them.
        projected: Whether features are in the space of text; else they are as wide as tokens.
    """

    whole_clips = False  # whether its trunk sees the frames of a clip together

    def __init__(
        self,
        tower: Backbone,
        adapted: Sequence[AdaptedBlock],
        *,
        frames: int,
        temporal_embedding: Literal["first_adapted", "input", "none"] = "first_adapted",
        temporal: Temporal | None = None,
        projected: bool = True,
    ) -> None:
        super().__init__()
        self.tower = tower
        self.projected = projected
        self.adapted = nn.ModuleList(adapted)  # type: ignore[arg-type]  # each is a module
        self.temporal: Temporal | None = temporal
        self.normalize = Normalize(tower.mean, tower.std)
        self.at_input = temporal_embedding == "input"
        self.instants = frames  # of a clip, in front of what happens along time
        reads = 0 if temporal is None else temporal.reads_levels
        self.levels = tuple(tower.levels[-reads:]) if reads else ()
        own = tower.features if projected else tower.width
        self.features = own if temporal is None else temporal.features
        above = len(tower.blocks) - len(adapted)  # the first adapted block
        trunk = min(above, self.levels[0] - 1) if reads else above
        self.plain_blocks = tower.blocks[:trunk]
        self.kept_blocks = tower.blocks[trunk:above]  # plain, and above the trunk
        self.temporal_embedding = (
            nn.Parameter(torch.zeros(frames, 1, tower.width))
            if adapted and not tower.staged and temporal_embedding != "none"
            else None
        )

    @property
    def feature_instants(self) -> int:
        """How many features a clip has, in their order of time."""
        return 1 if self.temporal is not None and self.temporal.one_instant else self.instants

    @property
    def across_clips(self) -> bool:
        """Whether clips can see each other in an adapted block."""
        return any(block.across_clips for block in self.adapted)

    @property
    def reads_text(self) -> bool:
        """Whether supports bring the text of their class into an adapted block."""
        return any(block.reads_text for block in self.adapted)

    @property
    def transductive(self) -> bool:
        """Whether what a clip gives depends on the other clips of its pass, whatever the view."""
        return self.temporal is not None and self.temporal.transductive

    def is_initial(self) -> bool:
        """Tell whether it computes what the frozen tower computes."""
        parts = [*self.adapted, *([] if self.temporal is None else [self.temporal])]
        placed = self.temporal_embedding is not None and bool(self.temporal_embedding.any())
        return not placed and all(part.is_initial() for part in parts)

    def trunk(self, frames_BTHWC: Tensor) -> Tensor:
        """Run the plain blocks, which know no task.

        What they give is constant while nothing of it is trained: the tower, or an embedding of
        frame places at the input.

        Args:
            frames_BTHWC: RGB, uint8 in [0, 255], square at the tower's size.

        Returns:
            tokens_BTLD in front of the first adapted block.
        """
        return self.trunk_of_pixels(self.pixels(frames_BTHWC))

    def pixels(self, frames_BTHWC: Tensor) -> Tensor:
        """Return normalised pixels_BTCHW as the tower takes them."""
        pixels_BTCHW = frames_BTHWC.permute(0, 1, 4, 2, 3)
        pixels_NCHW = self.normalize(pixels_BTCHW.flatten(0, 1))
        dtype = next(self.tower.model.parameters()).dtype
        return pixels_NCHW.to(dtype).unflatten(0, pixels_BTCHW.shape[:2])

    def trunk_of_pixels(self, pixels_BTCHW: Tensor) -> Tensor:
        """Run the trunk on pixels that are normalised already."""
        tokens_BTLD = self.embedded(pixels_BTCHW)
        for block in self.plain_blocks:
            tokens_BTLD = _frame_by_frame(block, tokens_BTLD)
        return tokens_BTLD

    def embedded(self, pixels_BTCHW: Tensor) -> Tensor:
        """Return the tokens in front of the first block."""
        tokens_NLD = self.tower.patches(pixels_BTCHW.flatten(0, 1))
        tokens_BTLD = tokens_NLD.unflatten(0, pixels_BTCHW.shape[:2])
        if self.at_input and self.temporal_embedding is not None:
            tokens_BTLD = tokens_BTLD + self.temporal_embedding
        return self.tower.norm(tokens_BTLD.flatten(0, 1)).unflatten(0, tokens_BTLD.shape[:2])

    def token_shape(self) -> tuple[int, int, int]:
        """Return T, L and D of the trunk's output."""
        size = self.tower.size
        blank = torch.zeros(1, 3, size, size, device=self.normalize.mean.device)
        with torch.inference_mode():
            tokens = self.tower.norm(self.tower.patches(blank))
            for block in self.plain_blocks if self.tower.staged else ():
                tokens = block.run(tokens)
            return self.instants, *tokens.shape[1:]

    def forward(self, tokens_BTLD: Tensor, view: View, text_BE: Tensor | None = None) -> Tensor:
        """Run the adapted blocks and what stands above them.

        Args:
            tokens_BTLD: The trunk's output, of all clips of the pass.
            view: Who is seen.
            text_BE: Class text of supports, where `reads_text`.

        Returns:
            features_BTE.
        """
        maps: dict[int, Tensor] = {}  # of the levels that are read, by the blocks below each
        for level, run in self.steps(view, text_BE)[len(self.plain_blocks) :]:
            tokens_BTLD = run(tokens_BTLD)
            self.keep(maps, level, tokens_BTLD)
        return self.above(tokens_BTLD, maps)

    def steps(self, view: View, text_BE: Tensor | None = None) -> list[tuple[int, Run]]:
        """Return what runs each block, the lowest first, with its number from 1.

        Each takes tokens_BTLD of clips and returns theirs; the arguments are those of `forward`.
        """
        plain = [partial(_frame_by_frame, block) for block in self.plain_blocks]
        plain += [partial(_frame_by_frame, block) for block in self.kept_blocks]
        adapted = [partial(self._adapt, place, view, text_BE) for place in range(len(self.adapted))]
        return list(enumerate([*plain, *adapted], 1))

    def above(self, tokens_BTLD: Tensor, maps: Mapping[int, Tensor]) -> Tensor:
        """Run what stands above the blocks, on their tokens and the levels' maps."""
        if self.temporal is not None and self.levels:
            return self.temporal([maps[level] for level in self.levels])
        features_NE = self.pool(tokens_BTLD.flatten(0, 1))
        features_BTE = features_NE.unflatten(0, tokens_BTLD.shape[:2])
        return features_BTE if self.temporal is None else self.temporal(features_BTE)

    def _adapt(self, place: int, view: View, text_BE: Tensor | None, tokens_BTLD: Tensor) -> Tensor:
        """Run one adapted block, with the embedding of places in front of the first."""
        if place == 0 and self.temporal_embedding is not None and not self.at_input:
            tokens_BTLD = tokens_BTLD + self.temporal_embedding
        adapted = cast(AdaptedBlock, self.adapted[place])
        told = (text_BE,) if adapted.reads_text and text_BE is not None else ()
        return adapted(tokens_BTLD, view.at(place), *told)

    def pool(self, tokens_NLD: Tensor) -> Tensor:
        """Turn the last block's tokens into one feature [N, E] a frame."""
        return (self.tower.head if self.projected else self.tower.pooled)(tokens_NLD)

    def keep(self, maps: dict[int, Tensor], level: int, tokens_BTLD: Tensor) -> None:
        """Keep the map after so many blocks, where it is one of the levels that are read."""
        if level in self.levels:
            map_NCHW = self.tower.map(tokens_BTLD.flatten(0, 1))
            maps[level] = map_NCHW.unflatten(0, tokens_BTLD.shape[:2])


class ClipEncoder(VideoEncoder):
    """A network that sees whole clips: its trunk is all of it, and has one token an instant.

    Args:
        tower: The network.
        frames: T.
        temporal: What happens along time above it, or None.
    """

    whole_clips = True

    def __init__(
        self, tower: ClipBackbone, *, frames: int, temporal: Temporal | None = None
    ) -> None:
        super().__init__(cast(Backbone, tower), [], frames=frames, temporal=temporal)
        self.whole = tower.clip
        self.instants = tower.instants(frames)

    def trunk_of_pixels(self, pixels_BTCHW: Tensor) -> Tensor:
        """Run the network on pixels that are normalised already; returns tokens_BU1E."""
        return self.whole(pixels_BTCHW)[:, :, None]

    def token_shape(self) -> tuple[int, int, int]:
        """Return the shape of a clip's tokens."""
        return self.instants, 1, self.tower.features


def _frame_by_frame(block: Block, tokens_BTLD: Tensor) -> Tensor:
    return block.run(tokens_BTLD.flatten(0, 1)).unflatten(0, tokens_BTLD.shape[:2])


class TextEncoder(nn.Module):
    """A text tower whose top blocks are adapted.

    Args:
        tower: The text tower.
        adapted: The adapted blocks, lowest first, in place of the tower's top ones.
    """

    def __init__(self, tower: TextBackbone, adapted: Sequence[AdaptedTextBlock]) -> None:
        super().__init__()
        self.tower = tower
        self.adapted = nn.ModuleList(adapted)  # type: ignore[arg-type]
        self.plain_blocks = tower.blocks[: len(tower.blocks) - len(adapted)]

    def is_initial(self) -> bool:
        """Tell whether it computes what the frozen tower computes."""
        blocks = cast(Iterable[AdaptedTextBlock], self.adapted)
        return all(block.is_initial() for block in blocks)

    def encode(self, texts: Sequence[Sequence[str]], device: torch.device) -> Tensor:
        """Encode the texts of classes, one sentence a stage; returns features_NAE."""
        ids = self.tower.tokenize([text for of_class in texts for text in of_class])
        return self.stages(ids.to(device).unflatten(0, (len(texts), -1)))

    def stages(self, ids_NAL: Tensor) -> Tensor:
        """Encode stage texts; any number of classes, each by itself.

        Returns:
            features_NAE.
        """
        tokens_NALD = self.tokens(ids_NAL)
        pooled = self.tower.pool(tokens_NALD.flatten(0, 1), ids_NAL.flatten(0, 1))
        return pooled.unflatten(0, ids_NAL.shape[:2])

    def tokens(self, ids_NAL: Tensor) -> Tensor:
        """Run all blocks; returns tokens_NALD, of which `stages` reads one a text."""
        mask_LL = self.tower.mask()
        tokens = self.tower.embed(ids_NAL.flatten(0, 1))
        for block in self.plain_blocks:
            tokens = block.run(tokens, mask_LL)
        tokens_NALD = tokens.unflatten(0, ids_NAL.shape[:2])
        for adapted in self.adapted:
            tokens_NALD = adapted(tokens_NALD, mask_LL)
        return tokens_NALD
