"""MA-CLIP's block: along time by the class token, and within a frame with the text of the class.

Source: MA-CLIP / MA-FSAR (arXiv 2308.01532; model/papers/ma_clip.md), from its figures and notes:
no code is public.

Dimensions: B clips, N frames, T frames of a clip, L tokens, R read tokens, D width, E text width.
"""

import torch
from torch import Tensor, nn

from model.adapters.aim import ALL, beside_mlp
from model.adapters.bottleneck import Bottleneck
from model.backbones.attention import attend, attention
from model.slots import BlockView, TransformerBlock

TEXT_START = 0.02  # standard deviation of the text's projection


class MultimodalBlock(nn.Module):
    """A frozen block whose frames attend to one more class token, and supports' to their text too.

    More keys enter the softmax, so that no start of it equals the frozen block.

    Args:
        block: The frozen block; its weights stay its tower's.
        width: Token width D.
        text_width: E.
        ratio: Hidden width of the adapters as a fraction of D.
        joint_scale: Weight of the adapter beside the MLP.
        reads: The tokens R that anybody reads of the block.
    """

    across_clips, reads_text = False, True

    def __init__(
        self,
        block: TransformerBlock,
        width: int,
        text_width: int,
        *,
        ratio: float,
        joint_scale: float,
        reads: slice = ALL,
    ) -> None:
        super().__init__()
        self.block = block
        self.time = Bottleneck(width, ratio)
        self.modal = Bottleneck(width, ratio)
        self.joint = Bottleneck(width, ratio)
        self.text = nn.Linear(text_width, width)
        nn.init.trunc_normal_(self.text.weight, std=TEXT_START)
        nn.init.zeros_(self.text.bias)
        self.joint_scale = joint_scale
        self.reads = reads

    def is_initial(self) -> bool:
        """Tell that it never computes what the frozen block computes."""
        return False

    def forward(
        self,
        tokens_BTLD: Tensor,
        view: BlockView,  # noqa: ARG002  clips do not see each other
        text_BE: Tensor | None = None,
    ) -> Tensor:
        """Run the block; supports bring the text of their class. Returns tokens_BTRD."""
        more = [self._along_time(tokens_BTLD[:, :, 0])[:, :, None]]
        if text_BE is not None:
            text_BD = self.text(text_BE.to(tokens_BTLD.dtype))
            more.append(text_BD[:, None, None].expand_as(more[0]))
        update_BTRD = self._in_frames(tokens_BTLD, torch.cat(more, dim=2))
        tokens_BTRD = tokens_BTLD[:, :, self.reads] + update_BTRD + self.modal(update_BTRD)
        return beside_mlp(self.block, self.joint, self.joint_scale, tokens_BTRD)

    def _along_time(self, class_BTD: Tensor) -> Tensor:
        """Let the class tokens of a clip's frames attend to each other; returns one more token."""
        normed_BTD = self.block.norm_attention(class_BTD)
        return class_BTD + self.time(attention(self.block, normed_BTD, in_space=False))

    def _in_frames(self, tokens_BTLD: Tensor, more_BTMD: Tensor) -> Tensor:
        """Let the read tokens of each frame attend to all of its tokens, and to M more."""
        own = tokens_BTLD.shape[2]
        seen_NLD = torch.cat([tokens_BTLD, more_BTMD], dim=2).flatten(0, 1)
        query, key, value = self.block.heads(self.block.norm_attention(seen_NLD))
        placed_query, placed_key = self.block.placed(query[:, :, :own], key[:, :, :own])
        key = torch.cat([placed_key, key[:, :, own:]], dim=2)  # what is more stands at no place
        attended = attend(placed_query[:, :, self.reads], key, value)
        return self.block.merge(attended).unflatten(0, tokens_BTLD.shape[:2])
