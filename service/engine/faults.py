"""What a failed forward pass means: no memory, a device that is lost, or a fault of the work."""

import torch

NO_MEMORY = ("out of memory", "can't allocate memory", "failed to allocate", "bad allocation")
LOST = ("device-side assert", "illegal memory access", "unspecified launch failure", "misaligned")


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether the device or the machine had no memory left, by torch or ONNX Runtime."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and _says(error, NO_MEMORY)


def is_device_lost(error: BaseException) -> bool:
    """Tell whether every further call would fail too: a poisoned CUDA context."""
    return isinstance(error, RuntimeError) and _says(error, LOST)


def _says(error: BaseException, phrases: tuple[str, ...]) -> bool:
    text = str(error).lower()
    return any(phrase in text for phrase in phrases)
