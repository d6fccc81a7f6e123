"""Whose turn it is at the decoders, and how fast they are.

Clips to classify go first and always find a decoder left for them. Within a class tenants take
turns, so that one who sends many clips at once does not stand before all others.

A decoder that reads a clip cannot be interrupted. So the clips of registrations never take the last
decoder, and one that becomes free goes to a clip to classify before any of a registration. But a
clip of a registration that waits behind them gets every fifth turn, so that it is never starved.
"""

import asyncio
from collections import OrderedDict, deque
from typing import Generic, Literal, TypeVar

Free = TypeVar("Free")
WorkClass = Literal["classify", "register"]  # what goes first stands first
TURNS_PER_TURN = 4  # of clips to classify for one of a registration that waits behind them
MEMORY_CLIPS = 50  # about so many clips are remembered
FIRST_BYTES, FIRST_S = 200e3, 0.05  # of one clip, believed before any was measured


class ClosedError(Exception):
    """Nothing more is given out."""


class Line(Generic[Free]):
    """Who waits, tenant by tenant; the clips of one tenant in the order they came."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[asyncio.Future[Free]]] = OrderedDict()

    def __bool__(self) -> bool:
        return self._tenant() is not None

    def push(self, tenant: str, turn: asyncio.Future[Free]) -> None:
        """Stand behind those of a tenant."""
        self._waiting.setdefault(tenant, deque()).append(turn)

    def pop(self) -> asyncio.Future[Free] | None:
        """Take out who is next; his tenant stands behind the others then."""
        if (tenant := self._tenant()) is None:
            return None
        self._waiting.move_to_end(tenant)
        return self._waiting[tenant].popleft()

    def _tenant(self) -> str | None:
        """Return whose turn it is; whoever waited and has left is taken out."""
        while self._waiting:
            tenant, turns = next(iter(self._waiting.items()))
            while turns and turns[0].done():
                turns.popleft()
            if turns:
                return tenant
            del self._waiting[tenant]
        return None


class Turns(Generic[Free]):
    """What is free, and who waits for it.

    Args:
        most: How many there are in all; registrations use one less, where there are several.
    """

    def __init__(self, most: int) -> None:
        self.registering = 0  # in the hands of registrations
        self._most_registering = max(1, most - 1)
        self._passed = 0  # clips to classify that went before a registration's
        self._free: deque[Free] = deque()
        self._waiting: dict[WorkClass, Line[Free]] = {"classify": Line(), "register": Line()}
        self._closed = False

    @property
    def free(self) -> int:
        """How many wait for work."""
        return len(self._free)

    def put(self, free: Free) -> None:
        """Give back what became free, or is new."""
        self._free.append(free)
        self._hand_out()

    def close(self) -> None:
        """Give out nothing more; whoever waits is told."""
        self._closed = True
        for waiting in self._waiting.values():
            while (turn := waiting.pop()) is not None:
                turn.set_exception(ClosedError())

    async def take(self, work: WorkClass, tenant: str = "") -> Free:
        """Wait for a turn.

        `done` follows, when it is used no more.

        Args:
            work: What it is wanted for.
            tenant: Whose clip it is.

        Raises:
            ClosedError: Nothing is given out any more.
        """
        if self._closed:
            raise ClosedError
        turn: asyncio.Future[Free] = asyncio.get_running_loop().create_future()
        self._waiting[work].push(tenant, turn)
        self._hand_out()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.done(work)
                self.put(turn.result())  # it came while its taker left
            raise

    def done(self, work: WorkClass) -> None:
        """Note that what was taken for a class of work is in its hands no more."""
        if work == "register":
            self.registering -= 1
            self._hand_out()

    def _hand_out(self) -> None:
        while self._free and (turn := self._next()) is not None:
            turn.set_result(self._free.popleft())

    def _next(self) -> asyncio.Future[Free] | None:
        """Take out who is next, unless nobody may take anything now."""
        classify, register = self._waiting["classify"], self._waiting["register"]
        may_register = bool(register) and self.registering < self._most_registering
        if may_register and (not classify or self._passed >= TURNS_PER_TURN):
            self.registering += 1
            self._passed = 0
            return register.pop()
        self._passed += may_register
        return classify.pop()


class DecodePace:
    """Running means over the clips that the pool has read."""

    def __init__(self) -> None:
        self._clips, self._bytes, self._seconds = 1.0, FIRST_BYTES, FIRST_S

    @property
    def clip_bytes(self) -> float:
        """Length of a clip as it was sent."""
        return self._bytes / self._clips

    @property
    def s_byte(self) -> float:
        """Seconds of one decoder for each byte."""
        return self._seconds / self._bytes

    def note(self, size: int, seconds: float) -> None:
        """Count one clip in, and the older ones a little less."""
        keep = 1 - 1 / MEMORY_CLIPS
        self._clips = keep * self._clips + 1
        self._bytes = keep * self._bytes + max(1, size)
        self._seconds = keep * self._seconds + seconds
