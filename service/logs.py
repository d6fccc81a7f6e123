"""How the process logs: a JSON object a line, or short lines where a person reads."""

import hashlib
import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, Literal

from model.errors import KshotError

Form = Literal["auto", "json", "text"]
# What is known of the request that a line comes from: its id, trace and tenant, and what it cost.
OF_REQUEST: ContextVar[dict[str, Any] | None] = ContextVar("kshot_request", default=None)


def note(**facts: object) -> None:
    """Add facts to all further lines of the request at hand; numbers and codes, no client's word.

    Where there is no request, nobody hears them.
    """
    if (known := OF_REQUEST.get()) is not None:
        known.update(facts)


@lru_cache(1024)
def hashed(tenant: str) -> str:
    """Return what stands in logs for a tenant, the same in each replica."""
    return hashlib.sha256(tenant.encode()).hexdigest()[:12]


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one record."""
        line: dict[str, Any] = {
            "ts": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **(OF_REQUEST.get() or {}),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class ReadableLines(logging.Formatter):
    """Short lines for people."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one record."""
        fields: dict[str, Any] = getattr(record, "fields", {})
        extra = "  ".join(
            f"{name}={value}"
            for name, value in fields.items()
            if name not in ("method", "route", "status")
        )
        clock = self.formatTime(record, "%H:%M:%S")
        line = f"{clock} {record.levelname[:1]} {record.getMessage()}  {extra}".rstrip()
        if record.exc_info and not isinstance(record.exc_info[1], KshotError):
            line += "\n" + self.formatException(record.exc_info)
        return line


class Seldom:
    """Lets a line of each kind through once in a while, and counts those that it holds back.

    Args:
        pause_s: Between two lines of a kind.
        clock: Seconds.
    """

    def __init__(self, pause_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._pause_s = pause_s
        self._clock = clock
        self._last: dict[str, float] = {}
        self._held: Counter[str] = Counter()

    def held_back(self, kind: str) -> int | None:
        """Return how many were held back since the last line; None holds this one back, too."""
        now = self._clock()
        if now - self._last.get(kind, -self._pause_s) < self._pause_s:
            self._held[kind] += 1
            return None
        self._last[kind] = now
        return self._held.pop(kind, 0)


def start_logging(form: Form = "auto", level: int = logging.INFO) -> None:
    """Send all logs to standard error, in a form or in the one that suits who reads it."""
    handler = logging.StreamHandler(sys.stderr)
    readable = sys.stderr.isatty() if form == "auto" else form == "text"
    handler.setFormatter(ReadableLines() if readable else JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in ("httpx", "httpcore", "openai", "multipart", "python_multipart"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
