"""Which queries a task remembers by itself, in requests and answers alike."""

from pydantic import BaseModel, ConfigDict, Field

from service.stores.inboxes.policy import MOST_KEPT, InboxPolicy

WHOSE = Field(
    description="Whose the threshold is: the checkpoint's, the task's own (`unknown_below`), or "
    "raised by queries that were none of the labels.",
    examples=["checkpoint"],
)


class InboxPolicyBody(BaseModel):
    """Which queries a task remembers without being asked."""

    model_config = ConfigDict(extra="forbid", strict=True)

    keep: int = Field(50, ge=1, le=MOST_KEPT, description="Queries at most; the oldest go first.")
    below: float = Field(
        0.6, ge=0, le=1, description="Answers with less `score` are remembered, or `unknown` ones."
    )


class InboxField(BaseModel):
    """The multipart field `inbox` of a new task."""

    model_config = ConfigDict(extra="forbid", strict=True)

    inbox: InboxPolicyBody | None


def policy_of(body: InboxPolicyBody | None) -> InboxPolicy | None:
    """Return a policy as a task keeps it."""
    return None if body is None else InboxPolicy(keep=body.keep, below=body.below)
