"""Word-level tokens for the compact text tower."""

import unicodedata
from collections.abc import Sequence

import regex
import torch
from torch import Tensor

PAD, START, FIRST_WORD = 0, 1, 2
WORD = r"[\p{L}\p{N}][\p{L}\p{N}\p{M}\u200c\u200d]*"
SIGN = (
    r"[\p{S}\p{M}][\p{S}\p{M}\u200d]*"  # an emoji, a plus: means something, as punctuation does not
)


class WordTokenizer:
    """Lower-case words of a fixed vocabulary; the end token has the largest id.

    Args:
        words: The vocabulary, lower case, in the order of its ids.
        context: Length L of every row, start and end included; longer texts are cut.
    """

    def __init__(self, words: Sequence[str], context: int) -> None:
        self.ids = {word: FIRST_WORD + index for index, word in enumerate(words)}
        self.context = context
        self.end = FIRST_WORD + len(self.ids)
        self.size = self.end + 1

    def __call__(self, texts: list[str], context_length: int | None = None) -> Tensor:
        """Return ids [B, L]; words outside the vocabulary are dropped."""
        length = context_length or self.context
        rows = torch.full((len(texts), length), PAD)
        for row, text in zip(rows, texts, strict=True):
            known = [self.ids[word] for word in split_words(text) if word in self.ids]
            ids = [START, *known[: length - 2], self.end]
            row[: len(ids)] = torch.tensor(ids)
        return rows

    def unknown(self, text: str) -> tuple[str, ...]:
        """Return the words and signs of `text` outside the vocabulary, each once, in order."""
        found = dict.fromkeys(words_and_signs(text))
        return tuple(word for word in found if word not in self.ids)


def split_words(text: str) -> list[str]:
    """Return the lower-case words and numbers of a text."""
    return regex.findall(WORD, _folded(text))


def words_and_signs(text: str) -> list[str]:
    """Return the lower-case words, numbers and signs of a text; punctuation is no sign."""
    return regex.findall(f"{WORD}|{SIGN}", _folded(text))


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).lower()
