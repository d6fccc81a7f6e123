"""How the process logs: a JSON object a line, or short lines where a person reads."""

import json
import logging
import sys
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


def start_logging(level: int = logging.INFO) -> None:
    """Send all logs to standard error, in the form that suits who reads it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(ReadableLines() if sys.stderr.isatty() else JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in ("httpx", "httpcore", "openai", "multipart", "python_multipart"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
