"""Scores on their way from the device to numbers, without waiting for the device at once."""

from collections.abc import Callable, Sequence

import torch

from model.episode import MatchScores, Scored, plain

CPU = torch.device("cpu")


def landing(scored: Sequence[Scored], device: torch.device) -> Callable[[], list[MatchScores]]:
    """Start to copy scores to the machine's memory.

    Returns:
        A call that waits until they are there and returns them as numbers.
    """
    if device.type != "cuda":
        return lambda: plain(scored)
    copies = [group.to(CPU, non_blocking=True) for group in scored]
    event = torch.cuda.Event(blocking=True)  # spinning would take a core from the decoders
    event.record(torch.cuda.current_stream(device))

    def landed() -> list[MatchScores]:
        event.synchronize()
        return plain(copies)

    return landed
