"""The cost model: the line behind the observations, and no refusals from what is not known."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.engine.cost import FEWEST, FORGOTTEN_S, CostModel, Observed, fit


def model(pairs: list[tuple[int, float]]) -> CostModel:
    cost = CostModel()
    for frames, seconds in pairs:
        cost.observe("classify", frames, seconds)
    return cost


def test_two_sizes_give_the_line_through_them() -> None:
    cost = model([(8, 0.018), (16, 0.026)] * 5)  # 1 ms a frame and 10 ms
    assert cost.predict("classify", 64) == pytest.approx(0.074)
    assert cost.drained_s("classify", 150, 64) == pytest.approx(2 * 0.074 + 0.032)
    assert cost.worthwhile_frames("classify") == 40  # 10 ms are a fifth of 50
    assert cost.rate() == pytest.approx(12 / 0.022)


def test_one_size_alone_promises_nothing_for_larger_ones() -> None:
    cost = model([(32, 0.1)] * 10)
    assert cost.predict("classify", 32) == pytest.approx(0.1)
    assert cost.predict("classify", 256) == pytest.approx(0.1)
    assert cost.predict("classify", 8) == pytest.approx(0.025)
    assert cost.worthwhile_frames("classify") == 0


def test_a_few_observations_are_no_reason_to_refuse() -> None:
    cost = model([(8, 100.0)] * (FEWEST - 1))
    assert cost.predict("classify", 8) == 0
    assert CostModel().rate() == 0
    cost.observe("classify", 8, 100.0)
    assert cost.predict("classify", 8) == 100
    assert cost.predict("register", 8) == 0  # each kind of work by itself


def test_what_was_long_ago_is_forgotten() -> None:
    now = 0.0
    cost = CostModel(lambda: now)
    for _ in range(10):
        cost.observe("classify", 8, 100.0)
    now = FORGOTTEN_S + 1
    assert cost.predict("classify", 8) == 0


def test_a_device_that_became_faster_is_believed_within_a_window() -> None:
    cost = model([(8, 1.0), (16, 2.0)] * 25 + [(8, 0.1), (16, 0.2)] * 25)
    assert cost.predict("classify", 16) == pytest.approx(0.2)


PATIENT = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
lines = st.tuples(st.floats(1e-5, 0.1), st.floats(0, 1))
amounts = st.lists(st.integers(1, 32), min_size=2, max_size=20).map(lambda found: [*found, 33, 34])


@PATIENT
@given(lines, amounts)
def test_any_line_is_found_again(line: tuple[float, float], frames: list[int]) -> None:
    per_frame, fixed = line
    found = fit([Observed(8 * count, per_frame * 8 * count + fixed) for count in frames])
    assert found.per_frame == pytest.approx(per_frame, rel=1e-3, abs=1e-9)
    assert found.fixed == pytest.approx(fixed, rel=1e-3, abs=1e-6)


@PATIENT
@given(lines, st.integers(0, 2**32))
def test_wild_observations_do_not_move_the_line_far(line: tuple[float, float], seed: int) -> None:
    per_frame, fixed = line
    noise = random.Random(seed)
    observed = [
        Observed(8 * count, (per_frame * 8 * count + fixed) * (50 if place % 10 == 0 else 1))
        for place, count in enumerate(noise.choices(range(1, 33), k=50))
    ]
    found = fit(observed)
    for count in (1, 8, 32):
        want = per_frame * 8 * count + fixed
        assert found.seconds(8 * count) == pytest.approx(want, rel=0.25)


@PATIENT
@given(
    st.lists(st.tuples(st.integers(1, 4096), st.floats(1e-6, 100)), min_size=1, max_size=50),
    st.integers(1, 4096),
    st.integers(1, 4096),
)
def test_time_is_never_negative_and_grows_with_frames(
    observed: list[tuple[int, float]], one: int, other: int
) -> None:
    found = fit([Observed(*pair) for pair in observed])
    less, more = sorted([one, other])
    assert 0 <= found.seconds(less) <= found.seconds(more)
    assert found.seconds(0) == 0
