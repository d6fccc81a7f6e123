"""The buffers in which the clips of a batch meet, on their way to the device.

Dimensions: B clips, T frames, H W pixels, C colours.
"""

from collections import deque
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class Staging:
    """Buffers that batches take in turn: a batch is copied once, into memory that is there already.

    One is filled anew when its last batch has been read, which the device thread sees to.

    Args:
        pinned: Page-locked, so that a CUDA device reads it by itself.
        buffers: How many batches may be on the device at once.
    """

    def __init__(self, *, pinned: bool, buffers: int = 1) -> None:
        self.pinned = pinned
        self._buffers_BTHWC = deque([torch.empty(0, dtype=torch.uint8)] * buffers)

    def fill(self, clips: Sequence[np.ndarray]) -> Tensor:
        """Copy clips side by side.

        Args:
            clips: frames_THWC, uint8, all of one shape.

        Returns:
            frames_BTHWC, good for as many calls as there are buffers.

        Raises:
            ValueError: Clips of several shapes.
        """
        shape = clips[0].shape
        buffer_BTHWC = self._buffers_BTHWC.popleft()
        if buffer_BTHWC.shape[1:] != shape or len(buffer_BTHWC) < len(clips):
            buffer_BTHWC = torch.empty(
                (len(clips), *shape), dtype=torch.uint8, pin_memory=self.pinned
            )
        self._buffers_BTHWC.append(buffer_BTHWC)
        frames_BTHWC = buffer_BTHWC[: len(clips)]
        if self.pinned:  # threads of torch, because here a copy is most of what the host has to do
            for row_THWC, clip_THWC in zip(frames_BTHWC, clips, strict=True):
                row_THWC.copy_(torch.from_numpy(clip_THWC))
        else:
            np.stack(clips, out=frames_BTHWC.numpy())
        return frames_BTHWC
