"""The batcher: nothing lost, nothing twice, tenants share, deadlines and priorities hold."""

import math
from collections import Counter, defaultdict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.engine.fair_queue import FairQueue
from service.engine.queue import FRAMES_PER_FRAME, Batcher, NextWork
from service.engine.work import Kind, Work

CLIP = 8


@dataclass
class Costs:
    """A device of which everything is known."""

    per_frame: float = 0.0
    fixed: float = 0.0
    worthwhile: int = 0

    def predict(self, kind: Kind, frames: int) -> float:
        del kind
        return self.per_frame * frames + self.fixed

    def worthwhile_frames(self, kind: Kind) -> int:
        del kind
        return self.worthwhile


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Bench:
    """A batcher with its clock."""

    costs: Costs = field(default_factory=Costs)
    budget: int = 4 * CLIP
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.batcher = Batcher(
            budget_frames=self.budget,
            clip_frames=CLIP,
            cost=self.costs,
            max_wait_s=0.003,
            clock=self.clock,
        )

    def put(self, count: int = 1, kind: Kind = "classify", **facts: object) -> list[Work]:
        works = [
            Work(**{"kind": kind, "frames": CLIP, "done": Future(), "since": self.clock(), **facts})
            for _ in range(count)
        ]
        assert self.batcher.put(works)
        return works

    def batch(self) -> tuple[Work, ...]:
        return self.batcher.poll().batch


def test_what_is_there_goes_at_once_up_to_the_budget() -> None:
    bench = Bench()
    works = bench.put(6)
    assert bench.batch() == tuple(works[:4])
    assert bench.batcher.queued_frames == 2 * CLIP
    assert bench.batch() == tuple(works[4:])
    assert bench.batcher.poll() == NextWork()


def test_work_larger_than_the_budget_goes_alone() -> None:
    bench = Bench()
    large, small = *bench.put(frames=100), *bench.put()
    assert bench.batch() == (large,)
    assert bench.batch() == (small,)


def test_a_small_batch_waits_three_milliseconds_at_most() -> None:
    bench = Bench(Costs(worthwhile=3 * CLIP))
    works = bench.put()
    assert bench.batcher.poll() == NextWork(wait_s=pytest.approx(0.003))
    bench.clock.now = 0.002
    assert bench.batcher.poll().wait_s == pytest.approx(0.001)
    works += bench.put(2)
    assert bench.batch() == tuple(works)  # enough for a batch
    late = bench.put()
    assert not bench.batch()
    bench.clock.now = 0.0051
    assert bench.batch() == tuple(late)


def test_a_small_batch_does_not_wait_for_what_its_deadline_forbids() -> None:
    bench = Bench(Costs(worthwhile=3 * CLIP, per_frame=0.001))
    bench.put(deadline=0.025)  # a batch worth the name takes 24 ms
    assert bench.batcher.poll().wait_s == pytest.approx(0.001)
    bench.put(deadline=0.020)
    assert len(bench.batch()) == 2


def test_a_small_batch_does_not_wait_while_other_work_does() -> None:
    bench = Bench(Costs(worthwhile=3 * CLIP))
    query, _ = *bench.put(), *bench.put(kind="register")
    assert bench.batch() == (query,)


def test_each_batch_of_queries_is_counted_by_what_closed_it() -> None:
    bench = Bench(Costs(per_frame=0.001))
    bench.put(5)
    assert len(bench.batch()) == 4
    assert bench.batcher.closings == {"full": 1, "deadline": 0, "delay": 0, "idle": 0}
    assert len(bench.batch()) == 1
    assert bench.batcher.closings["idle"] == 1
    bench.put(2, deadline=0.012)
    assert len(bench.batch()) == 1  # two take 16 ms
    assert bench.batcher.closings["deadline"] == 1
    bench.batch()
    bench.costs.worthwhile = 3 * CLIP
    bench.put()
    assert not bench.batch()
    bench.clock.now += 0.0031
    assert len(bench.batch()) == 1
    assert bench.batcher.closings["delay"] == 1
    bench.put(kind="register")
    assert len(bench.batch()) == 1
    assert bench.batcher.closings.total() == 5


def test_classes_go_in_order_and_steps_alone() -> None:
    bench = Bench()
    rebuild, first, second = *bench.put(kind="rebuild"), *bench.put(2, kind="register")
    window, query = *bench.put(kind="timeline"), *bench.put()
    in_order = [(query,), (window,), (first,), (second,), (rebuild,)]
    assert [bench.batch() for _ in range(5)] == in_order


def test_work_behind_a_busier_class_gets_its_share_of_frames() -> None:
    bench = Bench()
    bench.put(20, kind="register")
    bench.put(20, kind="rebuild")
    done: Counter[Kind] = Counter()
    for _ in range(40):
        bench.put(4)
        batch = bench.batch()
        done[batch[0].kind] += sum(work.frames for work in batch)
    assert done["register"] >= done["classify"] / FRAMES_PER_FRAME / 2
    assert done["rebuild"] >= done["classify"] / FRAMES_PER_FRAME / 2
    assert done["classify"] > done["register"]


def test_a_batch_stops_growing_where_it_would_break_a_deadline() -> None:
    bench = Bench(Costs(per_frame=0.001))
    works = bench.put(1, deadline=0.020) + bench.put(3)
    assert bench.batch() == tuple(works[:2])
    assert bench.batch() == tuple(works[2:])


def test_work_that_cannot_be_done_in_time_is_dropped() -> None:
    bench = Bench(Costs(per_frame=0.001))
    passed, short, good = *bench.put(deadline=0.1), *bench.put(deadline=1.004), *bench.put()
    bench.clock.now = 1.0
    next_work = bench.batcher.poll()
    assert next_work.batch == (good,)
    assert [(one.work, one.reason) for one in next_work.dropped] == [
        (passed, "deadline"),
        (short, "deadline"),
    ]
    assert bench.batcher.dropped == {"deadline": 2}


def test_what_nobody_waits_for_is_never_given_out() -> None:
    bench = Bench()
    works = bench.put(4)
    works[0].done.cancel()
    works[2].done.set_result(None)
    bench.batcher.withdraw(works[3:])
    assert bench.batcher.queued_frames == 3 * CLIP
    assert bench.batch() == (works[1],)
    assert bench.batcher.dropped == {"disconnect": 1, "failed": 2}
    assert bench.batcher.queued_frames == 0


def test_a_closed_batcher_takes_nothing_and_returns_what_waits() -> None:
    bench = Bench()
    works = bench.put(3)
    assert bench.batcher.close() == works
    assert not bench.batcher.put(works)
    assert bench.batcher.take(10) == NextWork(closed=True)
    assert bench.batcher.dropped == {"shutdown": 3}


def test_who_takes_wakes_when_work_comes() -> None:
    batcher = Batcher(budget_frames=32, clip_frames=CLIP, cost=Costs(), max_wait_s=0.003)
    with ThreadPoolExecutor(1) as threads:
        taking = threads.submit(batcher.take, 20)
        work = Work(kind="classify", frames=CLIP, done=Future())
        batcher.put([work])
        assert taking.result(timeout=10).batch == (work,)
    assert batcher.take(0.01) == NextWork()


def test_frames_ahead_are_those_of_a_fair_turn() -> None:
    bench = Bench()
    bench.put(100, tenant="busy")
    bench.put(2, tenant="own")
    bench.put(3, kind="register")
    assert bench.batcher.ahead("classify", "own", CLIP) == {
        "classify": (2 + 4) * CLIP,
        "timeline": 0,
        "register": (2 + 4 + 1) * CLIP // FRAMES_PER_FRAME,  # its share meanwhile
        "rebuild": 0,
    }
    busy = bench.batcher.ahead("classify", "busy", CLIP)
    assert busy == {"classify": 102 * CLIP, "timeline": 0, "register": 3 * CLIP, "rebuild": 0}
    assert bench.batcher.ahead("register", "own", CLIP) == {
        "classify": 102 * CLIP,
        "timeline": 0,
        "register": 2 * CLIP,
        "rebuild": 0,
    }


tenants = st.sampled_from("abcd")
sizes = st.integers(1, 40)
kinds = st.sampled_from(("classify", "timeline", "register", "rebuild"))
events = st.lists(
    st.one_of(
        st.tuples(st.just("put"), kinds, tenants, sizes, st.none() | st.floats(0.1, 30)),
        st.tuples(st.just("leave"), st.integers(0, 200)),
        st.tuples(st.just("withdraw"), st.integers(0, 200)),
        st.tuples(st.just("poll"), st.floats(0, 2)),
    ),
    max_size=60,
)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(events, st.integers(1, 64), st.floats(0, 0.05), st.integers(0, 40))
def test_no_work_is_lost_or_done_twice(
    steps: list[tuple[object, ...]], budget: int, per_frame: float, worthwhile: int
) -> None:
    bench = Bench(Costs(per_frame=per_frame, worthwhile=worthwhile), budget)
    put: list[Work] = []
    given_out: list[Work] = []
    dropped: list[Work] = []
    withdrawn: set[int] = set()

    def look() -> NextWork:
        next_work = bench.batcher.poll()
        assert len({work.kind for work in next_work.batch}) <= 1
        for work in next_work.batch:
            assert not work.done.done()
            late = bench.clock() + bench.costs.predict(work.kind, work.frames)
            assert work.deadline is None or late <= work.deadline
        frames = sum(work.frames for work in next_work.batch)
        assert frames <= budget or len(next_work.batch) == 1
        given_out.extend(next_work.batch)
        dropped.extend(one.work for one in next_work.dropped)
        return next_work

    for step in steps:
        match step:
            case ("put", kind, tenant, frames, left):
                deadline = None if left is None else bench.clock() + left  # type: ignore[operator]
                put += bench.put(
                    kind=kind,  # type: ignore[arg-type]
                    tenant=tenant,
                    frames=frames,
                    deadline=deadline,
                )
            case ("leave", int(number)) if number < len(put):
                put[number].done.cancel()
            case ("withdraw", int(number)) if number < len(put):
                bench.batcher.withdraw([put[number]])
                seen = {id(work) for work in given_out + dropped}
                withdrawn |= {id(put[number])} - seen
            case ("poll", float(later)):
                bench.clock.now += later
                look()
    while True:
        next_work = look()
        if not next_work.batch:
            if math.isinf(next_work.wait_s):
                break
            bench.clock.now += next_work.wait_s
    seen = Counter(id(work) for work in given_out + dropped)
    assert set(seen.values()) <= {1}
    assert set(seen) | withdrawn == {id(work) for work in put}
    assert not set(seen) & withdrawn
    assert bench.batcher.queued_frames == 0
    assert bench.batcher.dropped.total() == len(dropped) + len(withdrawn)
    order: dict[tuple[Kind, str], list[Work]] = defaultdict(list)
    for work in given_out:
        order[work.kind, work.tenant].append(work)
    places = {id(work): place for place, work in enumerate(put)}
    for works in order.values():  # within a tenant and class, in the order it came
        assert [places[id(work)] for work in works] == sorted(places[id(work)] for work in works)


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.lists(sizes, min_size=1, max_size=30), min_size=2, max_size=5), sizes)
def test_tenants_that_wait_get_equal_frames(loads: list[list[int]], quantum: int) -> None:
    """At any moment, two tenants that both still wait differ by less than a quantum and 2 works."""
    queue = FairQueue(quantum)
    for tenant, load in enumerate(loads):
        for frames in load:
            queue.push(Work(kind="classify", frames=frames, done=Future(), tenant=str(tenant)))
    served = dict.fromkeys(map(str, range(len(loads))), 0)
    left = {str(tenant): len(load) for tenant, load in enumerate(loads)}
    while (work := queue.pop()) is not None:
        served[work.tenant] += work.frames
        left[work.tenant] -= 1
        waiting = [served[tenant] for tenant in served if left[tenant]]
        if waiting:
            assert max(waiting) - min(waiting) <= quantum + 2 * max(map(max, loads))
    assert served == {str(tenant): sum(load) for tenant, load in enumerate(loads)}
    assert queue.frames == 0
    assert not queue


def test_only_a_batch_that_cannot_grow_is_taken_ahead() -> None:
    bench = Bench()
    works = bench.put(3)
    assert bench.batcher.take_full() == NextWork()
    works += bench.put(3)
    assert bench.batcher.take_full().batch == tuple(works[:4])
    assert bench.batcher.take_full() == NextWork()
    assert bench.batch() == tuple(works[4:])


def test_work_that_has_waited_long_enough_goes_before_a_batch_taken_ahead() -> None:
    bench = Bench()
    bench.put(1, kind="register")
    bench.put(12)
    assert bench.batcher.take_full().batch
    assert bench.batcher.take_full() == NextWork()
    assert [work.kind for work in bench.batch()] == ["register"]
