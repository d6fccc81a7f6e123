"""How the service and a decoder talk: messages through pipes, and pixels through shared memory.

A message is `header length (4 bytes) | header | blob | blob ...`, without pickle; the header is
JSON, and its "sizes" has the length of each blob. The service does not trust what comes back:
lengths are bounded before a byte is read, and the header is parsed as data.

A decoder writes a clip's frames into memory that the service reads. It has a fixed size and holds
pixels alone, so there is nothing in it to believe. Its size is sealed before the decoder gets it:
memory that shrank under a reader would kill the reader.

Dimensions: T sampled frames, H = W = size, C = 3 channels (RGB).
"""

import fcntl
import json
import mmap
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

if TYPE_CHECKING:  # a decoder, which does without, starts a sixth sooner
    import asyncio

LENGTH = struct.Struct("!I")
MAX_HEADER_BYTES = 2**16
FIRST_FD = 64  # the decoder needs the low numbers for its pipes
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class ProtocolError(Exception):
    """The other side sent something that is no message; the connection is of no more use."""


@dataclass(frozen=True, slots=True)
class Message:
    """One request or answer."""

    header: Mapping[str, Any]
    blobs: tuple[bytes, ...] = ()


def pack_head(message: Message) -> bytes:
    """Encode everything before the blobs, which follow as they are."""
    sizes = [len(blob) for blob in message.blobs]
    header = json.dumps({**message.header, "sizes": sizes}).encode()
    if len(header) > MAX_HEADER_BYTES:
        raise ProtocolError(f"A header of {len(header)} bytes is longer than {MAX_HEADER_BYTES}.")
    return LENGTH.pack(len(header)) + header


def parse_header(header: bytes, max_blob_bytes: int) -> tuple[Mapping[str, Any], Sequence[int]]:
    """Decode a header and the sizes of the blobs that follow it."""
    try:
        fields = json.loads(header)
        sizes = fields.pop("sizes")
        plausible = all(type(size) is int and size >= 0 for size in sizes)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ProtocolError("The header is no JSON object with sizes.") from error
    if not plausible or sum(sizes) > max_blob_bytes:
        raise ProtocolError(f"The blobs' sizes {sizes!r:.100} exceed {max_blob_bytes} bytes.")
    return fields, sizes


def write_message(stream: BinaryIO, message: Message) -> None:
    """Send a message through a blocking pipe: the decoder's side."""
    stream.write(pack_head(message))
    for blob in message.blobs:
        stream.write(blob)
    stream.flush()


def read_message(stream: BinaryIO) -> Message | None:
    """Receive a message from a blocking pipe, or None when the service has closed it."""
    prefix = stream.read(LENGTH.size)
    if len(prefix) < LENGTH.size:
        return None
    header, sizes = parse_header(stream.read(LENGTH.unpack(prefix)[0]), max_blob_bytes=2**40)
    blobs = tuple(stream.read(size) for size in sizes)
    if [len(blob) for blob in blobs] != list(sizes):
        return None
    return Message(header, blobs)


async def send(writer: "asyncio.StreamWriter", message: Message) -> None:
    """Send a message without blocking the event loop: the service's side."""
    writer.write(pack_head(message))
    for blob in message.blobs:
        writer.write(blob)
        await writer.drain()
    await writer.drain()


async def receive(reader: "asyncio.StreamReader", max_blob_bytes: int) -> Message:
    """Receive a message without blocking the event loop, its blobs bounded together."""
    length = LENGTH.unpack(await reader.readexactly(LENGTH.size))[0]
    if length > MAX_HEADER_BYTES:
        raise ProtocolError(f"A header of {length} bytes is longer than {MAX_HEADER_BYTES}.")
    header, sizes = parse_header(await reader.readexactly(length), max_blob_bytes)
    return Message(header, tuple([await reader.readexactly(size) for size in sizes]))


class PixelMemory:
    """Shared memory of one decoder, on the service's side, which can only read it.

    Args:
        frames: T.
        size: H and W.
    """

    def __init__(self, frames: int, size: int) -> None:
        self._shape = (frames, size, size, 3)
        self.bytes = frames * size * size * 3
        made = os.memfd_create("kshot-pixels", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
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


def map_pixels(fd: int, size: int) -> np.ndarray:
    """Map the shared memory into the decoder, uint8 [bytes], and close its descriptor."""
    memory = mmap.mmap(fd, size)
    os.close(fd)
    return np.frombuffer(memory, np.uint8)
