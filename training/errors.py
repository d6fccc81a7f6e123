"""Errors that a command of `training` answers with one sentence and exit code 2."""

from collections.abc import Mapping

from pydantic import ValidationError


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


def refusal(error: ValidationError) -> InputError:
    """Return the first complaint of pydantic as one sentence that names field and value."""
    first = error.errors()[0]
    if first["type"] == "value_error":  # a sentence of our own
        return InputError(f"{first['ctx']['error']}.")
    field = ".".join(str(part) for part in first["loc"])
    wanted = first["msg"].replace("Input should", "it should")
    return InputError(f"The value of {field} is {first['input']!r}; {wanted}.")
