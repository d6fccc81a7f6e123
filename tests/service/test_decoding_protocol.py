"""Messages survive the pipe; whatever is no message is refused before it costs anything."""

import asyncio
import contextlib
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.decoding.protocol import (
    LENGTH,
    MAX_HEADER_BYTES,
    Message,
    ProtocolError,
    pack_head,
    read_message,
    receive,
    write_message,
)


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
