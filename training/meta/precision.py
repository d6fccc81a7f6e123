"""Whether to compute in bfloat16."""

import torch


def half_precision(choice: str, device: str) -> bool:
    """Return whether to compute in bfloat16: by default where the hardware has it.

    Args:
        choice: `auto`, `bf16` or `fp32`.
        device: `cpu` or another kind.
    """
    if choice == "auto":
        return device != "cpu" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return choice == "bf16"
