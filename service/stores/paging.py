"""The order of tasks in listings, and the cursors that continue one."""

import base64
import binascii
import re
import struct

from service.stores.errors import CursorError
from service.stores.records import TaskRecord

_PLACE = re.compile(r"[0-9a-f]{16}:[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def place_of(record: TaskRecord) -> str:
    """Return a string that sorts as (created_at, task_id) does.

    The bits of a non-negative float, read as a big-endian number, sort as the float does.
    """
    moment = struct.pack(">d", record.created_at + 0.0)  # + 0.0 turns -0.0 into 0.0
    return f"{moment.hex()}:{record.task_id}"


def task_at(place: str) -> str:
    """Return the id of the task at a place."""
    return place.partition(":")[2]


def to_cursor(place: str) -> str:
    """Return the opaque form of a place, fit for a URL."""
    return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")


def from_cursor(cursor: str) -> str:
    """Return the place that a cursor stands for.

    Raises:
        CursorError: no store gave this cursor out.
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        place = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        place = ""
    if not _PLACE.fullmatch(place):
        raise CursorError(
            f"The cursor {cursor[:100]!r} is unknown; use next_cursor of the page before."
        )
    return place
