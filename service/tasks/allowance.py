"""What one request may use: time until its deadline, and credits for the work that it brings.

Credits are taken from a ledger before the body is read and go back once. Three kinds are counted:
bytes of bodies, milliseconds of decoding, frames for the device. All are whole numbers, so that
what was given back sums to nothing. One event loop uses a ledger.

Classification goes first on the device and has a decoder of its own, so a classify request waits
for other classify requests alone, and is refused because of them alone. Memory is shared by all:
registrations leave a part of it free.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from service.decoding.turns import WorkClass
from service.errors import DeadlineError, ServerFullError, TenantOverShareError
from service.tasks.quota.keeper import Purse

ACTIVE_S = 10.0  # a tenant counts as active this long after it last asked
REGISTER_PART = 0.75  # of all, that registrations may hold together


@dataclass(frozen=True, slots=True)
class Deadline:
    """An instant of `time.monotonic()` after which nobody wants the answer."""

    at: float
    allowed_s: float

    @classmethod
    def after(cls, allowed_s: float) -> Self:
        """Return the deadline that many seconds from now."""
        return cls(time.monotonic() + allowed_s, allowed_s)

    @property
    def left_s(self) -> float:
        """Seconds until then, 0 when it has passed."""
        return max(0.0, self.at - time.monotonic())

    def check(self, stage: str) -> None:
        """Refuse to begin a stage after the deadline.

        Raises:
            DeadlineError: The deadline has passed.
        """
        if time.monotonic() >= self.at:
            raise self.passed(stage)

    def passed(self, stage: str) -> DeadlineError:
        """Return the error of a request that stood at this stage when its time was over."""
        return DeadlineError(
            f"The request was not done in {self.allowed_s:g} s (it stood at {stage}); "
            "allow more time, or send less."
        )

    @asynccontextmanager
    async def bounding(self, stage: str) -> AsyncIterator[None]:
        """Begin a stage, and cut it off at the deadline.

        Raises:
            DeadlineError: It has passed, before or meanwhile.
        """
        self.check(stage)
        try:
            async with asyncio.timeout(self.left_s) as limit:
                yield
        except TimeoutError:
            if limit.expired():
                raise self.passed(stage) from None
            raise


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """An amount of each kind, 0 or more."""

    bytes: int = 0
    decode_ms: int = 0
    frames: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            bytes=self.bytes + other.bytes,
            decode_ms=self.decode_ms + other.decode_ms,
            frames=self.frames + other.frames,
        )

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(
            bytes=self.bytes - other.bytes,
            decode_ms=self.decode_ms - other.decode_ms,
            frames=self.frames - other.frames,
        )

    def within(self, room: "Cost") -> "Cost":
        """Cut each kind to what `room` has of it."""
        return Cost(
            bytes=min(self.bytes, room.bytes),
            decode_ms=min(self.decode_ms, room.decode_ms),
            frames=min(self.frames, room.frames),
        )

    def times(self, factor: float) -> "Cost":
        """Scale each kind, rounded down."""
        return Cost(
            bytes=int(self.bytes * factor),
            decode_ms=int(self.decode_ms * factor),
            frames=int(self.frames * factor),
        )


NOTHING = Cost()


class Credits:
    """What one request holds; as a context manager it gives this back at the end."""

    def __init__(
        self, ledger: "Ledger", tenant: str, cost: Cost, work: WorkClass = "classify"
    ) -> None:
        self.cost = cost
        self.tenant = tenant
        self.work: WorkClass = work
        self._ledger = ledger
        self._returned = False

    def correct(
        self, *, bytes: int | None = None, decode_ms: int | None = None, frames: int | None = None
    ) -> None:
        """Replace an estimate by what became known; never refused, since the work is here."""
        if self._returned:
            return
        known = replace(
            self.cost,
            bytes=self.cost.bytes if bytes is None else bytes,
            decode_ms=self.cost.decode_ms if decode_ms is None else decode_ms,
            frames=self.cost.frames if frames is None else frames,
        )
        cost = self._ledger.charged(known)
        self._ledger.add(self.tenant, cost - self.cost, self.work)
        self.cost = cost

    def hand_over(self, *, whole: bool = False) -> "Credits":
        """Move the frames, or all, to credits of their own, for work that outlives the request."""
        part = self.cost if whole else Cost(frames=self.cost.frames)
        moved = NOTHING if self._returned else part
        self.cost = self.cost - moved
        other = Credits(self._ledger, self.tenant, moved, self.work)
        other._returned = self._returned
        return other

    def give_back(self) -> None:
        """Return the credits; the second time nothing happens."""
        if not self._returned:
            self._returned = True
            self._ledger.add(self.tenant, NOTHING - self.cost, self.work)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.give_back()


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a request was admitted with; what admitted it takes the credits back at its end."""

    tenant: str  # whose request it is
    deadline: Deadline
    credits: Credits
    owner: str = ""  # whose the tasks are that it makes
    seed: str | None = None  # its client may send it again: what it makes has ids made of this
    purse: Purse | None = None  # where tenants have quotas


class Ledger:
    """Who holds how much of what all requests may hold together.

    Args:
        most: All of it.
        share: Part of it, in (0, 1], that one tenant may hold while another is active.
        clock: Seconds.
    """

    def __init__(
        self, most: Cost, *, share: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.most = most
        self.share = share
        self.held = NOTHING
        self._clock = clock
        self._by_class: dict[WorkClass, Cost] = {}
        self._by_tenant: dict[str, dict[WorkClass, Cost]] = {}
        self._asked: dict[str, float] = {}  # by tenant, the one that asked last at the end

    def take(
        self, tenant: str, cost: Cost, room: Cost | None = None, work: WorkClass = "classify"
    ) -> Credits:
        """Take credits for a request.

        A kind of which nothing is held admits a request of any size, so none is refused forever.

        Args:
            tenant: Who asks.
            cost: An estimate.
            room: What may stand ahead of the request and be done in time, its own cost included;
                None is all.
            work: Its class, which decides what stands ahead of it.

        Raises:
            TenantOverShareError: The tenant would hold more than its share while others ask too.
            ServerFullError: All tenants together would hold too much.
        """
        room = self.most if room is None else room.within(self.most)
        cost = self.charged(cost)
        if self._others_active(tenant) and _over(
            self.held_by(tenant, work), cost, room.times(self.share)
        ):
            raise TenantOverShareError(
                f"You hold more than {self.share:.0%} of the server while others ask too; "
                "wait for your running requests."
            )
        in_memory = replace(self.held, decode_ms=0)
        part = self.most.times(REGISTER_PART)
        if (
            _over(self.ahead_of(work), cost, room)
            or _over(in_memory, cost, self.most)
            or (work == "register" and _over(self._by_class.get(work, NOTHING), cost, part))
        ):
            raise ServerFullError("The server has as much work as it can do in time; ask later.")
        self.add(tenant, cost, work)
        return Credits(self, tenant, cost, work)

    def ahead_of(self, work: WorkClass) -> Cost:
        """Return what is held by work that goes before a new request of this class."""
        return self._by_class.get("classify", NOTHING) if work == "classify" else self.held

    def charged(self, cost: Cost) -> Cost:
        """Return what a request is charged: at most half of all, so that a large one can get in."""
        half = self.most.times(0.5)
        return cost.within(half)

    def held_by(self, tenant: str, work: WorkClass = "register") -> Cost:
        """Return what one tenant holds that goes before its next request of this class."""
        by_class = self._by_tenant.get(tenant, {})
        counted = [by_class.get("classify", NOTHING)]
        if work == "register":
            counted.append(by_class.get("register", NOTHING))
        return sum(counted, NOTHING)

    @property
    def tenants(self) -> int:
        """How many tenants hold something."""
        return len(self._by_tenant)

    def add(self, tenant: str, cost: Cost, work: WorkClass) -> None:
        """Record a change; only `Credits` and `take` call this."""
        self.held += cost
        self._by_class[work] = self._by_class.get(work, NOTHING) + cost
        by_class = self._by_tenant.setdefault(tenant, {})
        by_class[work] = by_class.get(work, NOTHING) + cost
        if self.held_by(tenant) == NOTHING:
            del self._by_tenant[tenant]

    def _others_active(self, tenant: str) -> bool:
        """Note that a tenant asks, and tell whether another did lately."""
        now = self._clock()
        self._asked.pop(tenant, None)
        while self._asked and now - next(iter(self._asked.values())) > ACTIVE_S:
            self._asked.pop(next(iter(self._asked)))
        others = bool(self._asked) or len(self._by_tenant) > (tenant in self._by_tenant)
        self._asked[tenant] = now
        return others


def _over(held: Cost, cost: Cost, room: Cost) -> bool:
    """Tell whether a kind of which something is held already would exceed its room."""
    return (
        _crowded(held.bytes, cost.bytes, room.bytes)
        or _crowded(held.decode_ms, cost.decode_ms, room.decode_ms)
        or _crowded(held.frames, cost.frames, room.frames)
    )


def _crowded(held: int, more: int, room: int) -> bool:
    return held > 0 and more > 0 and held + more > room
