"""When a long video shows which label: events while it is looked at, or one text."""

from collections.abc import Mapping
from typing import Literal

import httpx

from kshot_client.calls import Call, Flow, Give, Items, Open, Piece, Send
from kshot_client.events import Events
from kshot_client.models.problems import Problem
from kshot_client.models.timelines import Begun, Ended, Progress, Span, Windows
from kshot_client.operations.requests import form_of, headers_of, task_path
from kshot_client.problems import NoAnswerError, ProblemError
from kshot_client.uploads import AnyClip
from kshot_client.uploads import Progress as Sent

Event = Begun | Span | Windows | Progress | Ended
EVENTS: Mapping[str, type[Event]] = {
    "begun": Begun,
    "span": Span,
    "windows": Windows,
    "progress": Progress,
    "ended": Ended,
}
TEXTS = {"csv": "text/csv", "vtt": "text/vtt"}


def timeline(
    task_id: str,
    video: AnyClip,
    *,
    scores: bool = False,
    deadline_s: float | None = None,
    progress: Sent | None = None,
    **options: float | None,
) -> Items[Event]:
    """Follow a long video; gives events as they become final.

    The first is `Begun`, the last `Ended`; a `Span` does not change any more. Whoever stops asking
    ends the work.

    Args:
        task_id: Whose labels.
        video: The file.
        scores: Give the scores of windows too, as `Windows`.
        deadline_s: How long the service may take; None is what it allows, 10 minutes.
        progress: Is told of the bytes that went out.
        options: `window_s`, `stride_s`, `smooth_s`, `enter`, `leave`, `min_span_s`,
            `unknown_below`, `unknown_slack`: docs/api.md.

    Raises:
        ProblemError: It was refused, or went wrong on the way; spans that were given stay right.
        NoAnswerError: The service cannot be reached, or the connection broke.
    """
    call = _call(task_id, video, "text/event-stream", scores, deadline_s, progress, options)
    yield Open(call)
    read, ended = Events(), False
    while (piece := (yield Piece())) is not None:
        for name, data in read.feed(piece):
            if name == "problem":
                raise ProblemError(Problem.model_validate_json(data))
            if name in EVENTS:  # a newer service may have others
                event = EVENTS[name].model_validate_json(data)
                ended = ended or isinstance(event, Ended)
                yield Give(event)
    if not ended:
        raise NoAnswerError("The timeline ended before its last event; ask again.")


def timeline_text(
    task_id: str,
    video: AnyClip,
    form: Literal["csv", "vtt"],
    *,
    deadline_s: float | None = None,
    progress: Sent | None = None,
    **options: float | None,
) -> Flow[str]:
    """Follow a long video to its end; returns its spans as CSV (BORIS) or WebVTT.

    The other arguments are those of `timeline`.
    """
    call = _call(task_id, video, TEXTS[form], False, deadline_s, progress, options)
    answer: httpx.Response = yield Send(call)
    return answer.text


def _call(
    task_id: str,
    video: AnyClip,
    accept: str,
    scores: bool,
    deadline_s: float | None,
    progress: Sent | None,
    options: Mapping[str, float | None],
) -> Call:
    fields = {**options, "scores": scores or None}
    return Call(
        "POST",
        task_path(task_id, "timeline"),
        repeatable=True,
        headers={"Accept": accept, **headers_of(deadline_s=deadline_s)},
        form=form_of([video], fields, progress=progress),
    )
