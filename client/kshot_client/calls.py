"""What a call is, whoever carries it out: one request, and the steps of an operation.

An operation is a generator. It yields steps and is sent what became of them, so that the client
that blocks and the one that does not share all of it (see `flows.py` and `client.py`).
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from kshot_client.uploads import Upload

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Form:
    """A multipart body.

    Args:
        fields: Texts by name; a list is a field that is there several times.
        clips: Name and content of each part `clip`.
    """

    fields: Mapping[str, str | Sequence[str]]
    clips: Sequence[tuple[str, Upload]]


@dataclass(frozen=True, slots=True)
class Call:
    """One request.

    Args:
        method: GET, POST, ...
        path: Under the address of the service.
        repeatable: Nothing happens twice when it is sent twice, so a lost answer is asked for
            again.
        params: Of the query string.
        headers: Beside those of every request.
        json: A body of JSON.
        form: A body with files.
        file: A body that is one file.
    """

    method: str
    path: str
    repeatable: bool = False
    params: Mapping[str, str | int | bool] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    json: object = None
    form: Form | None = None
    file: Upload | None = None


@dataclass(frozen=True, slots=True)
class Send:
    """Send a request; the reply is its whole answer, whatever its status."""

    call: Call


@dataclass(frozen=True, slots=True)
class Open:
    """Send a request; the reply is an answer whose text is still to come, if it is a success."""

    call: Call


@dataclass(frozen=True, slots=True)
class Piece:
    """The reply is the next piece of text of the answer that is open; None at its end."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Give(Generic[T]):
    """Give the caller the next item of an operation that has several."""

    item: T


Step = Send | Open | Piece | Pause
Flow = Generator[Step, Any, T]  # an operation that comes to one value
Items = Generator[Step | Give[T], Any, None]  # one that gives items
