"""What a tenant may use, what it has used, and what is asked of every store of that."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Literal, Protocol

Kind = Literal["tasks", "bytes", "clip_ms", "frames"]
KINDS: tuple[Kind, ...] = ("tasks", "bytes", "clip_ms", "frames")
RATES: tuple[Kind, ...] = ("clip_ms", "frames")  # of a minute; of the others is counted what stands
NAMES: dict[Kind, str] = {  # by which people know them
    "tasks": "tasks",
    "bytes": "bytes",
    "clip_ms": "clip-seconds",
    "frames": "frames",
}
KIND: dict[str, Kind] = {name: kind for kind, name in NAMES.items()}
WINDOW_S = 60.0
NO_LIMIT = -1  # as it is stored
DEFAULT = "default"  # the tenant whose tasks have no tenant in their ids

Own = Mapping[Kind, int | None]  # what is set for one tenant alone; None is without a limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """An amount of each kind, 0 or more.

    Args:
        tasks: That live.
        bytes: Of their pictures or uploads, as they are stored.
        clip_ms: Milliseconds of video that is read.
        frames: For the device.
    """

    tasks: int = 0
    bytes: int = 0
    clip_ms: int = 0
    frames: int = 0

    @property
    def values(self) -> tuple[int, ...]:
        """The amounts, in the order of `KINDS`."""
        return self.tasks, self.bytes, self.clip_ms, self.frames

    def of(self, kind: Kind) -> int:
        """Return the amount of a kind."""
        return self.values[KINDS.index(kind)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    """The most of each kind that a tenant may use; None is without a limit."""

    tasks: int | None = None
    bytes: int | None = None
    clip_ms: int | None = None
    frames: int | None = None

    @property
    def values(self) -> tuple[int | None, ...]:
        """The limits, in the order of `KINDS`."""
        return self.tasks, self.bytes, self.clip_ms, self.frames

    def of(self, kind: Kind) -> int | None:
        """Return the limit of a kind."""
        return self.values[KINDS.index(kind)]

    def overridden(self, own: Own) -> "Quotas":
        """Return these, but for what a tenant has of its own."""
        return Quotas(**{kind: own.get(kind, self.of(kind)) for kind in KINDS})

    def __bool__(self) -> bool:
        return any(most is not None for most in asdict(self).values())


@dataclass(frozen=True, slots=True)
class Standing:
    """How a tenant stands.

    Args:
        quotas: What it may use.
        used: What it has used; of rates, in the minute that runs.
        window: Names that minute; empty where none runs.
        left_s: Of that minute.
        granted: Whether what was asked for fits, and is in `used`.
    """

    quotas: Quotas
    used: Amounts
    window: str = ""
    left_s: float = 0.0
    granted: bool = True

    def left(self, kind: Kind) -> int | None:
        """Return what is left of a kind, 0 or more; None where there is no limit."""
        most = self.quotas.of(kind)
        return None if most is None else max(0, most - self.used.of(kind))

    def over(self, asked: Amounts) -> list[Kind]:
        """Name the kinds of which less is left than is asked for."""
        return [
            kind
            for kind in KINDS
            if asked.of(kind) and (left := self.left(kind)) is not None and asked.of(kind) > left
        ]


class QuotaStore(Protocol):
    """Counts what tenants use; every method may raise `StoreUnavailableError`.

    Tasks and their bytes are counted by the commits that make, change and delete them, and refused
    there, so of two at once that do not fit together one fits. A minute begins with what is charged
    first, and all of it is there again when it ends.
    """

    async def charge(self, owner: str, asked: Amounts, usual: Quotas) -> Standing:
        """Charge a tenant all of what a request asks for, or nothing; in one step.

        Args:
            owner: The tenant, as ids of tasks have it.
            asked: Rates are charged; of tasks and bytes is only seen whether there is room.
            usual: The limits of tenants that have none of their own.
        """
        ...

    async def give_back(self, owner: str, rates: Amounts, window: str) -> None:
        """Return what was charged in a minute, if it still runs."""
        ...

    async def reckon(self) -> None:
        """Count tasks that were made before this was counted; once."""
        ...


def tenant_of(owner: str) -> str:
    """Return the name of a tenant."""
    return owner or DEFAULT


def read_own(rows: Iterable[tuple[str, int]]) -> dict[Kind, int | None]:
    """Return what is stored of one tenant's limits; kinds of a later version are left out."""
    stored = dict(rows)
    return {
        kind: None if stored[kind] == NO_LIMIT else stored[kind] for kind in KINDS if kind in stored
    }
