"""Errors of the task stores: what a caller can do about each is in its message.

No message names a path or an address, since these sentences reach clients; causes are chained.
"""

from model.errors import KshotError


class StoreError(KshotError):
    """A task store cannot do what it was asked."""

    code = "store-error"


class TaskNotFoundError(StoreError):
    """No task has this id, or its tombstone is gone too."""

    code = "task-not-found"


class TaskExpiredError(StoreError):
    """The task's time ran out less than a day ago."""

    code = "task-expired"


class RevisionConflictError(StoreError):
    """Somebody else changed, or made, the task first.

    Args:
        message: The sentence.
        stored: The revision that stands; None where that is not known.
    """

    code = "revision-conflict"

    def __init__(self, message: str, stored: int | None = None) -> None:
        super().__init__(message)
        self.stored = stored


class CursorError(StoreError):
    """A page cursor that no store gave out."""

    code = "cursor-invalid"


class StoreUnavailableError(StoreError):
    """The store cannot be reached, is full, or cannot promise that a task survives."""

    code = "store-unavailable"


class StoreFullError(StoreUnavailableError):
    """The disk, or the memory, of the store has no room; deleting tasks makes some."""

    code = "store-full"


class StoreCorruptError(StoreError):
    """A stored value is damaged, somebody else's, or of another schema."""

    code = "store-corrupt"


class QuotaFullError(StoreError):
    """The tenant has as many tasks, or as many bytes of them, as it may have.

    Args:
        message: The sentence.
        kind: Which of these.
    """

    code = "quota-full"

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


def quota_full(kind: str, most: int | None) -> QuotaFullError:
    """Return the error for a tenant that has no room for what it asks to keep."""
    of = "tasks" if kind == "tasks" else "bytes of tasks"
    return QuotaFullError(
        f"You may keep {most} {of}, and this would be more; delete tasks that you need no more "
        "(GET /v1/usage says how many you have).",
        kind,
    )


def not_a_store(kind: str) -> StoreCorruptError:
    """Return the error for a store file of another kind."""
    return StoreCorruptError(
        f"The store file is {kind}, not a task store; choose another file, or move it away."
    )


def damaged_file() -> StoreCorruptError:
    """Return the error for a store file that lost pages or holds wrong ones."""
    return StoreCorruptError(
        "The file of the task store is damaged; stop the service and restore it from a backup, "
        "or save what can be read with `sqlite3 FILE .recover`, or move it away to start empty."
    )


def store_full(place: str) -> StoreFullError:
    """Return the error for a disk, or a memory, without room."""
    return StoreFullError(
        f"The {place} of the task store is full; delete tasks, or repeat the request once the "
        "operator has made room."
    )


def unusable_file(reason: str) -> StoreUnavailableError:
    """Return the error for a store file that the system does not let us use."""
    return StoreUnavailableError(
        f"The file of the task store cannot be read or written ({reason}); "
        "repeat the request once the operator has seen to it."
    )
