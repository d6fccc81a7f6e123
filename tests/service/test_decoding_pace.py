"""How many decoders there are, and how much a clip costs them."""

import os
from pathlib import Path

import pytest

from service.decoding.pool import FIRST_BYTES, FIRST_S, LEAST_WORKERS, DecodePace, usable_cores


@pytest.mark.parametrize(
    ("quota", "most"), [("max 100000", None), ("350000 100000", 4), ("50000 100000", 1), ("", None)]
)
def test_cores_are_those_of_the_affinity_and_the_quota(
    tmp_path: Path, quota: str, most: int | None
) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    mine = len(os.sched_getaffinity(0))
    assert usable_cores(tmp_path / "cpu.max") == max(LEAST_WORKERS, min(mine, most or mine))


def test_without_control_groups_the_affinity_counts(tmp_path: Path) -> None:
    assert usable_cores(tmp_path / "none") == max(LEAST_WORKERS, len(os.sched_getaffinity(0)))


def test_the_pace_starts_with_a_belief_and_follows_what_is_measured() -> None:
    pace = DecodePace()
    assert (pace.clip_bytes, pace.s_byte) == (FIRST_BYTES, FIRST_S / FIRST_BYTES)
    for _ in range(300):
        pace.note(1000, 0.1)
    assert pace.clip_bytes == pytest.approx(1000, rel=0.05)
    assert pace.s_byte == pytest.approx(1e-4, rel=0.05)
    for _ in range(100):
        pace.note(4000, 0.1)
    assert pace.clip_bytes > 3000
