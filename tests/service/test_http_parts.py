"""Whatever headers the parts of a body carry, only UTF-8 is read, and the rest is refused.

A codec of Python's that is no character set (`undefined`, `punycode`), or one that makes text out
of anything (`utf-7`, `unicode_escape`), must not be reached by a parameter that a client writes.
"""

from encodings.aliases import aliases

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.serving import moving_clip, problem, register

CLIP = moving_clip(1)
FAST = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
CODECS = sorted({*aliases.values(), "undefined", "unicode_escape", "idna", "x y", ""})
READ = {"utf-8", "utf8", "us-ascii", "ascii"}
Part = tuple[list[tuple[bytes, bytes]], bytes]


def field(name: str, value: bytes, *more: tuple[bytes, bytes], file: bool = False) -> Part:
    """A part as a client writes it, with further headers behind its own."""
    filename = b'; filename="a.mp4"' if file else b""
    disposition = b'form-data; name="' + name.encode() + b'"' + filename
    return [(b"Content-Disposition", disposition), *more], value


def written(parts: list[Part]) -> bytes:
    """Write a multipart body with the boundary `b`."""
    lines = []
    for headers, value in parts:
        shown = b"".join(name + b": " + header + b"\r\n" for name, header in headers)
        lines.append(b"--b\r\n" + shown + b"\r\n" + value + b"\r\n")
    return b"".join(lines) + b"--b--\r\n"


def task_parts(*more: Part) -> list[Part]:
    clips = [field(f"support[{label}]", CLIP, file=True) for label in ("jump", "wave")]
    return [*clips, *more]


def post(
    client: httpx.Client, parts: list[Part], *, route: str = "/tasks", parameters: bytes = b""
) -> httpx.Response:
    kind = b"multipart/form-data; boundary=b" + parameters
    return client.post(route, content=written(parts), headers={b"content-type": kind})


@pytest.mark.parametrize("where", ["request", "text part", "file part"])
def test_only_utf8_is_read(client: httpx.Client, where: str) -> None:
    for charset in CODECS:
        parameter = b'; charset="' + charset.encode() + b'"'
        typed = (b"Content-Type", b"text/plain" + parameter)
        if where == "request":
            answer = post(client, [field("nmae", b"a-b")], parameters=parameter)
        else:
            answer = post(client, [field("nmae", b"a-b", typed, file=where == "file part")])
        if charset.replace("_", "-").lower() in READ or not charset:
            problem(answer, 422, "unknown-field")
        else:
            refused = problem(answer, 415, "media-type-not-supported")
            assert "UTF-8" in refused["detail"]


@pytest.mark.parametrize(
    "part",
    [
        pytest.param(field("name", b"caf\xe9"), id="text in Latin-1"),
        pytest.param(field("name", b"\xed\xa0\x80"), id="half of a surrogate pair"),
        pytest.param(
            ([(b"Content-Disposition", b'form-data; name="n\xe9"')], b"x"), id="name in Latin-1"
        ),
        pytest.param(
            (
                [(b"Content-Disposition", b'form-data; name="support[jump]"; filename="\xe9"')],
                CLIP,
            ),
            id="file name in Latin-1",
        ),
    ],
)
def test_what_is_no_utf8_is_refused_and_not_guessed(client: httpx.Client, part: Part) -> None:
    refused = problem(post(client, task_parts(part)), 400, "malformed-request")
    assert "UTF-8" in refused["detail"]


@pytest.mark.parametrize("coding", [b"base64", b"quoted-printable", b"x-uuencode"])
def test_a_part_that_would_have_to_be_decoded_is_refused(
    client: httpx.Client, coding: bytes
) -> None:
    coded = field("name", b"YWJj", (b"Content-Transfer-Encoding", coding))
    refused = problem(post(client, task_parts(coded)), 415, "media-type-not-supported")
    assert coding.decode() in refused["detail"]


@pytest.mark.parametrize(
    "raw", [b'{"name": "\xed\xa0\x80", "labels": []}', '{"labels": []}'.encode("utf-16")]
)
def test_json_is_utf8_too(client: httpx.Client, raw: bytes) -> None:
    headers = {"content-type": "application/json"}
    problem(client.post("/tasks", content=raw, headers=headers), 400, "malformed-request")


def test_json_of_another_character_set_is_refused(client: httpx.Client) -> None:
    headers = {"content-type": "application/json; charset=utf-16"}
    answer = client.post("/tasks", content=b"{}", headers=headers)
    problem(answer, 415, "media-type-not-supported")


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=b"])
def test_a_packed_body_is_refused(client: httpx.Client, kind: str) -> None:
    headers = {"content-type": kind, "content-encoding": "gzip"}
    answer = client.post("/tasks", content=b"\x1f\x8b\x08", headers=headers)
    refused = problem(answer, 415, "media-type-not-supported")
    assert "gzip" in refused["detail"]


BYTES = st.binary(max_size=12).map(lambda raw: raw.replace(b"\r", b"").replace(b"\n", b""))
NAMES = st.sampled_from(
    [
        b"Content-Disposition",
        b"Content-Type",
        b"Content-Transfer-Encoding",
        b"Content-Length",
        b"Content-Encoding",
        b"X-Y",
    ]
)
KEYS = st.sampled_from([b"name", b"filename", b"name*", b"filename*", b"charset", b"boundary"])
VALUES = st.one_of(
    BYTES,
    st.sampled_from(CODECS).map(str.encode),
    st.sampled_from([b"support[jump]", b"clip", b"name", b"descriptions", b"UTF-8''%ED%A0%80"]),
)
PARAMETERS = st.lists(
    st.builds(
        lambda key, value, quote: b"; " + key + b"=" + quote + value + quote,
        KEYS,
        VALUES,
        st.sampled_from([b"", b'"', b"'"]),
    ),
    max_size=4,
).map(b"".join)
KINDS = st.one_of(
    BYTES, st.sampled_from([b"form-data", b"text/plain", b"video/mp4", b"multipart/mixed"])
)
HEADERS = st.lists(
    st.tuples(NAMES, st.builds(bytes.__add__, KINDS, PARAMETERS)), min_size=1, max_size=4
)
FUZZED = st.lists(
    st.tuples(
        HEADERS | st.builds(lambda p: [(b"Content-Disposition", b"form-data" + p)], PARAMETERS),
        st.one_of(st.just(CLIP), st.binary(max_size=20), st.just(b'{"jump": ["\\ud800"]}')),
    ),
    min_size=1,
    max_size=3,
)


@pytest.fixture(scope="module")
def task_id(client: httpx.Client) -> str:
    return str(register(client, {"jump": [CLIP], "wave": [CLIP]})["id"])


@FAST
@given(parts=FUZZED, parameters=PARAMETERS)
@example(parts=task_parts(field("name", b"+2AA-")), parameters=b"; charset=utf-7")
@example(parts=task_parts(field("name", b"a")), parameters=b"; charset=undefined")
@example(parts=task_parts(field("name", b"-\xff")), parameters=b"; charset=punycode")
@example(parts=task_parts(field("name", b"\\ud800")), parameters=b"; charset=unicode_escape")
def test_any_header_of_a_part_is_answered(
    client: httpx.Client, task_id: str, parts: list[Part], parameters: bytes
) -> None:
    clean = bytes(byte for byte in parameters if byte >= 32 and byte != 127)
    for route in ("/tasks", f"/tasks/{task_id}/classify"):
        answer = post(client, parts, route=route, parameters=clean)
        assert answer.status_code < 500, answer.text
        if answer.status_code >= 400:
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["code"]
