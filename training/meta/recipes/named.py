"""The named recipes: a plain dict of values.

A recipe of a preset's name is that preset's own, which `training.fit` takes unless another is asked
for.
"""

from dataclasses import replace

from training.meta.recipe import Apart, FitRecipe

# ActionCLIP's (model/papers/actionclip.md, sections 5 and 7), by episodes, with selection on val
_ACTIONCLIP = FitRecipe(
    episodes=5_000,
    per_step=4,
    shots=(1, 1),
    queries=3,
    lr=5e-6,
    weight_decay=0.2,
    betas=(0.9, 0.98),
    warmup=0.1,
    clip=0.0,
    average=0.0,
    temperature=1.0,
    weights={"contrast_learned": 1.0},
    rates={"video.temporal": 10.0},
)
# M2-CLIP's (model/papers/m2clip.md, sections 5, 6 and 8), by episodes, with selection on val.
# Masked words are asked for with a weight of `masked_words`, 0.1 in the paper.
_M2CLIP = FitRecipe(
    episodes=5_000,
    per_step=4,
    shots=(1, 1),
    queries=3,
    lr=3e-4,
    weight_decay=1e-2,
    warmup=0.17,
    clip=0.0,
    average=0.0,
    temperature=1.0,
    weights={
        "query": 0.0,
        "video": 1.0,
        "contrast": 0.5,
        "text_class": 0.5,
        "visual_class": 1.0,
    },
    rates={"text.adapted": 0.5, "losses.masked_words.before": 0.5},
)

RECIPES: dict[str, FitRecipe] = {
    "adamw": FitRecipe(),
    # Task-Adapter++'s recipe (model/papers/task_adapter.md, section 9), with selection on val, and
    # eight draws of each clip, where the paper draws anew.
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
        augmentation="frame_crops",
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
        augmentation="queries",
        clip=0.0,
        average=0.0,
        temperature=1.0,
        weights={"query": 0.0, "video": 1.0, "global_class": 1.5},
    ),
    "actionclip": _ACTIONCLIP,
    "actionclip_text": _ACTIONCLIP,
    "m2clip": _M2CLIP,
    "m2clip_temporal": replace(_M2CLIP, mirror=0.0),  # directions are classes
    # GgHM's losses, with SloshNet's optimiser and schedule, by the same group: our choice
    # (model/papers/gghm.md, section 6)
    "gghm": FitRecipe(
        episodes=10_000,
        per_step=16,
        shots=(1, 1),
        optimizer="sgd",
        lr=1e-4,
        momentum=0.9,
        weight_decay=3e-4,
        warmup=0.0,
        schedule="steps",
        milestones=((0.6, 0.5), (0.8, 0.1), (0.9, 0.01)),
        clip=0.0,
        average=0.0,
        dropout=0.0,
        temperature=1.0,
        weights={"query": 0.0, "video": 1.0, "graph_edges": 1.0},
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
    # D2ST-Adapter's on HMDB51 (model/papers/d2st.md, sections 6 and 7), with selection on val. Its
    # step sums eight halves of the loss, four times the mean. Biases do not decay here.
    "d2st": FitRecipe(
        episodes=3_000,
        per_step=16,
        shots=(1, 1),
        optimizer="adam",
        lr=1e-3,
        weight_decay=1e-3,
        warmup=0.1,
        warmup_from=0.2,
        schedule="steps",
        milestones=((0.5, 0.5), (0.7, 0.1), (0.9, 0.05)),
        clip=0.0,
        average=0.0,
        dropout=0.0,
        temperature=1.0,
        weights={"query": 4.0, "base_class": 10.0},
        augmentation="queries",
    ),
    "d2st_resnet50": FitRecipe(
        episodes=8_000,
        per_step=16,
        shots=(1, 1),
        optimizer="adam",
        lr=2e-3,
        weight_decay=1e-3,
        warmup=0.1,
        warmup_from=0.2,
        schedule="steps",
        milestones=((0.4, 0.1), (0.6, 0.05), (0.8, 0.01)),
        clip=0.0,
        average=0.0,
        dropout=0.0,
        temperature=1.0,
        weights={"query": 4.0, "base_class": 8.0},
        augmentation="queries",
    ),
    # SloshNet's 1-shot on HMDB51 (model/papers/sloshnet.md, section 6), with selection on val. Its
    # loss sums the five queries. The edges of its fusion have an Adam of their own.
    "sloshnet": FitRecipe(
        episodes=30_010,
        per_step=16,
        shots=(1, 1),
        optimizer="sgd",
        momentum=0.9,
        lr=1e-4,
        apart=(
            Apart(
                names="video.temporal.fusion.edges",
                optimizer="adam",
                lr=3e-3,
                betas=(0.5, 0.999),
                weight_decay=1e-3,
            ),
        ),
        weight_decay=3e-4,
        warmup=0.0,
        schedule="steps",
        milestones=((0.3, 0.5), (0.4, 0.1), (0.45, 0.01)),
        clip=0.0,
        average=0.0,
        dropout=0.0,
        temperature=1.0,
        weights={"query": 5.0},
        augmentation="queries",
    ),
}
