"""Words of texts that are masked, for the loss of masked words (model/papers/m2clip.md, section 3).

Dimensions: B clips, L text tokens.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from model.config.method import MethodConfig
from model.slots import TextBackbone
from model.text import prompts, template_stages
from training.errors import InputError
from training.meta.losses.output import UNMASKED

MASK = "mask"
CHANCE = 0.5  # of a clip's text to have masked words
RATE = 0.2  # share of its words


def vocabulary(config: MethodConfig, labels: Sequence[str]) -> tuple[str, ...]:
    """Return the distinct words of the texts of labels, in lower case; their places count them."""
    texts = (text for label in labels for text in texts_of(config, label))
    return tuple(sorted({word for text in texts for word in text.lower().split()}))


def texts_of(config: MethodConfig, label: str) -> tuple[str, ...]:
    """Return the texts of a label that nobody described."""
    return prompts(label, template_stages(label, config.stages), config.prompt)


class WordMasking:
    """Masks words of the texts of labels.

    Args:
        tower: Its tokenizer says how many tokens a word has.
        config: What it reads of a label.
        labels: Of training.

    Raises:
        InputError: The tower has no token for the word that stands for a masked one.
    """

    def __init__(self, tower: TextBackbone, config: MethodConfig, labels: Sequence[str]) -> None:
        self.tower, self.config = tower, config
        self.words = {word: place for place, word in enumerate(vocabulary(config, labels))}
        if self._tokens(MASK) != 1:
            raise InputError(
                f"The text tower has no token for the word {MASK!r}, which stands for a masked "
                "one; set the weight of 'masked_words' to 0."
            )

    def draw(self, labels: Sequence[str], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Mask words of one text a label.

        Returns:
            ids_BL, and words_BL: the place of each masked word among all, at its token.
        """
        drawn = [self._masked(label, rng) for label in labels]
        ids_BL = self.tower.tokenize([" ".join(words) for words, _ in drawn])
        words_BL = torch.full_like(ids_BL, UNMASKED)
        for row, (words, hidden) in zip(words_BL, drawn, strict=True):
            at = 1 + np.cumsum([0, *map(self._tokens, words)])  # behind the token of the start
            for place, word in hidden.items():
                if at[place] < row.shape[0]:
                    row[at[place]] = word
        return ids_BL, words_BL

    def _masked(self, label: str, rng: np.random.Generator) -> tuple[list[str], dict[int, int]]:
        """Return the words of a text, and which word was in each place that is masked."""
        texts = texts_of(self.config, label)
        words = texts[int(rng.integers(len(texts)))].lower().split()
        if rng.random() >= CHANCE:
            return words, {}
        count = max(1, round(RATE * len(words)))
        chosen = rng.choice(len(words), count, replace=False).tolist()
        hidden = {place: self.words[words[place]] for place in chosen}
        return [MASK if place in hidden else word for place, word in enumerate(words)], hidden

    def _tokens(self, word: str) -> int:
        read = self.tower.read(word)
        return 0 if read is None else len(read) - 2  # without start and end
