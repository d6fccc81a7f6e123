"""The ledger: what is taken comes back once, and nothing is too large for good."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from service.errors import ServerFullError, TenantOverShareError
from service.tasks.allowance import ACTIVE_S, NOTHING, Cost, Credits, Ledger

MOST = Cost(bytes=1000, decode_ms=1000, frames=100)
AMOUNTS = st.builds(
    Cost,
    bytes=st.integers(0, 2000),
    decode_ms=st.integers(0, 2000),
    frames=st.integers(0, 200),
)


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def ledger(share: float = 0.5) -> tuple[Ledger, Clock]:
    clock = Clock()
    return Ledger(MOST, share=share, clock=clock), clock


def frames(count: int) -> Cost:
    return Cost(frames=count)


def test_what_was_taken_comes_back_once() -> None:
    book, _ = ledger()
    with book.take("a", Cost(bytes=10, decode_ms=20, frames=30)) as credits:
        assert book.held == Cost(bytes=10, decode_ms=20, frames=30)
        credits.correct(decode_ms=0, frames=40)
        assert book.held_by("a") == Cost(bytes=10, frames=40)
        credits.give_back()
    credits.give_back()
    credits.correct(frames=5)
    assert (book.held, book.tenants) == (NOTHING, 0)


def test_frames_that_are_handed_over_outlive_the_request() -> None:
    book, _ = ledger()
    with book.take("a", Cost(bytes=10, frames=30)) as credits:
        later = credits.hand_over()
    assert book.held == frames(30)
    later.give_back()
    assert book.held == NOTHING


def test_a_full_server_refuses_and_one_who_is_alone_is_not_over_a_share() -> None:
    book, _ = ledger()
    book.take("a", frames(45))
    book.take("a", frames(50))
    with pytest.raises(ServerFullError):
        book.take("a", frames(10))


def test_a_tenant_over_its_share_is_refused_while_others_ask() -> None:
    book, clock = ledger()
    mine = [book.take("a", frames(30)) for _ in range(3)]
    with pytest.raises(ServerFullError):
        book.take("b", frames(20))
    with pytest.raises(TenantOverShareError, match="50%"):
        book.take("a", frames(5))
    mine.pop().give_back()
    with pytest.raises(TenantOverShareError):  # what has come free is for the other
        book.take("a", frames(5))
    theirs = book.take("b", frames(20))
    theirs.give_back()
    clock.now_s += ACTIVE_S + 1
    book.take("a", frames(30))  # the other has gone


def test_no_request_is_too_large_for_good() -> None:
    book, _ = ledger()
    small = book.take("a", frames(50))
    large = book.take("b", frames(10**6))
    assert book.held == frames(100)
    small.give_back()
    large.give_back()
    assert book.held == NOTHING


def test_room_that_the_deadline_leaves_counts() -> None:
    book, _ = ledger()
    book.take("a", frames(8), frames(1))  # nothing is before it
    with pytest.raises(ServerFullError):
        book.take("a", frames(8), frames(15))
    book.take("a", frames(8), frames(16))


@given(AMOUNTS, AMOUNTS)
def test_costs_add_and_subtract(one: Cost, other: Cost) -> None:
    assert one + other - other == one
    assert one.within(other) == other.within(one)


class Books(RuleBasedStateMachine):
    """Requests come, are corrected, hand over, leave twice; the sums must always credits."""

    holds = Bundle("holds")

    def __init__(self) -> None:
        super().__init__()
        self.ledger, self.clock = ledger()
        self.open: list[tuple[str, Credits]] = []

    @rule(target=holds, tenant=st.sampled_from("abc"), cost=AMOUNTS, room=AMOUNTS)
    def take(self, tenant: str, cost: Cost, room: Cost) -> Credits | None:
        before = self.ledger.held
        try:
            credits = self.ledger.take(tenant, cost, room)
        except (ServerFullError, TenantOverShareError):
            assert self.ledger.held == before
            return None
        self.open.append((tenant, credits))
        return credits

    @rule(credits=holds, cost=AMOUNTS)
    def correct(self, credits: Credits | None, cost: Cost) -> None:
        if credits:
            credits.correct(bytes=cost.bytes, frames=cost.frames)

    @rule(target=holds, credits=holds)
    def hand_over(self, credits: Credits | None) -> Credits | None:
        if credits is None:
            return None
        moved = credits.hand_over()
        self.open += [(tenant, moved) for tenant, given in self.open if given is credits]
        return moved

    @rule(credits=holds)
    def give_back(self, credits: Credits | None) -> None:
        if credits:
            credits.give_back()
            self.open = [(tenant, given) for tenant, given in self.open if given is not credits]

    @rule(seconds=st.floats(0, 20))
    def wait(self, seconds: float) -> None:
        self.clock.now_s += seconds

    @invariant()
    def sums_hold(self) -> None:
        for tenant in "abc":
            mine = sum((credits.cost for t, credits in self.open if t == tenant), NOTHING)
            assert self.ledger.held_by(tenant) == mine
            assert min(mine.bytes, mine.decode_ms, mine.frames) >= 0
        assert self.ledger.held == sum((credits.cost for _, credits in self.open), NOTHING)

    def teardown(self) -> None:
        for _, credits in self.open:
            credits.give_back()
        assert self.ledger.held == NOTHING
        assert self.ledger.tenants == 0


def test_credits_are_never_negative_never_leaked_never_returned_twice() -> None:
    run_state_machine_as_test(Books)


def test_registrations_do_not_stand_in_front_of_classification() -> None:
    book, _ = ledger()
    asked = Cost(bytes=10, decode_ms=10, frames=8)
    while True:
        try:
            book.take("a", Cost(bytes=100, decode_ms=300, frames=30), work="register")
        except ServerFullError:
            break
    room = Cost(bytes=1000, decode_ms=10, frames=8)  # for one request at a time
    with book.take("a", asked, room), pytest.raises(ServerFullError):
        book.take("a", asked, room)  # of its own kind one is ahead
    assert book.ahead_of("classify") == NOTHING
    book.take("a", asked, room)
    with pytest.raises(ServerFullError):
        book.take("a", frames(1), room, work="register")  # everything goes before it


def test_registrations_leave_memory_to_classification() -> None:
    book, _ = ledger()
    book.take("a", Cost(bytes=500, frames=50), work="register")
    with pytest.raises(ServerFullError):
        book.take("b", Cost(bytes=300), work="register")
    book.take("b", Cost(bytes=200, frames=20), work="register")
    book.take("c", Cost(bytes=300, frames=25))
    with pytest.raises(ServerFullError):
        book.take("c", Cost(bytes=10))  # memory is full, whoever fills it


def test_a_tenant_that_registers_is_not_over_its_share_of_classification() -> None:
    book, _ = ledger()
    book.take("b", frames(1)).give_back()
    book.take("a", frames(60), work="register")
    with pytest.raises(TenantOverShareError):
        book.take("a", frames(10), work="register")
    book.take("a", frames(10))
