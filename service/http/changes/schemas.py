"""Bodies of requests that change a task, and what such a request is answered."""

from pydantic import BaseModel, Field

from service.http.inbox.policy import InboxPolicyBody
from service.http.schemas import Body, ClipBody, ClipProblem, TaskView

ALLOW_PARTIAL = "Leave out clips that cannot be used, as long as one is left."


class SettingsBody(Body):
    """What may be changed of a task itself; a field that is not sent stays as it is."""

    name: str | None = Field(None, description="A name for people; null takes it away.")
    ttl_s: float | None = Field(
        None, gt=0, description="Seconds that the task lives from now on; null is forever."
    )
    unknown_below: float | None = Field(
        None,
        ge=-1,
        le=1,
        description="A clip whose `nearest` is below this is `unknown`, -1 for never; null goes "
        "back to the checkpoint's threshold.",
        examples=[0.4],
    )
    inbox: InboxPolicyBody | None = Field(
        None, description="Which queries the task remembers unasked; null is none."
    )


class NameBody(Body):
    """Another name for a label."""

    label: str = Field(examples=["wave"])


class WordsBody(Body):
    """Other sentences for a label."""

    descriptions: list[str] | None = Field(
        description="How the action begins, goes on and ends; null goes back to sentences made of "
        "the label.",
        examples=[["A hand is raised.", "The hand moves from side to side.", "The hand sinks."]],
    )


class ClipsBody(Body):
    """More clips of a label."""

    clips: list[ClipBody] = Field(min_length=1)
    allow_partial: bool = Field(False, description=ALLOW_PARTIAL)


class LabelClipsBody(ClipsBody):
    """A label with its clips."""

    descriptions: list[str] | None = Field(
        None, description="How the action begins, goes on and ends."
    )


class ChangeView(BaseModel):
    """What a change came to."""

    added_clips: list[str] = Field(description="Ids of new clips, in the order of the request.")
    refused_clips: list[ClipProblem] = Field(description="Left out under allow_partial.")
    encoded_clips: int = Field(
        description="Clips that went through the network: the new ones, or more."
    )
    encoded_why: str | None = Field(description="Why more than the new ones; null where not.")


class ChangedTask(TaskView):
    """A task after a change."""

    change: ChangeView


BODIES = (SettingsBody, NameBody, WordsBody, ClipsBody, LabelClipsBody)
