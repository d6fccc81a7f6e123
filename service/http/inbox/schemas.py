"""The queries of a task's inbox, and what is said of one."""

from pydantic import BaseModel, Field

from service.http.schemas import FILE_NAME, WARNINGS, Body


class AnswerBody(Body):
    """What a query is: exactly one of these fields."""

    label: str | None = Field(
        None,
        description="The query becomes an example of this label; null counts it as none of the "
        "labels.",
        examples=["wave"],
    )
    dismiss: bool = Field(False, description="true drops the query.")


class ScoreView(BaseModel):
    """A label and its score."""

    label: str
    score: float


class QueryView(BaseModel):
    """One query, as it was answered."""

    query_id: str
    name: str | None = Field(description=FILE_NAME)
    answered_at: str = Field(examples=["2026-01-31T12:00:00Z"])
    kept_until: str
    task_revision: int
    model_revision: str
    label: str = Field(description="The first of the ranking.")
    score: float
    margin: float = Field(description="Score of the first label less the second.")
    unknown: bool
    nearest: float
    threshold: float
    ranking: list[ScoreView]
    duration_s: float | None
    frames_s: list[float] = Field(description="When the sampled frames are shown, seconds.")
    warnings: list[str] = Field(description=WARNINGS)


class InboxView(BaseModel):
    """Queries that a task remembers, the least certain first."""

    task_id: str
    task_revision: int
    none_of_these: int = Field(description="Queries that were none of the labels.")
    queries: list[QueryView]


BODIES = (AnswerBody,)
