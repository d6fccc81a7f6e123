"""An image tower in bfloat16, where a device multiplies it."""

import re
from copy import deepcopy
from pathlib import Path

import torch

from model.recognizer import Recognizer

CPUINFO = Path("/proc/cpuinfo")
BF16_FLAGS = re.compile(r"\b(avx512_bf16|amx_bf16|bf16)\b")  # x86, x86, ARM


def with_bfloat16_video(recognizer: Recognizer) -> Recognizer:
    """Return the recognizer with a bfloat16 copy of its image tower; pixels stay fp32.

    Text stays fp32, so that text features in a shared store do not depend on who made them.
    """
    video = deepcopy(recognizer.video).to(torch.bfloat16)
    video.normalize = recognizer.video.normalize
    return recognizer.with_encoders(video, recognizer.text)


def has_bfloat16(device: torch.device, cpuinfo: Path = CPUINFO) -> bool:
    """Tell whether a device multiplies bfloat16 in hardware; without, it is slower than fp32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    try:
        return BF16_FLAGS.search(cpuinfo.read_text(encoding="utf-8")) is not None
    except OSError:  # no Linux
        return False
