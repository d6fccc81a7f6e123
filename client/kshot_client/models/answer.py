"""What all answers have in common."""

from pydantic import BaseModel, ConfigDict


class Answer(BaseModel):
    """Parent of all answers: cannot be changed, and keeps the fields of a newer service."""

    model_config = ConfigDict(extra="allow", frozen=True)
