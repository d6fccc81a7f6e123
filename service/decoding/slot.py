"""Memory that one decoder fills with a clip's frames and the service reads: no pipe, no pickle.

It has a fixed size and holds pixels alone, so there is nothing in it to believe. Its size is
sealed before the decoder gets it: memory that shrank under a reader would kill the reader.

Dimensions: T sampled frames, H = W = size, C = 3 channels (RGB).
"""

import fcntl
import mmap
import os

import numpy as np

FIRST_FD = 64  # the decoder needs the low numbers for its pipes
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class Slot:
    """The service's side: it can read, and knows when nobody writes.

    Args:
        frames: T.
        size: H and W.
    """

    def __init__(self, frames: int, size: int) -> None:
        self._shape = (frames, size, size, 3)
        self.bytes = frames * size * size * 3
        made = os.memfd_create("kshot-slot", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            self.fd = fcntl.fcntl(made, fcntl.F_DUPFD_CLOEXEC, FIRST_FD)
        finally:
            os.close(made)
        try:
            os.ftruncate(self.fd, self.bytes)
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, SEALS)
            self._map = mmap.mmap(self.fd, self.bytes, prot=mmap.PROT_READ)
        except BaseException:
            os.close(self.fd)
            raise

    def read(self) -> np.ndarray:
        """Copy the frames out, uint8 [T, H, W, C]: the one copy on their way to a batch."""
        return np.frombuffer(self._map, np.uint8).reshape(self._shape).copy()

    def close(self) -> None:
        """Let go of the memory; the second time nothing happens."""
        if not self._map.closed:
            self._map.close()
            os.close(self.fd)


def open_slot(fd: int, size: int) -> np.ndarray:
    """Map a slot into the decoder, and give up the descriptor: uint8 [bytes], to be written."""
    memory = mmap.mmap(fd, size)
    os.close(fd)
    return np.frombuffer(memory, np.uint8)
