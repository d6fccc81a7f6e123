"""`python -m service` on a device that a test makes slow, small or useless, through a file.

FAULTY_DEVICE names the file. Its text is a JSON object: `clips` the most that a pass may have
(0: none), `clip_s` and `pass_s` what each clip and each pass take. It is read before each pass.
"""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import torch

from service import __main__, container
from service.engine.passes.choice import Choice
from service.settings import Settings
from tests.devices import Device


class Faulty:
    """What happens before each pass."""

    def __init__(self, told: Path) -> None:
        self.told = told

    def __call__(self, clips: int) -> None:
        told = json.loads(self.told.read_text()) if self.told.exists() else {}
        time.sleep(told.get("pass_s", 0.0) + clips * told.get("clip_s", 0.0))
        if clips > told.get("clips", clips):
            raise torch.OutOfMemoryError(f"CUDA out of memory: {clips} clips.")


def main() -> int:
    """Serve."""
    choose, faulty = container.choose_runtime, Faulty(Path(os.environ["FAULTY_DEVICE"]))

    def chosen(settings: Settings) -> Choice:
        choice = choose(settings)
        return replace(choice, runtime=Device(choice.runtime, faulty))

    container.choose_runtime = chosen
    return __main__.main()
