"""Where nothing is rounded to 16 bits, whatever precision surrounds it."""

import torch


def in_float32(device: torch.device) -> torch.autocast:
    """Return a context in which float32 stays float32, inside autocast too.

    Heads, means, distances and softmaxes need it: in bfloat16 a few answers in a hundred change.
    """
    return torch.autocast(device.type, enabled=False)
