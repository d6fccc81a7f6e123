"""A circuit breaker: leaves a service that keeps failing alone for a while."""

import time
from collections.abc import Callable


class Breaker:
    """Stops calls after consecutive failures; lets one through once the pause is over.

    Args:
        failures: Consecutive failures that stop calls.
        pause_s: How long calls stop.
        now: A clock, in seconds.
    """

    def __init__(
        self, failures: int, pause_s: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.pause_s = pause_s
        self._failures = failures
        self._now = now
        self._count = 0
        self._open_until: float | None = None

    def admits(self) -> bool:
        """Tell whether a call may be made now."""
        if self._open_until is None:
            return True
        if self._now() < self._open_until:
            return False
        self._open_until = self._now() + self.pause_s  # this caller tries, the others wait
        return True

    def failed(self) -> None:
        """Count a failure."""
        self._count += 1
        if self._count >= self._failures:
            self._open_until = self._now() + self.pause_s

    def succeeded(self) -> None:
        """Note that the service answers."""
        self._count = 0
        self._open_until = None
