"""The use case of quotas: a purse for each request that brings work, charged once, before the work.

While the store is away nothing is charged: a task that is at hand answers then, as with keys.
"""

import asyncio
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from service.background import spawn
from service.decoding.pool import ClipRequest, DecodePool
from service.decoding.turns import WorkClass
from service.errors import DeadlineError, DeadlineUnmetError, FieldFault, RequestError
from service.stores.errors import QuotaFullError, StoreError, quota_full
from service.stores.quotas.kept import NAMES, RATES, Amounts, Kind, Quotas, QuotaStore, Standing
from service.tasks.inputs import ClipInput, check_clips
from service.tasks.quota.errors import QuotaExceededError, QuotaTooSmallError

PATIENCE_S = 1.0  # with a store that hangs ...
PAUSE_S = 2.0  # ... which is then not asked for so long
REMEMBERED = 1000  # tenants of whom is known whether video is counted
LATE = frozenset({DeadlineError.code, DeadlineUnmetError.code})
SHOWN: dict[Kind, str] = {"clip_ms": "seconds of video", "frames": "frames"}

log = logging.getLogger("kshot.service")


class Keeper:
    """Charges requests.

    Args:
        store: Counts for all replicas.
        usual: The limits of tenants that have none of their own.
        clock: Seconds.
    """

    def __init__(
        self, store: QuotaStore, usual: Quotas, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.store = store
        self.usual = usual
        self.refused = dict.fromkeys(NAMES.values(), 0)  # requests, by quota
        self.on = bool(usual)  # there is a limit to see to
        self._clock = clock
        self._away_until = 0.0
        self._untimed: OrderedDict[str, None] = OrderedDict()  # tenants whose video is not counted
        self._giving: set[asyncio.Task[None]] = set()

    def purse(self, owner: str, *, hurried: bool = False) -> "Purse":
        """Return what a request of a tenant is charged from."""
        return Purse(self, owner, hurried=hurried)

    async def standing(self, owner: str) -> Standing:
        """Return how a tenant stands.

        Raises:
            StoreError: That cannot be told now.
        """
        return await self.store.charge(owner, Amounts(), self.usual)

    async def charged(self, owner: str, asked: Amounts) -> Standing | None:
        """Charge a tenant; None where the store is away."""
        if self._clock() < self._away_until:
            return None
        try:
            async with asyncio.timeout(PATIENCE_S):
                standing = await self.store.charge(owner, asked, self.usual)
        except (TimeoutError, StoreError) as error:
            log.warning("Quotas are not charged: the store is away (%s)", type(error).__name__)
            self._away_until = self._clock() + PAUSE_S
            return None
        self._remember(owner, standing)
        return standing

    def counts_video(self, owner: str) -> bool:
        """Tell whether a tenant's video may be limited, so that its length is to be known."""
        return owner not in self._untimed

    def give_back(self, owner: str, rates: Amounts, window: str) -> None:
        """Return, behind the answer, what work was charged that failed through our fault."""

        async def give() -> None:
            try:
                await self.store.give_back(owner, rates, window)
            except StoreError as error:
                log.warning("A charge could not be given back (%s)", error.code)

        work = spawn(give())
        self._giving.add(work)
        work.add_done_callback(self._giving.discard)

    async def close(self) -> None:
        """Wait until all is given back."""
        await asyncio.gather(*self._giving, return_exceptions=True)

    def refuse(self, standing: Standing, asked: Amounts) -> Exception:
        """Return why a request is not done that does not fit."""
        over = standing.over(asked)
        for kind in over:
            self.refused[NAMES[kind]] += 1
        faults = [FieldFault(NAMES[kind], _short(kind, standing, asked)) for kind in over]
        for kind in over:
            most = standing.quotas.of(kind) or 0
            if kind in RATES and asked.of(kind) > most:
                return QuotaTooSmallError(
                    f"The request asks for {_shown(kind, asked.of(kind))}, and you may use "
                    f"{_shown(kind, most)} a minute; send less at once.",
                    faults,
                )
        for kind in over:
            if kind not in RATES:
                return quota_full(kind, standing.quotas.of(kind))
        return QuotaExceededError(
            f"The request asks for {_shown(over[0], asked.of(over[0]))}, and "
            f"{_shown(over[0], standing.left(over[0]) or 0)} are left of this minute; ask again in "
            f"{math.ceil(standing.left_s)} s, or send less.",
            faults,
            retry_after_s=standing.left_s,
        )

    def _remember(self, owner: str, standing: Standing) -> None:
        self._untimed.pop(owner, None)
        if standing.quotas.clip_ms is None:
            self._untimed[owner] = None
            while len(self._untimed) > REMEMBERED:
                self._untimed.popitem(last=False)


class Purse:
    """What one request is charged from.

    Args:
        keeper: Charges it.
        owner: Its tenant, as ids of tasks have it.
        hurried: Whether its client allows less time than is usual, so that to pass that is no
            fault of ours: else a short time would have clips decoded for nothing.
    """

    def __init__(self, keeper: Keeper, owner: str, *, hurried: bool = False) -> None:
        self.owner = owner
        self.hurried = hurried
        self.standing: Standing | None = None  # as it was charged last; None before
        self._keeper = keeper
        self._charged: dict[str, Amounts] = {}  # by minute
        self._making = 0  # tasks, that are in `standing`

    @property
    def usual(self) -> Quotas:
        """The limits of tenants that have none of their own."""
        return self._keeper.usual

    async def charge(self, asked: Amounts) -> None:
        """Charge all of it, or nothing.

        Raises:
            QuotaExceededError, QuotaTooSmallError, QuotaFullError: It does not fit.
        """
        standing = await self._keeper.charged(self.owner, asked)
        if standing is None:
            return
        self.standing = standing
        if not standing.granted:
            raise self._keeper.refuse(standing, asked)
        self._note(asked)
        self._making += asked.tasks
        used = replace(standing.used, tasks=standing.used.tasks + self._making)
        self.standing = replace(standing, used=used)

    async def charge_clips(
        self,
        pool: DecodePool,
        inputs: Sequence[ClipInput],
        work: WorkClass,
        *,
        grows: bool,
        passes: int = 1,
    ) -> None:
        """Charge clips whose headers have not been read; these are, where video is counted.

        Args:
            pool: Reads headers.
            inputs: The clips; one that is damaged is refused later.
            work: What they are for.
            grows: Whether they are kept.
            passes: How often the device sees each frame.

        Raises:
            QuotaExceededError, QuotaTooSmallError, QuotaFullError: They do not fit.
        """
        sent = [clip for clip in inputs if isinstance(clip.source, ClipRequest)]
        videos = [
            clip
            for clip in sent
            if isinstance(clip.source, ClipRequest) and clip.source.video is not None
        ]
        seconds, sound = 0.0, len(sent)
        timed = not videos or self._keeper.counts_video(self.owner)
        if videos and timed:
            seconds, faults = await check_clips(pool, videos, work, {}, self.owner)
            sound -= len(faults)
        await self.charge(asked_of(seconds, passes * pool.frames * sound, grows=grows))
        if not timed and self._keeper.counts_video(self.owner):  # from this request on
            seconds, _ = await check_clips(pool, videos, work, {}, self.owner)
            try:
                await self.charge(asked_of(seconds, 0))
            except RequestError:
                self.give_back()
                raise

    def full(self, error: QuotaFullError) -> None:
        """Count a request for which there was no room in the end."""
        self._keeper.refused[error.kind] += 1
        self.give_back()

    def failed(self, code: str) -> None:
        """Return what was charged of a request that was not done, unless its client hurried us.

        Args:
            code: Of the problem.
        """
        if not self.hurried or code not in LATE:
            self.give_back()

    def unmade(self) -> None:
        """Count no task, since none was made."""
        making, self._making = self._making, 0
        if self.standing is not None:
            used = self.standing.used
            self.standing = replace(self.standing, used=replace(used, tasks=used.tasks - making))

    def give_back(self) -> None:
        """Return what was charged; the second time nothing happens."""
        charged, self._charged = self._charged, {}
        for window, rates in charged.items():
            self._keeper.give_back(self.owner, rates, window)
        if self.standing is not None and charged:
            rates = charged.get(self.standing.window, Amounts())
            used = self.standing.used
            clip_ms, frames = used.clip_ms - rates.clip_ms, used.frames - rates.frames
            used = replace(used, clip_ms=max(0, clip_ms), frames=max(0, frames))
            self.standing = replace(self.standing, used=used)

    def _note(self, asked: Amounts) -> None:
        assert self.standing is not None
        window = self.standing.window
        held = self._charged.get(window, Amounts())
        if window and (asked.clip_ms or asked.frames):
            self._charged[window] = Amounts(
                clip_ms=held.clip_ms + asked.clip_ms, frames=held.frames + asked.frames
            )


@contextmanager
def keeping(purse: Purse | None) -> Iterator[Quotas | None]:
    """Give the limits by which the store is to see whether there is room; None where it is not."""
    try:
        yield None if purse is None else purse.usual
    except QuotaFullError as error:
        if purse is not None:
            purse.full(error)
        raise


def asked_of(seconds: float, frames: int, *, tasks: int = 0, grows: bool = False) -> Amounts:
    """Return what clips ask for.

    How many bytes are kept of them is not known before; what makes a task or lets one grow asks
    for one, so that it is refused at once where none is left.
    """
    clip_ms = round(1e3 * seconds)
    return Amounts(tasks=tasks, bytes=int(grows or tasks > 0), clip_ms=clip_ms, frames=frames)


def _shown(kind: Kind, amount: int) -> str:
    number = f"{amount / 1e3:g}" if kind == "clip_ms" else f"{amount}"
    return f"{number} {SHOWN.get(kind, kind)}"


def _short(kind: Kind, standing: Standing, asked: Amounts) -> str:
    scale = 1e3 if kind == "clip_ms" else 1
    left = (standing.left(kind) or 0) / scale
    if kind == "bytes":
        return f"{left:g} left"
    return f"{asked.of(kind) / scale:g} asked for, {left:g} left"
