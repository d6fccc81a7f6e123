"""Why a change of a task is refused."""

from service.errors import RequestError


class LabelNotFoundError(RequestError):
    """The task has no such label."""

    code = "label-not-found"


class ClipNotFoundError(RequestError):
    """The task has no such support clip."""

    code = "clip-not-found"


class LastClipError(RequestError):
    """The clip is the last one of its label."""

    code = "last-clip"


class LastLabelsError(RequestError):
    """The task would keep fewer labels than a task has."""

    code = "last-labels"


class RevisionStaleError(RequestError):
    """The task is at another revision than those that the change was meant for.

    Args:
        message: The sentence.
        stored: The revision that stands.
    """

    code = "revision-stale"

    def __init__(self, message: str, stored: int) -> None:
        super().__init__(message)
        self.stored = stored
