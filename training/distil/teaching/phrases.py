"""Texts that say a name, as users may write it: in part, in other forms, beside other words."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.backbones.words import split_words
from model.text import STAGES, prompts, template_stages
from training.distil.teaching.recipe import WordRecipe
from training.distil.teaching.vectors import Forms

SMALL = frozenset(
    (
        "a", "an", "and", "at", "by", "for", "from", "in", "into", "not", "of", "off", "on", "or",
        "out", "over", "the", "through", "to", "up", "with",
    )
)  # fmt: skip
KEPT, DROPPED, MIXED = 0.6, 0.2, 0.1  # chance of a word of a part; of no small words; of any order
SENTENCE = (4, 11)  # words beside a name


@dataclass(frozen=True, slots=True)
class Phrase:
    """A text, and the names that it is true of."""

    text: str
    names: frozenset[int]


class Phrases:
    """Draws texts of names.

    Args:
        names: As words.
        forms: Of the words that a text tower knows.
        others: Words that may stand beside a name.
        recipe: How often a text is what.
    """

    def __init__(
        self, names: Sequence[str], forms: Forms, others: Sequence[str], recipe: WordRecipe
    ) -> None:
        self.words = [split_words(name) for name in names]
        self.stems = [frozenset(map(forms.stem, words)) for words in self.words]
        self.forms, self.others, self.recipe = forms, others, recipe

    def draw(self, rng: np.random.Generator) -> Phrase:
        """Draw one."""
        recipe = self.recipe
        number = int(rng.integers(len(self.words)))
        words, true = self.words[number], frozenset({number})
        if len(words) > 1 and rng.random() < recipe.part:
            words, true = self._part(number, rng)
        if rng.random() < recipe.form:
            words = [word if word in SMALL else _one(self.forms.of(word), rng) for word in words]
        if rng.random() < DROPPED:
            words = [word for word in words if word not in SMALL] or words
        if rng.random() < MIXED:
            words = [words[place] for place in rng.permutation(len(words))]
        return Phrase(self._text(" ".join(words), rng), true)

    def _part(self, number: int, rng: np.random.Generator) -> tuple[list[str], frozenset[int]]:
        """Return some words of a name, and all names that have them."""
        whole = self.words[number]
        kept = [word for word in whole if rng.random() < KEPT]
        said = {self.forms.stem(word) for word in kept if word not in SMALL}
        if not said:
            return whole, frozenset({number})
        return kept, frozenset(n for n, stems in enumerate(self.stems) if said <= stems)

    def _text(self, name: str, rng: np.random.Generator) -> str:
        recipe = self.recipe
        kind = rng.random()
        if kind < recipe.bare:
            return name
        stages = template_stages(name)
        if kind < recipe.bare + recipe.described:
            words = [_one(self.others, rng) for _ in range(int(rng.integers(*SENTENCE)))]
            if rng.random() < 0.5:
                words.insert(int(rng.integers(len(words))), name)
            stages = (" ".join(words),) * STAGES
        return _one(prompts(name, stages), rng)


def _one(of: Sequence[str], rng: np.random.Generator) -> str:
    return of[int(rng.integers(len(of)))]
