"""The loss of masked words (M2-CLIP; model/papers/m2clip.md, section 3).

Dimensions: B clips, T frames, L text tokens, D token width, V words.
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from model.adapters.text_adapter import TextAdapter
from model.backbones.attention import attend
from model.recognizer import Recognizer
from model.slots import TextBackbone
from training.errors import InputError
from training.meta.losses.output import UNMASKED, EpisodeOutput
from training.meta.word_masking import vocabulary


class MaskedWords(nn.Module):
    """Guess masked words by the frames: one more text block, whose text attends to the clip.

    The block is a frozen copy of the tower's last, without the causal mask; text and frames go
    through one LayerNorm.

    Args:
        tower: The text tower.
        words: V.
        ratio: Width of the adapters as a fraction of D.
        before_attention: Whether there is an adapter in front of attention too.
    """

    def __init__(
        self, tower: TextBackbone, words: int, *, ratio: float, before_attention: bool
    ) -> None:
        super().__init__()
        width = tower.width
        view: Any = deepcopy(tower.blocks[-1])
        self.view, self.block = view, view.block.requires_grad_(False)
        self._last_norm = (tower.model.ln_final,)  # in a tuple: it is the tower's
        self.before_attention = TextAdapter(width, ratio) if before_attention else None
        self.before_mlp = TextAdapter(width, ratio)
        self.transform = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.decode = nn.Linear(width, words)
        for linear in (self.transform, self.decode):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def logits(self, tokens_BLD: Tensor, frames_BTD: Tensor) -> Tensor:
        """Return logits_BLV of the word at each token.

        Args:
            tokens_BLD: Of the masked text, behind the last text block.
            frames_BTD: Features of the clip's frames.
        """
        if self.before_attention is not None:
            tokens_BLD = self.before_attention(tokens_BLD)
        query, _, _ = self.view.heads(self.view.norm_attention(tokens_BLD))
        _, key, value = self.view.heads(self.view.norm_attention(frames_BTD))
        tokens_BLD = tokens_BLD + self.view.merge(attend(query, key, value))
        tokens_BLD = self.before_mlp(tokens_BLD)
        tokens_BLD = tokens_BLD + self.view.mlp(self.view.norm_mlp(tokens_BLD))
        guessed_BLD = F.gelu(self.transform(self._last_norm[0](tokens_BLD)))
        return self.decode(self.norm(guessed_BLD))

    def forward(self, output: EpisodeOutput) -> Tensor:
        """Return the mean cross-entropy at masked words; 0 where no word is masked."""
        masked = output.masked
        if masked is None or not bool((masked.words_BL != UNMASKED).any()):
            return output.logits_QN.new_zeros(())
        logits_BLV = self.logits(masked.tokens_BLD.float(), output.features_BTE.float())
        return word_loss(logits_BLV, masked.words_BL)


def word_loss(logits_BLV: Tensor, words_BL: Tensor) -> Tensor:
    """Return the mean cross-entropy at masked words."""
    return F.cross_entropy(logits_BLV.flatten(0, 1), words_BL.flatten(), ignore_index=UNMASKED)


def masked_words(recognizer: Recognizer, labels: Sequence[str]) -> MaskedWords:
    """Make the loss for a method's text tower.

    Raises:
        InputError: There is no text tower, its width is not that of features, or frames are gone.
    """
    text, video = recognizer.text, recognizer.video
    if text is None or text.tower.width != video.tower.features or video.feature_instants == 1:
        raise InputError(
            "The loss 'masked_words' needs a text tower as wide as the features of frames; set "
            "its weight to 0."
        )
    config = recognizer.config.text
    words = vocabulary(recognizer.config, labels)
    return MaskedWords(
        text.tower,
        len(words),
        ratio=0.75 if config is None else config.ratio,
        before_attention=bool(getattr(config, "before_attention", False)),
    )
