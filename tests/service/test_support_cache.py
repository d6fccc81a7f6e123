"""The support cache: a budget of bytes, what is used stays, one build for all who wait."""

import asyncio
import tracemalloc
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.episode import ClassSet, EncodedSupport
from service.engine.support_cache import SupportCache, SupportKey
from service.errors import EngineError
from service.stores.errors import TaskNotFoundError

SUPPORT = EncodedSupport(ClassSet(torch.zeros(2, 8, 4), (1, 1)), (), None, "weights")
SIZE = SUPPORT.bytes


@pytest.fixture
def support() -> EncodedSupport:
    return SUPPORT


def key(task_id: str, revision: int = 1) -> SupportKey:
    return SupportKey(task_id, revision, "weights")


async def give() -> EncodedSupport:
    return SUPPORT


def kept(cache: SupportCache, names: str) -> str:
    return "".join(name for name in names if cache.peek(key(name)))


async def test_the_cache_keeps_the_most_recent_within_its_bytes(support: EncodedSupport) -> None:
    cache = SupportCache(2 * support.bytes)
    for name in ("a", "b"):
        cache.put(key(name), support)
    assert cache.peek(key("a"))
    cache.put(key("c"), support)
    assert [bool(cache.peek(key(name))) for name in "abc"] == [True, False, True]
    assert cache.bytes == 2 * support.bytes
    cache.forget("a")
    assert cache.bytes == support.bytes


async def test_how_long_evicted_supports_were_not_used_is_told(support: EncodedSupport) -> None:
    cache, idle_s = SupportCache(2 * support.bytes), list[float]()
    cache.evicted = idle_s.append
    for name in "abc":
        cache.put(SupportKey(name, 1, "x"), support)
    assert len(idle_s) == 1
    assert 0 <= idle_s[0] < 60
    cache.forget("c")
    assert len(idle_s) == 1, "nobody evicted it"


async def test_supports_are_built_once_for_all_who_wait(support: EncodedSupport) -> None:
    cache = SupportCache(support.bytes)
    builds = 0

    async def build() -> EncodedSupport:
        nonlocal builds
        builds += 1
        await asyncio.sleep(0.01)
        return support

    first = asyncio.create_task(cache.get(key("a"), build))
    others = [asyncio.create_task(cache.get(key("a"), build)) for _ in range(5)]
    await asyncio.sleep(0)
    first.cancel()  # who leaves takes nothing from the others
    assert all(found is support for found in await asyncio.gather(*others))
    assert builds == 1


async def test_a_failed_build_is_tried_again(support: EncodedSupport) -> None:
    cache = SupportCache(support.bytes)

    async def fail() -> EncodedSupport:
        raise EngineError("Broken.")

    async def build() -> EncodedSupport:
        return support

    with pytest.raises(EngineError):
        await cache.get(key("a"), fail)
    assert await cache.get(key("a"), build) is support


async def test_forgetting_a_task_ends_its_build(support: EncodedSupport) -> None:
    cache = SupportCache(support.bytes)

    async def never() -> EncodedSupport:
        await asyncio.sleep(60)
        return support

    waiting = asyncio.create_task(cache.get(key("a"), never))
    await asyncio.sleep(0.01)
    cache.forget("a")
    with pytest.raises(TaskNotFoundError, match="a was deleted"):
        await waiting


async def test_older_revisions_are_forgotten_alone(support: EncodedSupport) -> None:
    cache = SupportCache(9 * support.bytes)
    for revision in (1, 2, 3):
        cache.put(key("a", revision), support)
    cache.forget("a", below_revision=3)
    assert [bool(cache.peek(key("a", revision))) for revision in (1, 2, 3)] == [False, False, True]


async def test_what_is_pinned_stays_and_the_budget_comes_back() -> None:
    cache = SupportCache(2 * SIZE)
    with cache.pinned(key("a")), cache.pinned(key("b")):
        for name in "abc":
            cache.put(key(name), SUPPORT)
        assert kept(cache, "abc") == "ab"  # c was the only one to go
        with cache.pinned(key("c")):
            cache.put(key("c"), SUPPORT)
            assert kept(cache, "abc") == "abc"
            assert cache.bytes == 3 * SIZE  # overshot by what is in use alone
    assert cache.bytes == 2 * SIZE
    for name in "xyz":
        cache.put(key(name), SUPPORT)
    assert kept(cache, "abcxyz") == "yz"


async def test_a_pin_holds_as_long_as_the_last_who_uses_it() -> None:
    cache = SupportCache(0)
    with cache.pinned(key("a")):
        with cache.pinned(key("a")):
            assert await cache.get(key("a"), give) is SUPPORT
        assert cache.peek(key("a")) is SUPPORT
    assert cache.peek(key("a")) is None
    assert cache.bytes == 0


async def test_freeing_memory_leaves_what_is_used() -> None:
    cache = SupportCache(9 * SIZE)
    for name in "abc":
        cache.put(key(name), SUPPORT)
    with cache.pinned(key("b")):
        cache.free()
    assert kept(cache, "abc") == "b"


async def test_an_entry_costs_its_bytes_and_little_more() -> None:
    """What one idle task costs in the cache, beside its tensors."""
    cache = SupportCache(10_000 * SIZE)
    entries = [replace(SUPPORT) for _ in range(1000)]
    tracemalloc.start()
    for number, entry in enumerate(entries):
        cache.put(key(f"{number:032x}"), entry)
    overhead = tracemalloc.get_traced_memory()[0] / len(entries)
    tracemalloc.stop()
    assert cache.bytes == 1000 * SIZE
    assert overhead < 1024


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(st.sampled_from(("put", "pin", "unpin", "forget", "free")), st.integers(0, 5))
    ),
    st.integers(0, 4),
)
def test_the_budget_is_kept_but_for_pins(steps: list[tuple[str, int]], budget: int) -> None:
    cache = SupportCache(budget * SIZE)
    pins: dict[int, object] = {}
    for step, number in steps:
        match step:
            case "put":
                cache.put(key(str(number)), SUPPORT)
            case "pin" if number not in pins:
                pins[number] = cache.pinned(key(str(number)))
                pins[number].__enter__()  # type: ignore[attr-defined]
            case "unpin" if number in pins:
                pins.pop(number).__exit__(None, None, None)  # type: ignore[attr-defined]
            case "forget":
                cache.forget(str(number))
            case "free":
                cache.free()
        used = [number for number in pins if key(str(number)) in cache._entries]
        assert cache.bytes == len(cache) * SIZE
        assert cache.bytes <= max(budget, len(used)) * SIZE
