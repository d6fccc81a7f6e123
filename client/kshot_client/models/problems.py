"""A refusal, as the service writes it."""

from pydantic import Field

from kshot_client.models.answer import Answer


class FieldProblem(Answer):
    """What is wrong with one field."""

    field: str
    message: str


class ClipProblem(Answer):
    """Why one clip cannot be used."""

    index: int
    name: str | None = None
    label: str | None = None
    code: str
    detail: str


class Problem(Answer):
    """An error, RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    retryable: bool
    revision: int | None = None
    errors: list[FieldProblem] = Field(default_factory=list)
    clips: list[ClipProblem] = Field(default_factory=list)
