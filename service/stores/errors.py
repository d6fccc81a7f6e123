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
    """Somebody else changed, or made, the task first."""

    code = "revision-conflict"


class CursorError(StoreError):
    """A page cursor that no store gave out."""

    code = "cursor-invalid"


class StoreUnavailableError(StoreError):
    """The store cannot be reached, is full, or cannot promise that a task survives."""

    code = "store-unavailable"


class StoreCorruptError(StoreError):
    """A stored value is damaged, somebody else's, or of another schema."""

    code = "store-corrupt"
