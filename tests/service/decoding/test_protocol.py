"""Messages survive the pipe, other bytes are refused, and the memory of pixels keeps its size."""

import asyncio
import contextlib
import fcntl
import io
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.decoding.protocol import (
    FIRST_FD,
    LENGTH,
    MAX_HEADER_BYTES,
    SEALS,
    Message,
    PixelMemory,
    ProtocolError,
    map_pixels,
    pack_head,
    read_message,
    receive,
    write_message,
)
from tests.pools import decoders, make_pool, request, shown_by_kernel


async def received(data: bytes, max_blob_bytes: int = 1000) -> Message:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return await receive(reader, max_blob_bytes)


def raw(header: bytes) -> bytes:
    return LENGTH.pack(len(header)) + header


@given(
    st.dictionaries(st.text(max_size=5).filter(lambda key: key != "sizes"), st.integers()),
    st.lists(st.binary(max_size=50), max_size=5),
)
def test_messages_survive_both_ways(header: dict[str, int], blobs: list[bytes]) -> None:
    message = Message(header, tuple(blobs))
    pipe = io.BytesIO()
    write_message(pipe, message)
    write_message(pipe, message)
    pipe.seek(0)
    assert read_message(pipe) == message
    assert read_message(pipe) == message
    assert read_message(pipe) is None
    assert asyncio.run(received(pipe.getvalue())) == message


@pytest.mark.parametrize(
    "data",
    [
        LENGTH.pack(MAX_HEADER_BYTES + 1),
        LENGTH.pack(2**32 - 1) + bytes(100),
        raw(b"\xff\xfe"),
        raw(b"[]"),
        raw(b"{}"),
        raw(b'{"sizes": 3}'),
        raw(b'{"sizes": [-1]}'),
        raw(b'{"sizes": [true]}'),
        raw(b'{"sizes": [1e3]}'),
        raw(json.dumps({"sizes": [600, 600]}).encode()),
        raw(b"[" * 60000),
    ],
)
async def test_answers_that_are_no_message_are_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        await received(data)


@settings(max_examples=200)
@given(st.binary(max_size=60))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    with contextlib.suppress(ProtocolError, EOFError):
        asyncio.run(received(data))


def test_half_a_message_is_the_end() -> None:
    whole = pack_head(Message({}, (b"12345",))) + b"12345"
    for cut in range(len(whole)):
        if cut < 4 or cut >= len(whole) - 5:
            assert read_message(io.BytesIO(whole[:cut])) is None


def test_a_header_too_long_to_be_read_is_not_sent() -> None:
    with pytest.raises(ProtocolError):
        pack_head(Message({"text": "x" * MAX_HEADER_BYTES}))


REPO = Path(__file__).parents[3]
PRELUDE = """
import ctypes, fcntl, mmap, os, sys
from service.decoding.sandbox import SandboxLimits, lock_down
from service.decoding.protocol import map_pixels
def refused(attempt):
    try:
        attempt()
    except (OSError, ValueError, SystemError):
        return
    raise SystemExit("it was possible")
fd, size = int(sys.argv[1]), int(sys.argv[2])
"""


def hostile(memory: PixelMemory, script: str) -> None:
    """Run a decoder that does what it likes with its memory."""
    subprocess.run(
        [
            sys.executable,
            "-c",
            PRELUDE + textwrap.dedent(script),
            str(memory.fd),
            str(memory.bytes),
        ],
        cwd=REPO,
        pass_fds=(memory.fd,),
        check=True,
        timeout=60,
    )


def test_what_the_decoder_writes_is_read_as_a_copy() -> None:
    memory = PixelMemory(2, 4)
    pixels = map_pixels(os.dup(memory.fd), memory.bytes)
    pixels[:] = np.arange(96, dtype=np.uint8)
    read = memory.read()
    pixels[:] = 0
    assert read.shape == (2, 4, 4, 3)
    assert (read.reshape(-1) == np.arange(96)).all()
    memory.close()
    memory.close()


def test_its_size_is_sealed_on_both_sides() -> None:
    memory = PixelMemory(2, 4)
    assert memory.fd >= FIRST_FD
    assert fcntl.fcntl(memory.fd, fcntl.F_GET_SEALS) == SEALS
    for size in (0, 95, 97):
        with pytest.raises(PermissionError):
            os.ftruncate(memory.fd, size)
    hostile(
        memory,
        """
        for other in (0, size - 1, size + 1):
            refused(lambda: os.ftruncate(fd, other))
        refused(lambda: fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE))
        """,
    )
    assert memory.read().sum() == 0
    memory.close()


def test_a_decoder_that_takes_the_memory_away_does_not_harm_the_reader() -> None:
    """MADV_REMOVE frees the pages under the service's mapping: it reads zeros, and no signal."""
    memory = PixelMemory(8, 64)
    assert memory.read().sum() == 0
    hostile(
        memory,
        """
        pixels = map_pixels(fd, size)
        lock_down(SandboxLimits())
        pixels[:] = 7
        refused(lambda: os.ftruncate(fd, 0))
        libc = ctypes.CDLL(None, use_errno=True)
        libc.madvise(ctypes.c_void_p(pixels.ctypes.data), ctypes.c_size_t(size), 9)
        """,
    )
    assert set(np.unique(memory.read())) <= {0, 7}
    memory.close()


def descriptors(pid: int) -> set[str]:
    return {path.name for path in Path(f"/proc/{pid}/fd").iterdir()}


async def test_a_decoder_has_its_pipes_and_no_descriptor_of_the_slot() -> None:
    async with make_pool() as pool:
        await pool.decode(request())
        decoder = decoders(pool)[0]
        assert descriptors(decoder.pid) == {"0", "1", "2", "3"}
        assert b"kshot-pixels" in (shown_by_kernel(decoder.pid, "maps") or b"kshot-pixels")


async def test_slots_go_with_their_decoders() -> None:
    def mapped() -> int:
        return Path("/proc/self/maps").read_text().count("kshot-pixels")

    others = mapped()  # of a service that other tests share
    async with make_pool(clips_per_worker=1) as pool:
        clips = [await pool.decode(request()) for _ in range(6)]
        assert mapped() <= others + 3  # one that ends, one that reads, the next one
    assert mapped() == others
    assert all((clip.frames_THWC == clips[0].frames_THWC).all() for clip in clips)
