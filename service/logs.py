"""How the process logs: a JSON object a line, or short lines where a person reads."""

import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from model.errors import KshotError


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one record."""
        line: dict[str, Any] = {
            "ts": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
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


def start_logging(level: int = logging.INFO) -> None:
    """Send all logs to standard error, in the form that suits who reads it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(ReadableLines() if sys.stderr.isatty() else JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in ("httpx", "httpcore", "openai", "multipart", "python_multipart"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
