"""What a language model answered, out of a chat completion of any shape.

An endpoint is configured by the operator and may still answer anything: a page of a gateway, an
error with status 200, a list where an object was to be. Each has its sentence, and none of them
repeats what the endpoint wrote.
"""

import json
import sys

from model.errors import DescriptionError

_CUT = {
    "length": "it is cut short; allow the model more tokens",
    "content_filter": "the endpoint's filter took it away",
}


def content_of(raw: bytes | str) -> str:
    """Return the text of the first choice of a chat completion.

    Args:
        raw: The body of the endpoint's answer.

    Raises:
        DescriptionError: It holds no such text; the message says what is missing.
    """
    try:
        completion = json.loads(raw)
    except RecursionError as error:
        raise _refused("it nests too deeply to be read") from error
    except ValueError as error:  # no JSON, no UTF-8, or a number of more digits than Python reads
        long = f"limit ({sys.get_int_max_str_digits()} digits)" in str(error)
        raise _refused("it has a number of too many digits" if long else "it is no JSON") from error
    if not isinstance(completion, dict):
        raise _refused(f"it is {_kind(completion)} and no object")
    choices = completion.get("choices")
    if not isinstance(choices, list) or not choices:
        raise _refused("it has no choices" if not choices else f"choices is {_kind(choices)}")
    choice = choices[0]
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise _refused("its first choice has no message")
    finish_reason = choice.get("finish_reason")
    if isinstance(finish_reason, str) and finish_reason in _CUT:
        raise _refused(_CUT[finish_reason])
    if message.get("refusal"):
        raise _refused("the model refused")
    content = message.get("content")
    if not isinstance(content, str) or not content.strip():
        raise _refused("its message has no text")
    return content


def _refused(what: str) -> DescriptionError:
    return DescriptionError(f"The answer is of no use: {what}.")


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    return "null" if value is None else names.get(type(value), "a number")
