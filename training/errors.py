"""What a command of `training` cannot work with: one sentence, told before exit code 2."""

from pydantic import ValidationError


class InputError(Exception):
    """An argument, a file or a folder does not fit; the message says which, and the remedy."""


def refusal(error: ValidationError) -> InputError:
    """Return the first complaint of pydantic as one sentence that names field and value."""
    first = error.errors()[0]
    if first["type"] == "value_error":  # a sentence of our own
        return InputError(f"{first['ctx']['error']}.")
    field = ".".join(str(part) for part in first["loc"])
    wanted = first["msg"].replace("Input should", "it should")
    return InputError(f"The value of {field} is {first['input']!r}; {wanted}.")
