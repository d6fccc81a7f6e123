"""Queries of many tasks in one pass: each reads the memory of its own, however they are read."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from model.adapters import task
from model.adapters.task import Memory, attend_each, attend_own, attend_to, stacked

SITES, HEADS, WIDTH = 6, 2, 4


def noise(seed: int, entries: int) -> Tensor:
    return torch.randn(SITES, HEADS, entries, WIDTH, generator=torch.Generator().manual_seed(seed))


def memory(seed: int, entries: int) -> Memory:
    return Memory(noise(seed, entries), noise(1000 + seed, entries))


def test_memories_read_at_once_are_read_as_one_by_one() -> None:
    memories = [memory(seed, 5) for seed in range(4)]
    query, key, value = (noise(seed, 4) for seed in (70, 71, 72))
    want = [
        attend_to(query[:, :, [n]], key[:, :, [n]], value[:, :, [n]], one)
        for n, one in enumerate(memories)
    ]
    got = attend_each(query, key, value, memories)
    torch.testing.assert_close(got, torch.cat(want, dim=2))


def test_a_pass_of_stacks_groups_and_lone_clips_gives_each_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared, others = memory(1, 3), [memory(seed, 3 + seed % 2) for seed in range(2, 8)]
    memories = [shared, *others, None, shared]
    queries = [noise(seed, len(memories)) for seed in (80, 81, 82)]
    want = attend_own(*queries, memories)
    monkeypatch.setattr(task, "STACK_BYTES", 2 * shared.bytes)
    together, stacks = stacked([[0, 8], *([n] for n in range(1, 8))], memories)
    assert together == [[0, 8], [7]]
    assert sorted(place for stack in stacks for place in stack) == [1, 2, 3, 4, 5, 6]
    for places in stacks:
        own = [one for one in (memories[place] for place in places) if one is not None]
        got = attend_each(*(part[:, :, places] for part in queries), own)
        torch.testing.assert_close(got, want[:, :, places])


@given(
    entries=st.lists(st.integers(0, 3), min_size=1, max_size=12),
    clips=st.lists(st.integers(0, 11), min_size=1, max_size=30),
    fit=st.integers(1, 9),
)
def test_every_clip_is_read_once_and_no_stack_is_too_large(
    entries: list[int], clips: list[int], fit: int
) -> None:
    known = [None if count == 0 else memory(count, count) for count in entries]
    memories = [known[clip % len(known)] for clip in clips]
    groups: dict[int, list[int]] = {}
    for place, one in enumerate(memories):
        groups.setdefault(id(one), []).append(place)
    most = fit * memory(1, 1).bytes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task, "STACK_BYTES", most)
        together, stacks = stacked(list(groups.values()), memories)
    assert sorted(place for part in (*together, *stacks) for place in part) == [*range(len(clips))]
    for places in stacks:
        own = [one for one in (memories[place] for place in places) if one is not None]
        assert len(own) == len(places)
        assert len({one.keys_PHME.shape for one in own}) == 1
        assert len(own) == 1 or sum(one.bytes for one in own) <= most
