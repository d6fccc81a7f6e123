"""A language model's endpoint that answers without end, or in any shape, costs a reason, no more.

The endpoint is a real server on loopback, and the loop that asks it is the test's own.
"""

import itertools
import json
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from service.errors import DescriptionUnavailableError
from service.stores.sqlite import SqliteStore
from service.tasks.describe import Describer, DescriberLimits
from service.tasks.endpoint import client_of
from tests.language_model import STAGES, Endpoint, language_model

KEY = "sk-must-not-be-told"
LABEL = "a label that nobody must read"
MOST_MEMORY = 16 * 2**20  # a mebibyte of answer, and copies of it on both sides
LARGE = 2**16  # bytes of JSON that take the loop a millisecond or more
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with language_model() as running:
        yield running


@pytest.fixture
async def describer(endpoint: Endpoint, tmp_path: Path) -> AsyncIterator[Describer]:
    store = await SqliteStore.open(tmp_path / "kshot.db")
    limits = DescriberLimits(call_s=5.0, total_s=20.0, retries=0)
    made = Describer(client_of(KEY, endpoint.url), "tiny", store, limits=limits)
    yield made
    await made.close()
    await store.close()


async def reason(describer: Describer, label: str = LABEL) -> str:
    """Return why a label got no description, which tells no key and no label."""
    with pytest.raises(DescriptionUnavailableError) as caught:
        await describer.describe(label)
    told = str(caught.value)
    assert KEY not in told
    assert label not in told
    return told


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, int]]:
    """Give what tells of each JSON text that is read: whether in this thread, and how long."""
    here, loads = threading.get_ident(), json.loads
    found: list[tuple[bool, int]] = []

    def noting(text: str | bytes, **how: object) -> object:
        found.append((threading.get_ident() == here, len(text)))
        return loads(text, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(json, "loads", noting)
    return found


@pytest.fixture
def memory() -> Iterator[Callable[[], int]]:
    """Give what tells the most bytes that Python held since the test began."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


@pytest.mark.parametrize("mode", ["long", "endless", "packed"])
async def test_no_more_than_a_mebibyte_of_an_answer_is_read(
    endpoint: Endpoint, describer: Describer, memory: Callable[[], int], mode: str
) -> None:
    endpoint.mode = mode
    assert "over 1048576 bytes" in await reason(describer)
    assert memory() < MOST_MEMORY


async def test_an_endless_error_is_its_status(
    endpoint: Endpoint, describer: Describer, memory: Callable[[], int]
) -> None:
    endpoint.mode, endpoint.status = "endless", 500
    try:
        assert "500" in await reason(describer)
    finally:
        endpoint.status = 200
    assert memory() < MOST_MEMORY


@pytest.mark.parametrize("mode", ["good", "long", "endless", "packed", "raw"])
async def test_no_answer_stops_the_loop(
    endpoint: Endpoint, describer: Describer, mode: str, parsed: list[tuple[bool, int]]
) -> None:
    """What takes long is reading half a megabyte of JSON: another thread does it, or nobody."""
    endpoint.mode, endpoint.raw = mode, json.dumps({"choices": [{}] * 250_000}).encode()
    endpoint.content = "[" + "1," * 250_000
    await reason(describer)
    large = [here for here, length in parsed if length > LARGE]
    assert large == {"good": [False, False], "raw": [False]}.get(mode, [])


async def test_a_redirect_is_not_followed(endpoint: Endpoint, describer: Describer) -> None:
    endpoint.mode, endpoint.headers = "307", {"location": f"{endpoint.url}/chat/completions"}
    calls = len(endpoint.calls)
    try:
        assert "307" in await reason(describer)
    finally:
        endpoint.headers = {}
    assert len(endpoint.calls) == calls + 1


GOOD = {"role": "assistant", "content": json.dumps({"stages": STAGES})}
SHAPES: dict[str, tuple[Any, str]] = {
    "no message": ({"choices": [{"finish_reason": "stop"}]}, "no message"),
    "choices a string": ({"choices": "abc"}, "choices is a string"),
    "choices numbers": ({"choices": [1, 2, 3]}, "no message"),
    "choices an object": ({"choices": {"0": {"message": GOOD}}}, "choices is an object"),
    "no choices": ({"id": "x"}, "no choices"),
    "empty choices": ({"choices": []}, "no choices"),
    "message a string": ({"choices": [{"message": "hi"}]}, "no message"),
    "content a list": ({"choices": [{"message": {"content": [1]}}]}, "no text"),
    "content blank": ({"choices": [{"message": {"content": " "}}]}, "no text"),
    "a list": ([GOOD], "a list and no object"),
    "null": (None, "null and no object"),
    "a number": (3, "a number and no object"),
    "a refusal": ({"choices": [{"message": {"refusal": "no", "content": None}}]}, "refused"),
}


@pytest.mark.parametrize("case", SHAPES)
async def test_an_answer_of_another_shape_has_a_reason(
    endpoint: Endpoint, describer: Describer, case: str
) -> None:
    answer, said = SHAPES[case]
    endpoint.mode, endpoint.raw = "raw", json.dumps(answer).encode()
    assert said in await reason(describer)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b'{"id": ' + b"1" * 5_000 + b"}", "too many digits"),
        (b"[" * 100_000, "nests too deeply"),
        (b"<html>gateway</html>", "no JSON"),
        (b"\xff\xfe\x00", "no JSON"),
        (b"", "no JSON"),
    ],
)
async def test_what_is_no_json_has_a_reason(
    endpoint: Endpoint, describer: Describer, raw: bytes, said: str
) -> None:
    endpoint.mode, endpoint.raw = "raw", raw
    assert said in await reason(describer)


LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just(GOOD)
)
NAMES = st.sampled_from(["choices", "message", "content", "finish_reason", "refusal", "stages"])
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=10,
)
COMPLETIONS = st.fixed_dictionaries(
    {"choices": st.lists(st.fixed_dictionaries({"message": VALUES}), max_size=2) | VALUES}
)
CONTENTS = st.builds(
    lambda stages: {"choices": [{"message": {"content": json.dumps(stages)}}]}, VALUES
)
RETRIES = st.dictionaries(
    st.sampled_from(["retry-after", "retry-after-ms", "x-should-retry", "content-encoding"]),
    st.sampled_from(["nan", "inf", "-1", "9" * 400, "true", "gzip", "Mon, 01 Jan 99999999 0:0:0"]),
)


@settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(answer=COMPLETIONS | CONTENTS | VALUES, headers=RETRIES)
@example(answer={"choices": [{"message": GOOD}]}, headers={})
async def test_any_answer_ends_in_a_description_or_a_reason(
    endpoint: Endpoint, describer: Describer, answer: object, headers: dict[str, str]
) -> None:
    endpoint.mode, endpoint.raw, endpoint.headers = "raw", json.dumps(answer).encode(), headers
    try:
        stages = await describer.describe(f"{LABEL} {next(NUMBERS)}")
    except DescriptionUnavailableError:
        stages = ()
    finally:
        endpoint.headers = {}
    assert len(stages) == 3 or answer != {"choices": [{"message": GOOD}]} or headers
