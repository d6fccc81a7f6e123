"""How long a request may take: said by the client, capped here, checked before every stage."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self

from service.errors import DeadlineError, FieldFault, InvalidRequestError

HEADER = "X-Request-Timeout-Ms"
MOST_DIGITS = 9


@dataclass(frozen=True, slots=True)
class Deadline:
    """An instant of `time.monotonic()` after which nobody wants the answer."""

    at: float
    allowed_s: float

    @classmethod
    def after(cls, allowed_s: float) -> Self:
        """Give the instant that far from now."""
        return cls(time.monotonic() + allowed_s, allowed_s)

    @property
    def left_s(self) -> float:
        """Seconds until then, 0 when it has passed."""
        return max(0.0, self.at - time.monotonic())

    def check(self, stage: str) -> None:
        """Refuse to begin a stage for which it is too late.

        Raises:
            DeadlineError: It is.
        """
        if time.monotonic() >= self.at:
            raise self.passed(stage)

    def passed(self, stage: str) -> DeadlineError:
        """Make the refusal."""
        return DeadlineError(
            f"The request was not done in {self.allowed_s:g} s (it stood at {stage}); "
            f"allow more with {HEADER}, or send less."
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


def read_timeout(values: Sequence[str], default_s: float, most_s: float) -> float:
    """Read the seconds that a client allows its request.

    Args:
        values: The header, as often as it was sent.
        default_s: Where there is none.
        most_s: Cap; more is cut to it.

    Raises:
        InvalidRequestError: It is no positive whole number of milliseconds.
    """
    if not values:
        return min(default_s, most_s)
    text = values[0].strip()
    digits = text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS
    if len(values) > 1 or not digits or int(text) == 0:
        shown = ", ".join(values)[:40]
        raise InvalidRequestError(
            f"{HEADER} is {shown!r}; give one positive whole number of milliseconds, such as "
            f"{round(1e3 * default_s)}.",
            [FieldFault(HEADER, "not a positive whole number of milliseconds")],
        )
    return min(int(text) / 1e3, most_s)
