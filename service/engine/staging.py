"""The buffer in which the clips of a batch meet, on their way to the device.

Dimensions: B clips, T frames, H W pixels, C colours.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class Staging:
    """One buffer for all batches: a batch is copied once, into memory that is there already.

    It is filled anew when the last batch has been read, which the device thread sees to.

    Args:
        pinned: Page-locked, so that a CUDA device reads it by itself.
    """

    def __init__(self, *, pinned: bool) -> None:
        self.pinned = pinned
        self._buffer_BTHWC = torch.empty(0, dtype=torch.uint8)

    def fill(self, clips: Sequence[np.ndarray]) -> Tensor:
        """Copy clips side by side.

        Args:
            clips: frames_THWC, uint8, all of one shape.

        Returns:
            frames_BTHWC, good until the next call.

        Raises:
            ValueError: Clips of several shapes.
        """
        shape = clips[0].shape
        if self._buffer_BTHWC.shape[1:] != shape or len(self._buffer_BTHWC) < len(clips):
            self._buffer_BTHWC = torch.empty(
                (len(clips), *shape), dtype=torch.uint8, pin_memory=self.pinned
            )
        frames_BTHWC = self._buffer_BTHWC[: len(clips)]
        np.stack(clips, out=frames_BTHWC.numpy())
        return frames_BTHWC
