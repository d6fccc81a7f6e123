"""What a training says about itself: its data, its checkpoint's card and its environment."""

import platform
import time
from collections.abc import Callable

import torch

from training.data.datasets import Dataset
from training.meta.choice import MethodChoice
from training.meta.recipe import FitRecipe
from training.meta.run import History

FEW_LABELS = 20  # training labels under which adapters rather learn the labels than the task
SHOWN = 30  # labels that a card lists


def counted(data: Dataset) -> str:
    """Say how much there is."""
    parts = [
        f"{split} {len(clips)} clips of {len({clip.label for clip in clips})} labels"
        for split, clips in data.clips.items()
    ]
    missing = f"; {len(data.missing)} files missing" if data.missing else ""
    return ", ".join(parts) + missing


def warn_if_few(data: Dataset, say: Callable[[str], None]) -> None:
    """Say when there is too little to learn a task from."""
    labels = len({clip.label for clip in data.split("train")})
    if labels < FEW_LABELS:
        say(
            f"{labels} training labels are few: adapters may learn them by heart. Trust the val "
            f"accuracy, and add labels ({FEW_LABELS} or more) before long trainings."
        )


def card(data: Dataset, choice: MethodChoice, recipe: FitRecipe, history: History) -> str:
    """Say what the checkpoint was made of, and how well it does on the classes that chose it."""
    row = history.rows[-1]
    vals = ", ".join(
        f"{name.removeprefix('val_')}-shot {value:.1f} %"
        for name, value in row.items()
        if name.startswith("val_")
    )
    labels = sorted({clip.label for clip in data.split("train")})
    return (
        f"# {choice.preset} on {choice.backbone}\n\n"
        f"Adapters meta-trained on {len(data.split('train'))} clips of {len(labels)} labels of "
        f"{data.name} ({', '.join(labels[:SHOWN])}{', ...' if len(labels) > SHOWN else ''}); "
        f"{history.best_step} of {recipe.steps} steps of {recipe.per_step} episodes, seed "
        f"{recipe.seed}; recipe.json has the rest. The step was chosen on the val labels: {vals} "
        f"(untrained mean {history.untrained:.1f} %), {recipe.val_episodes} episodes each. Test "
        "labels were not read; run `python -m training.evaluate`. Licence: that of the backbone "
        "and of the clips.\n"
    )


def environment(device: torch.device) -> dict[str, str]:
    """Name what the numbers were made with."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    return {
        "device": f"{device.type} {name}".strip(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "date": time.strftime("%Y-%m-%d"),
    }
