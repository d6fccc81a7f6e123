"""The memory a decoder fills: of one size for good, and no way out of the sandbox."""

import fcntl
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from service.decoding.protocol import FIRST_FD, SEALS, Slot, open_slot
from tests.pools import decoders, make_pool, request, shown_by_kernel

REPO = Path(__file__).parents[2]
PRELUDE = """
import ctypes, fcntl, mmap, os, sys
from service.decoding.sandbox import SandboxLimits, lock_down
from service.decoding.protocol import open_slot
def refused(attempt):
    try:
        attempt()
    except (OSError, ValueError, SystemError):
        return
    raise SystemExit("it was possible")
fd, size = int(sys.argv[1]), int(sys.argv[2])
"""


def hostile(slot: Slot, script: str) -> None:
    """Run a decoder that does what it likes with its slot."""
    subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(script), str(slot.fd), str(slot.bytes)],
        cwd=REPO,
        pass_fds=(slot.fd,),
        check=True,
        timeout=60,
    )


def test_what_the_decoder_writes_is_read_as_a_copy() -> None:
    slot = Slot(2, 4)
    pixels = open_slot(os.dup(slot.fd), slot.bytes)
    pixels[:] = np.arange(96, dtype=np.uint8)
    read = slot.read()
    pixels[:] = 0
    assert read.shape == (2, 4, 4, 3)
    assert (read.reshape(-1) == np.arange(96)).all()
    slot.close()
    slot.close()


def test_its_size_is_sealed_on_both_sides() -> None:
    slot = Slot(2, 4)
    assert slot.fd >= FIRST_FD
    assert fcntl.fcntl(slot.fd, fcntl.F_GET_SEALS) == SEALS
    for size in (0, 95, 97):
        with pytest.raises(PermissionError):
            os.ftruncate(slot.fd, size)
    hostile(
        slot,
        """
        for other in (0, size - 1, size + 1):
            refused(lambda: os.ftruncate(fd, other))
        refused(lambda: fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE))
        """,
    )
    assert slot.read().sum() == 0
    slot.close()


def test_a_decoder_that_takes_the_memory_away_does_not_harm_the_reader() -> None:
    """MADV_REMOVE frees the pages under the service's mapping: it reads zeros, and no signal."""
    slot = Slot(8, 64)
    assert slot.read().sum() == 0
    hostile(
        slot,
        """
        pixels = open_slot(fd, size)
        lock_down(SandboxLimits())
        pixels[:] = 7
        refused(lambda: os.ftruncate(fd, 0))
        libc = ctypes.CDLL(None, use_errno=True)
        libc.madvise(ctypes.c_void_p(pixels.ctypes.data), ctypes.c_size_t(size), 9)
        """,
    )
    assert set(np.unique(slot.read())) <= {0, 7}
    slot.close()


def descriptors(pid: int) -> set[str]:
    return {path.name for path in Path(f"/proc/{pid}/fd").iterdir()}


async def test_a_decoder_has_its_pipes_and_no_descriptor_of_the_slot() -> None:
    async with make_pool() as pool:
        await pool.decode(request())
        decoder = decoders(pool)[0]
        assert descriptors(decoder.pid) == {"0", "1", "2", "3"}
        assert b"kshot-slot" in (shown_by_kernel(decoder.pid, "maps") or b"kshot-slot")


async def test_slots_go_with_their_decoders() -> None:
    def slots() -> int:
        return Path("/proc/self/maps").read_text().count("kshot-slot")

    others = slots()  # of a service that other tests share
    async with make_pool(clips_per_worker=1) as pool:
        clips = [await pool.decode(request()) for _ in range(6)]
        assert slots() <= others + 3  # one that ends, one that reads, the next one
    assert slots() == others
    assert all((clip.frames_THWC == clips[0].frames_THWC).all() for clip in clips)
