"""A distilled network from its distillation to a method with words."""

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model.assembly.recognizer import build_recognizer
from model.backbones.packaged.causal import CausalNetwork, CausalTower
from model.backbones.words import split_words
from model.checkpoint import load_recognizer, save_checkpoint, sha256
from model.config.fusion import TrustFusion
from model.config.towers import CausalConfig, CompactTextConfig
from model.methods import compact_method
from model.recognizer import Recognizer
from model.text import spoken
from training.compact.captions import drawn_clips
from training.compact.captions import vocabulary as captions_vocabulary
from training.compact.recipes import TextRecipe
from training.distil.sources import Picture, RealClip, Source, clips_of, pictures_of
from training.distil.teacher import VideoTeacher, open_video_teacher
from training.distil.teaching.answers import FRAMES, Answers, ask, features_of
from training.distil.teaching.motions import MotionLesson, early_cells, finished
from training.distil.teaching.names import centred, directions, read_names, shown
from training.distil.teaching.phrases import Phrases
from training.distil.teaching.recipe import LessonJob
from training.distil.teaching.spreading import Spread, fit_spread, fold
from training.distil.teaching.vectors import Forms, WordVectors, read_vectors, vocabulary
from training.distil.teaching.words import (
    NameTargets,
    WordLesson,
    free_rows,
    teach_words,
    text_tower,
    weaken,
)
from training.errors import InputError
from training.run_folder import claim_folder, write_state

MOTIONS, ANSWERS = "motions.pt", "answers.pt"
RARE = 150_000  # place by frequency behind which forms of a word are unknown
VIEW = 160  # pixels of a side of what a camera sees of a picture: things are larger there
COMMON = 5_000  # most frequent words, which may stand beside a name


def teach(job: LessonJob) -> dict[str, object]:
    """Teach, and write the checkpoint; return what the last line tells.

    Raises:
        InputError: The start is no causal checkpoint, a file does not fit, or the folder belongs to
            another recipe.
    """
    began = time.monotonic()
    earlier = load_recognizer(job.start)
    config = earlier.config.backbone
    if not isinstance(config, CausalConfig):
        raise InputError(f"{job.start!r} is no causal checkpoint; give one's folder.")
    teacher, names = open_video_teacher(job.teacher), read_names(job.names)
    clips, pictures = clips_of(job.clips, job.leave_out), pictures_of(job.pictures)
    recipe = {name: asdict(getattr(job, name)) for name in ("motions", "spread", "words")}
    sources: list[Source] = [*clips, *pictures]
    seen = sha256("\n".join(sorted(source.name for source in sources)).encode())
    claim_folder(job.out, recipe | {"start": earlier.fingerprint, "clips and pictures": seen})
    network: CausalNetwork = earlier.video.tower.model
    named = _motions(network, clips, pictures, config.size, job)
    learned = _some(pictures, job.words.pictures, job.words.seed)
    answers = _answers(network, teacher, clips, learned, config.size, job.out)
    spread = fit_spread(answers.means(), job.spread)
    fold(network.features, spread)
    labels = [*(clip.clip.label for clip in clips), *[None] * len(learned)]
    recognizer, loss = _words(network, config, answers, spread, names, labels, job)
    save_checkpoint(recognizer, job.out, _card(named, loss), half=True)
    return {
        "motions_named": round(named, 4),
        "text_loss": round(loss, 4),
        "seconds": round(time.monotonic() - began, 1),
        "out": job.out.name,
    }


def _motions(
    network: CausalNetwork,
    clips: Sequence[RealClip],
    pictures: Sequence[Picture],
    size: int,
    job: LessonJob,
) -> float:
    """Teach motions; return the share of stages named at the end."""
    recipe = job.motions
    if (named := finished(network, job.out / MOTIONS, recipe)) is not None:
        return named
    actions, drawn = drawn_clips(recipe.clips, "train", FRAMES, size)
    held: list[tuple[Source, int]] = [
        (clip, draw) for draw in range(recipe.draws) for clip in clips
    ]
    held += [(one, 1) for one in _some(pictures, recipe.pictures, recipe.seed + 1)]
    seen = (source.view(FRAMES, size, draw, recipe.seed) for source, draw in held)
    lesson = MotionLesson(
        network,
        early_cells(network, drawn, recipe.first, len(actions)),
        actions,
        early_cells(network, seen, recipe.first, len(held)),
        recipe,
    )
    named = lesson.learn(job.out / MOTIONS)
    network.requires_grad_(False)
    return named


def _answers(
    network: CausalNetwork,
    teacher: VideoTeacher,
    clips: Sequence[Source],
    pictures: Sequence[Source],
    size: int,
    out: Path,
) -> Answers:
    """Return what student and teacher say of clips, then of pictures; they are asked once."""
    file = out / ANSWERS
    if not file.is_file():
        parts = (ask(network, teacher, clips, size, 0), ask(network, teacher, pictures, VIEW, 1))
        features = torch.cat([part.features_CTE for part in parts])
        logits = torch.cat([part.logits_CK for part in parts])
        write_state(file, {"features": features, "logits": logits})
    state = torch.load(file, weights_only=True)
    return Answers(state["features"], state["logits"])


def _words(
    network: CausalNetwork,
    config: CausalConfig,
    answers: Answers,
    spread: Spread,
    names: list[str],
    labels: Sequence[str | None],
    job: LessonJob,
) -> tuple[Recognizer, float]:
    """Give the network a text tower; return the method, and the tower's loss at the end."""
    recipe = job.words
    vectors = read_vectors(job.vectors)
    own = sorted({label for label in labels if label is not None})
    said = [*names, *map(spoken, own)]
    words = _vocabulary(vectors, said, recipe.vocabulary)
    text = CompactTextConfig(words=tuple(words), width=vectors.vectors_VD.shape[1])
    torch.manual_seed(recipe.seed)
    tower = CausalTower(config).eval()
    tower.model.load_state_dict(network.state_dict())
    reads = text_tower(text, config.features, vectors)
    method = replace(compact_method(replace(config, text=text)), fusion=TrustFusion())
    recognizer = build_recognizer(method, tower, reads, name="causal")
    actions, drawn = drawn_clips(recipe.clips, "train", FRAMES, config.size)
    level = recipe.level * job.spread.common / (1 + job.spread.common**2) ** 0.5
    rows_KE = _rows(spread(answers.means()), answers.logits_CK, shown(labels, own), recipe.ridge)
    lesson = WordLesson(
        Phrases(said, Forms(words), vectors.words[:COMMON], recipe),
        NameTargets(rows_KE, recipe.level, recipe.sharpness),
        features_of(network, drawn, len(actions)),
        actions,
        TextRecipe(level=level, seed=recipe.seed),
    )
    loss = teach_words(recognizer, free_rows(words, vectors), lesson, recipe)
    weaken(reads, recipe.share)
    return recognizer, loss


def _rows(means_CE: Tensor, logits_CK: Tensor, shown_CK: Tensor, ridge: float) -> Tensor:
    """Return where the teacher's names point, and behind them the labels of clips."""
    means_CE[:, 0] = 0  # the constant feature
    named_KE = centred(directions(means_CE, logits_CK, ridge))
    return torch.cat([named_KE, directions(means_CE, shown_CK, ridge)])


def _vocabulary(vectors: WordVectors, said: Sequence[str], count: int) -> list[str]:
    """Return the words of a text tower: frequent ones, and all of names, captions and templates."""
    needed = {word for name in said for word in split_words(name)}
    return vocabulary(vectors, [*needed, *captions_vocabulary([])], count, RARE)


def _some(of: Sequence[Picture], count: int, seed: int) -> list[Picture]:
    """Draw some without order."""
    rng = np.random.default_rng(seed)
    return [of[place] for place in rng.permutation(len(of))[:count]]


def _card(named: float, loss: float) -> str:
    """Describe how the checkpoint was made; accuracy is not known yet."""
    return (
        f"# A causal checkpoint\n\nTaught motions of synthetic clips ({100 * named:.1f} % of the "
        f"training stages named), an even spread, and words (loss {loss:.3f}). Accuracy: not "
        "measured yet; run `python -m training.evaluate`.\n"
    )
