"""Errors that a command of `training` answers with one sentence and exit code 2."""

from collections.abc import Mapping


class InputError(Exception):
    """An argument, a file or a folder does not fit; the message says which, and the remedy."""


class IncompleteError(InputError):
    """A part of the work failed; the rest is done and told in the last line.

    Args:
        message: What failed, and the remedy.
        result: The values of the JSON line.
    """

    def __init__(self, message: str, result: Mapping[str, object]) -> None:
        super().__init__(message)
        self.result = result
