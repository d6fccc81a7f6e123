"""What stands around a body is bounded too: no client holds memory or a connection with it."""

import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from service.http import server
from tests.serving import moving_clip

MIB = 2**20
SOON_S = 5.0
CHUNKED = (
    b"POST /tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


@contextmanager
def connected(client: httpx.Client) -> Iterator[socket.socket]:
    with socket.create_connection((client.base_url.host, client.base_url.port or 80)) as raw:
        raw.settimeout(SOON_S)
        yield raw


def taken_bytes(raw: socket.socket, start: bytes, piece: bytes, most: int) -> int:
    """Send without end, and count what was taken until the server hung up."""
    sent = 0
    try:
        raw.sendall(start)
        while sent < most:
            raw.sendall(piece)
            sent += len(piece)
    except OSError:
        pass
    return sent


def answer_of(raw: socket.socket) -> bytes:
    found = b""
    while piece := raw.recv(4096):
        found += piece
    return found


ENDLESS = {
    "headers": (b"GET /livez HTTP/1.1\r\nHost: x\r\n", b"x: " + b"a" * 9000 + b"\r\n"),
    "one header": (b"GET /livez HTTP/1.1\r\nHost: x\r\nx: ", b"a" * 9000),
    "address": (b"GET /livez?", b"a" * 9000),
    "trailers": (CHUNKED + b"2\r\n{}\r\n0\r\n", b"x: " + b"a" * 9000 + b"\r\n"),
    "a chunk's extension": (CHUNKED + b"2;", b"a" * 9000),
}


@pytest.mark.parametrize("case", ENDLESS)
def test_what_stands_around_a_body_is_not_taken_without_end(
    client: httpx.Client, case: str
) -> None:
    start, piece = ENDLESS[case]
    with connected(client) as raw:
        assert taken_bytes(raw, start, piece, 64 * MIB) < 32 * MIB
    assert client.get("/livez").status_code == 200


def test_a_head_that_is_too_long_is_a_problem(client: httpx.Client) -> None:
    refused = client.get("/livez", headers={"x": "a" * (16 * server.HEAD_BYTES)})
    assert refused.status_code == 400
    assert refused.json()["code"] == "malformed-request"
    assert str(server.HEAD_BYTES) in refused.json()["detail"]
    assert client.get("/livez", headers={"x": "a" * (server.HEAD_BYTES // 2)}).status_code == 200


def test_a_body_in_chunks_of_one_byte_is_read(client: httpx.Client) -> None:
    body = b'{"labels": []}' + b" " * server.HEAD_BYTES
    with connected(client) as raw:
        raw.sendall(CHUNKED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        raw.sendall(b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n")
        assert b'"too-few-labels"' in answer_of(raw)


@pytest.mark.parametrize("sent", [b"", b"GET /livez HTTP/1.1\r\nHost:"])
def test_a_head_that_does_not_come_frees_its_connection(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(server, "HEAD_S", 0.2)
    with connected(client) as raw:
        raw.sendall(sent)
        found = answer_of(raw)
    assert (b" 408 " in found and b'"upload-too-slow"' in found) if sent else not found


def test_the_head_of_a_second_request_has_to_come_too(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HEAD_S", 0.2)
    with connected(client) as raw:
        raw.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 200 " in raw.recv(4096)
        raw.sendall(b"GET")
        assert b" 408 " in answer_of(raw)


def test_a_request_at_work_is_not_given_up_for_its_head(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long its body takes, and though the next head has begun."""
    monkeypatch.setattr(server, "HEAD_S", 0.2)
    body = b'{"labels": []}'
    with connected(client) as raw:
        raw.sendall(
            b"POST /tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body)
        )
        time.sleep(0.5)
        raw.sendall(body)
        assert b" 422 " in raw.recv(4096)


@pytest.mark.parametrize("cut", [2, 4, 40])
def test_a_form_that_breaks_off_is_refused(client: httpx.Client, cut: int) -> None:
    """A clip at its end would be missing in the task, and nobody would know."""
    whole = b"".join(
        b'--x\r\nContent-Disposition: form-data; name="support[%b]"; filename="a.mp4"\r\n\r\n%b\r\n'
        % (label, moving_clip(1))
        for label in (b"jump", b"wave", b"wave")
    )
    whole += b"--x--"
    kind = {"content-type": "multipart/form-data; boundary=x"}
    refused = client.post("/tasks", content=whole[:-cut], headers=kind)
    assert (refused.status_code, refused.json()["code"]) == (400, "malformed-request")
    assert re.search("boundary", refused.json()["detail"])
