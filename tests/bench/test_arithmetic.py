"""What benchmarks compute from what they saw: by hand, without a clock."""

import asyncio
import itertools
import json
import statistics
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.bars import Bar, interleaved, median_ratio, table
from tests.bench.generator import Generator, Plan, told_by
from tests.bench.independence import mixed_batches
from tests.bench.schedule import (
    Sample,
    departures,
    goodput,
    percentile,
    poisson,
    recovery_s,
    summary,
)
from tests.bench.wire import Answer, Wire, request_bytes

LABELS = ("wave", "jump")


def sample(intended: float, took: float, status: int = 200, body: int = 0) -> Sample:
    return Sample(
        intended=intended,
        sent=intended + 0.01,
        done=intended + took,
        status=status,
        body=body,
        label=LABELS[body] if status == 200 else None,
    )


def test_arrivals_come_from_their_seed_at_their_rate_within_their_time() -> None:
    moments = poisson(50.0, 100.0, seed=1, start=7.0)
    assert moments == poisson(50.0, 100.0, seed=1, start=7.0)
    assert moments != poisson(50.0, 100.0, seed=2, start=7.0)
    assert moments == sorted(moments)
    assert moments[0] > 7.0
    assert moments[-1] < 107.0
    gaps = [later - earlier for earlier, later in itertools.pairwise(moments)]
    assert len(moments) == pytest.approx(5000, rel=0.05)
    assert statistics.stdev(gaps) == pytest.approx(statistics.mean(gaps), rel=0.1)  # exponential


def test_a_share_of_the_clients_leaves_within_the_time() -> None:
    leaves = departures(100, 0.3, 5.0, seed=3)
    moments = [at for at in leaves if at is not None]
    assert (len(leaves), len(moments)) == (100, 30)
    assert 0 <= min(moments) < max(moments) <= 5.0


def test_percentiles_by_hand() -> None:
    assert percentile([3.0, 1.0, 2.0], 50) == 2.0
    assert percentile([0.0, 10.0], 99) == pytest.approx(9.9)
    assert percentile([4.0], 99.9) == 4.0
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 100))
def test_a_percentile_lies_among_the_values(values: list[float], percent: float) -> None:
    assert min(values) <= percentile(values, percent) <= max(values)


def test_goodput_counts_answers_that_are_in_time_and_right() -> None:
    wrong = Sample(intended=1.0, sent=1.0, done=1.1, status=200, body=1, label="wave")
    samples = [
        sample(1.0, 0.4),
        sample(1.5, 0.4, body=1),
        sample(2.0, 0.9),  # late
        sample(2.5, 0.1, status=503),
        sample(9.9, 0.4),  # after the end
        wrong,
    ]
    assert goodput(samples, 0.5, LABELS, 0.0, 10.0) == pytest.approx(0.2)


def test_latency_counts_from_the_intended_moment() -> None:
    late_sender = Sample(intended=1.0, sent=3.0, done=3.1, status=200)
    assert late_sender.latency_s == pytest.approx(2.1)


def test_recovery_lasts_until_the_last_request_without_a_good_answer() -> None:
    samples = [sample(9.0, 9.0), sample(10.5, 0.1, 503), sample(12.0, 2.0), sample(13.0, 0.1)]
    assert recovery_s(samples, 1.0, LABELS, since=10.0) == pytest.approx(2.0)
    assert recovery_s(samples, 3.0, LABELS, since=11.0) == 0.0


def test_a_summary_has_latencies_of_answers_and_the_share_of_refusals() -> None:
    told = summary([sample(0.0, 0.1), sample(0.0, 0.3), sample(0.0, 0.01, 429), sample(0, 1, 0)])
    assert (told["requests"], told["answered"], told["rejected"]) == (4, 2, 0.25)
    assert told["p50_ms"] == 200.0
    assert told["sender_lag_p99_ms"] == 10.0


@pytest.mark.parametrize(
    ("measured", "sense", "met"),
    [(0.95, ">=", True), (0.94, ">=", False), (0.95, "<=", True), (0.96, "<=", False)],
)
def test_a_bar_is_met_up_to_itself(measured: float, sense: str, met: bool) -> None:
    bar = Bar("any", measured, sense, 0.95)  # type: ignore[arg-type]
    assert bar.met is met
    assert ("MISSED" in table([bar.row()])) is not met


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    bar = Bar("any", None, ">=", 1)
    assert bar.met is None
    assert "not measured" in table([json.loads(json.dumps(bar.row()))])


def test_ratios_are_taken_within_a_round() -> None:
    assert median_ratio([1.0, 10.0, 100.0], [1.0, 5.0, 50.0]) == 2.0


def test_rounds_turn_their_order() -> None:
    called: list[str] = []
    calls = {name: lambda name=name: called.append(name) or 1.0 for name in "ab"}  # type: ignore[misc, func-returns-value]
    assert interleaved(3, calls) == {"a": [1.0] * 3, "b": [1.0] * 3}
    assert "".join(called) == "abbaab"


def test_mixed_batches_hold_different_clips() -> None:
    batches = mixed_batches(40, 25, seed=0)
    assert len(batches) == 25
    assert all(len(set(batch)) == len(batch) for batch in batches)
    assert {place for batch in batches for place in batch} == set(range(40))


ANSWER = json.dumps(
    {
        "results": [{"label": "wave"}],
        "timing_ms": {"decode": 1.0, "queue": 2.0, "compute": 3.0},
    }
).encode()


def test_only_an_answer_has_a_label_and_times() -> None:
    told = told_by(Answer(200, ANSWER))
    assert told == {"label": "wave", "decode_ms": 1.0, "queue_ms": 2.0, "compute_ms": 3.0}
    assert told_by(Answer(503, b"{}")) == {}


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request a connection, but hold those that ask for it."""
    head = await reader.readuntil(b"\r\n\r\n")
    body = await reader.readexactly(int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0]))
    if body != b"hold":
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(ANSWER) + ANSWER)
        await writer.drain()
    else:
        await reader.read()
    writer.close()


async def test_a_connection_that_the_server_closed_is_opened_again() -> None:
    async with await asyncio.start_server(_serve, "127.0.0.1", 0) as server:
        wire = Wire("127.0.0.1", server.sockets[0].getsockname()[1])
        request = request_bytes("POST", "/", b"any")
        assert [(await wire.ask(request)).status for _ in range(2)] == [200, 200]
        wire.close()


async def test_clients_of_a_plan_stay_or_leave(tmp_path: Path) -> None:
    bodies = [tmp_path / "a", tmp_path / "b"]
    bodies[0].write_bytes(b"any")
    bodies[1].write_bytes(b"hold")
    async with await asyncio.start_server(_serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        plan = Plan(
            port=port,
            target="/",
            bodies=[str(body) for body in bodies],
            sends=[0.0, 0.01],
            leaves=[None, 0.5],  # once it is connected, on a busy machine too
        )
        told = await Generator(plan).run()
    found = {one["body"]: one["status"] for one in told["samples"]}
    assert found == {0: 200, 1: 0}
