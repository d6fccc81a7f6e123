"""How a task stands, whenever that changes."""

from kshot_client.calls import Call, Give, Items, Open, Pause, Piece
from kshot_client.events import Events
from kshot_client.models.tasks import TaskEvent
from kshot_client.operations.requests import task_path
from kshot_client.problems import NoAnswerError

AGAIN_S = 0.5  # before a connection that broke is made anew


def watch_task(task_id: str) -> Items[TaskEvent]:
    """Give how a task stands now, and then after each change, until it is deleted.

    A connection that breaks is made again, by `Last-Event-ID`: what was given is not given twice,
    and of several changes meanwhile the newest is. Whoever stops asking ends it.

    Args:
        task_id: Which.

    Raises:
        ProblemError: There is no such task, or it went while there was no connection.
        NoAnswerError: The service cannot be reached.
    """
    told: dict[str, str] = {}
    while True:
        headers = {"Accept": "text/event-stream", **told}
        yield Open(Call("GET", task_path(task_id, "events"), repeatable=True, headers=headers))
        read = Events()
        try:
            while (piece := (yield Piece())) is not None:
                for _, data in read.feed(piece):
                    told = {"Last-Event-ID": read.last_id}
                    event = TaskEvent.model_validate_json(data)
                    yield Give(event)
                    if event.status == "deleted":
                        return
        except NoAnswerError:
            pass  # the service tells the rest to whoever asks again
        yield Pause(AGAIN_S)
