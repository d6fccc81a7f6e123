"""What an event of a task says, and what the OpenAPI document says of that."""

from typing import Any, Literal

from pydantic import BaseModel, Field


class EventView(BaseModel):
    """How a task stands after what has happened."""

    task_id: str
    revision: int
    status: Literal["processing", "ready", "failed", "deleted"]
    progress: float = Field(description="Of decoding and encoding its clips, from 0 to 1.")
    failure: str | None = Field(description="Of a failed task: one sentence.")


LAST_EVENT_ID: dict[str, Any] = {
    "parameters": [
        {
            "name": "Last-Event-ID",
            "in": "header",
            "schema": {"type": "string"},
            "example": "2-ready-100",
            "description": "The id of the last event that was read; what it said is not sent "
            "again. Browsers send it by themselves.",
        }
    ]
}
ANSWER: dict[str, Any] = {
    "description": "An event for each change, until the task is deleted: `progress`, `ready`, "
    "`failed`, `changed` (another revision stands) or `deleted`; the data of each is an "
    "EventView. A comment every 15 s shows that the connection stands.",
    "content": {
        "text/event-stream": {
            "schema": {"type": "string"},
            "example": "id: 2-ready-100\nevent: ready\n"
            'data: {"task_id":"4b1c25e2b711ed0e1156507820dba7b0","revision":2,"status":"ready",'
            '"progress":1.0,"failure":null}\n\n',
        }
    },
}
