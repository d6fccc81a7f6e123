"""The named recipes: a plain dict of values.

A recipe of a preset's name is that preset's own, which `training.fit` takes unless another is asked
for.
"""

from training.meta.recipe import FitRecipe

RECIPES: dict[str, FitRecipe] = {
    "adamw": FitRecipe(),
    # Task-Adapter++'s recipe (model/papers/task_adapter.md, section 9), with selection on val, and
    # eight draws of each clip, whose crop is one for all frames, where the paper draws anew.
    "paper": FitRecipe(
        episodes=10_000,
        per_step=1,
        shots=(1, 1),
        optimizer="sgd",
        lr=1e-3,
        weight_decay=0.0,
        warmup=0.0,
        schedule="constant",
        clip=0.0,
        average=0.0,
        dropout=0.0,
        temperature=1.0,
        draws=8,
        mirror=0.0,
        augmentation="crop",
        val_every=500,
    ),
    # AIM's optimiser and stochastic depth (model/papers/aim.md, section 4), on episodes
    "aim": FitRecipe(
        lr=3e-4, weight_decay=0.05, warmup=0.083, dropout=0.0, drop_path=0.2, drop_path_grows=True
    ),
    # CLIP-FSAR's on Kinetics (model/papers/clip_fsar.md, sections 4 and 6), with selection on val.
    # The quarter of its loss is the mean over a step's four iterations, which `per_step` takes.
    "clip_fsar": FitRecipe(
        episodes=20_000,
        per_step=16,
        shots=(1, 1),
        queries=5,
        optimizer="adam",
        lr=1e-5,
        weight_decay=1e-3,
        warmup=0.05,
        warmup_from=0.5,
        schedule="steps",
        milestones=((0.15, 0.1), (0.25, 0.01)),
        clip=0.0,
        average=0.0,
        temperature=1.0,
        weights={"query": 0.0, "video": 1.0, "global_class": 1.5},
    ),
    # MA-CLIP's losses at its alpha of a half (model/papers/ma_clip.md, sections 4 and 5); episodes
    # as for SSv2-Small, all else our choice
    "ma_clip": FitRecipe(
        episodes=20_000,
        per_step=16,
        shots=(1, 1),
        queries=5,
        lr=2e-4,
        weight_decay=1e-2,
        dropout=0.0,
        temperature=1.0,
        weights={"query": 0.0, "video": 0.5, "class_text": 0.5},
    ),
}
