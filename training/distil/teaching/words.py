"""A text tower learns where names point, and what captions say of drawn motions.

Only the text side learns, as in LiT (arXiv 2111.07991). Its word vectors stay as they were read, so
that a word which no name has stands beside words like it; noise on them makes that neighbourhood
count. A name's text is asked for the name's direction among all of them; captions are contrasted
with the clips of a batch, beside rivals (training/compact/text_tower.py).

Dimensions: B texts or clips of a batch, K names, C clips, T frames, L tokens, D width of a word's
vector, E feature width.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.backbones.packaged.compact import compact_text_tower
from model.backbones.views.clip import ClipTextTower
from model.backbones.words import FIRST_WORD
from model.config.towers import CompactTextConfig
from model.recognizer import Recognizer
from training.compact.recipes import TextRecipe
from training.compact.text_tower import said_of, text_loss
from training.distil.teaching.phrases import Phrase, Phrases
from training.distil.teaching.recipe import WordRecipe
from training.distil.teaching.vectors import WordVectors
from training.progress import progress
from training.synthetic.actions import Action

BETAS = (0.9, 0.98)
SPREAD = 0.02  # of a text tower's embedding at its start, in open_clip
BROAD = 0.1  # share of a text's target that goes to names which point its way
LEVEL_WEIGHT = 4.0


class NameTargets:
    """Where texts of names are to point.

    Args:
        directions_KE: Unit directions of names; their first feature, constant in clips, is 0.
        level: Of that feature in a text of length 1.
        sharpness: Of the contrast among names.
    """

    def __init__(self, directions_KE: Tensor, level: float, sharpness: float) -> None:
        self.level, self.sharpness = level, sharpness
        self.rows_KE = directions_KE * (1 - level**2) ** 0.5
        self.rows_KE[:, 0] = level

    def loss(self, text_BE: Tensor, phrases: Sequence[Phrase]) -> Tensor:
        """Return the error of texts: of what each is true of, and of the constant feature."""
        text_BE = F.normalize(text_BE, dim=-1)
        true_BK = torch.zeros(len(phrases), len(self.rows_KE))
        for row, phrase in zip(true_BK, phrases, strict=True):
            row[list(phrase.names)] = 1 / len(phrase.names)
        near_BK = (self.sharpness * (true_BK @ self.rows_KE) @ self.rows_KE.T).softmax(dim=1)
        wanted_BK = (1 - BROAD) * true_BK + BROAD * near_BK
        log_BK = (self.sharpness * text_BE @ self.rows_KE.T).log_softmax(dim=1)
        off = (text_BE[:, 0] - self.level).square().mean()
        return -(wanted_BK * log_BK).sum(dim=1).mean() + LEVEL_WEIGHT * off


def text_tower(config: CompactTextConfig, features: int, vectors: WordVectors) -> ClipTextTower:
    """Make a text tower at random whose words have their vectors."""
    tower = compact_text_tower(config, features)
    places = vectors.places()
    scale = SPREAD / vectors.vectors_VD.std()
    width = vectors.vectors_VD.shape[1]
    with torch.no_grad():
        for row, word in zip(
            _embedding(tower.model).weight[FIRST_WORD:], config.words, strict=False
        ):
            if word in places:
                row[:width] = scale * vectors.vectors_VD[places[word]]
                row[width:] = 0
    return tower


@dataclass(frozen=True, slots=True)
class WordLesson:
    """What a text tower is taught.

    Args:
        phrases: Texts of names.
        targets: Where they are to point.
        drawn_CTE: Frame features of synthetic clips.
        actions: What each of them shows.
        captions: How captions of them are drawn and contrasted.
    """

    phrases: Phrases
    targets: NameTargets
    drawn_CTE: Tensor
    actions: Sequence[Action]
    captions: TextRecipe

    def loss(self, recognizer: Recognizer, recipe: WordRecipe, rng: np.random.Generator) -> Tensor:
        """Return the error of a text tower on some captions and some names."""
        assert recognizer.text is not None
        picks = rng.integers(len(self.actions), size=recipe.captioned).tolist()
        shown = [self.actions[pick] for pick in picks]
        said = [one for action in shown for one in said_of(action, self.captions, rng)]
        captioned = text_loss(recognizer, self.drawn_CTE[picks], shown, said, self.captions)
        drawn = [self.phrases.draw(rng) for _ in range(recipe.batch)]
        ids_BL = recognizer.text.tower.tokenize([phrase.text for phrase in drawn])
        return captioned + self.targets.loss(recognizer.text.stages(ids_BL[:, None])[:, 0], drawn)


def teach_words(
    recognizer: Recognizer, free_V1: Tensor, lesson: WordLesson, recipe: WordRecipe
) -> float:
    """Train the recogniser's text tower in place; return the mean loss of the last tenth.

    Args:
        recognizer: Its tower is of `text_tower`.
        free_V1: Of `free_rows`.
        lesson: What.
        recipe: How.
    """
    assert recognizer.text is not None
    model = recognizer.text.tower.model.requires_grad_(True)
    rest, optimizer = _optimizer(model, recipe)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=recipe.lr, total_steps=recipe.steps, pct_start=0.1, cycle_momentum=False
    )
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    losses = []
    with _learning(_embedding(model), free_V1, recipe.noise):
        for _ in progress(range(recipe.steps), desc="words", unit="step"):
            loss = lesson.loss(recognizer, recipe, rng)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(rest, recipe.clip)
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
    model.requires_grad_(False)
    last = losses[-max(len(losses) // 10, 1) :]
    return sum(last) / len(last)


def _optimizer(
    model: Any,  # noqa: ANN401  open_clip ships no types
    recipe: WordRecipe,
) -> tuple[list[nn.Parameter], torch.optim.Optimizer]:
    """Return the parameters beside words' vectors, and what moves all; vectors do not decay."""
    vectors = _embedding(model).weight
    rest = [parameter for parameter in model.parameters() if parameter is not vectors]
    groups = [
        {"params": rest, "weight_decay": recipe.weight_decay},
        {"params": [vectors], "weight_decay": 0.0},
    ]
    return rest, torch.optim.AdamW(groups, lr=recipe.lr, betas=BETAS)


def free_rows(words: Sequence[str], vectors: WordVectors) -> Tensor:
    """Return 1 for each token without a vector, which learns, else 0 [V, 1]."""
    places = vectors.places()
    free_V1 = torch.ones(FIRST_WORD + len(words) + 1, 1)  # the end token is the last
    free_V1[[row for row, word in enumerate(words, start=FIRST_WORD) if word in places]] = 0
    return free_V1


@torch.no_grad()
def weaken(tower: ClipTextTower, share: float) -> None:
    """Let a text's differences from others keep this share of their weight in a product.

    The constant feature grows instead, which all texts have in common.
    """
    tower.model.text_projection[:, 0] /= share


def _embedding(model: Any) -> nn.Embedding:  # noqa: ANN401  open_clip ships no types
    embedding: nn.Embedding = model.token_embedding
    return embedding


@contextmanager
def _learning(embedding: nn.Embedding, free_V1: Tensor, noise: float) -> Iterator[None]:
    """Hold the rows that are not free, and add noise to what is looked up."""

    def noisy(_module: nn.Module, _ids: object, found: Tensor) -> Tensor:
        return found + noise * found.detach().std() * torch.randn_like(found)

    hooks = [
        embedding.weight.register_hook(lambda slope: slope * free_V1),
        embedding.register_forward_hook(noisy),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
