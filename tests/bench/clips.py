"""Clips of the task that is measured with: five synthetic actions.

Dimensions: Q clips, T frames, H W pixels, C colours.
"""

import numpy as np
from numpy.typing import NDArray

from training.synthetic.actions import Action, demo_actions
from training.synthetic.rendering import render_clip

WAYS, SHOTS = 5, 5
SEED = 0


def actions() -> list[Action]:
    """Give the labels of the task."""
    return demo_actions(WAYS, SEED)


def synthetic_clips(count: int, frames: int, size: int, seed: int) -> NDArray[np.uint8]:
    """Render clips of the labels in turn; returns frames_QTHWC."""
    labels, rng = actions(), np.random.default_rng(seed)
    return np.stack(
        [render_clip(labels[number % WAYS], rng, frames, size) for number in range(count)]
    )
