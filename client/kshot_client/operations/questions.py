"""Questions: what clips are, what a task remembers of them, what the service is."""

from collections.abc import Iterator, Sequence

import httpx

from kshot_client.calls import Call, Flow, Give, Items, Send
from kshot_client.models.operations import Health, Info, Limits, Served, Usage
from kshot_client.models.results import Classification, ClipResult, Inbox
from kshot_client.operations.requests import LONG_S, form_of, headers_of, sizes_of, task_path
from kshot_client.uploads import AnyClip, Progress

MODEL = "/v1/admin/model"
HEADS_BYTES = 2**16  # of a form's parts, at most


def classify(
    task_id: str,
    clips: Sequence[AnyClip],
    *,
    remember: bool | None = None,
    explain: bool = False,
    deadline_s: float = LONG_S,
    progress: Progress | None = None,
) -> Flow[Classification]:
    """Classify clips in one request, of as many clips as the service takes at once.

    Args:
        task_id: Among whose labels.
        clips: Files, bytes or `Clip`s; no one affects another's answer.
        remember: Keep them in the task's inbox; None leaves it to its policy.
        explain: Add where each answer was seen, `saliency`, for `explained_clips` of `limits()` at
            most.
        deadline_s: How long the service may take.
        progress: Is told of the bytes that went out.

    Raises:
        ProblemError: It was refused. A clip that cannot be read is no refusal while another can:
            its result has an `error`.
        NoAnswerError: The service cannot be reached.
    """
    call = Call(
        "POST",
        task_path(task_id, "classify"),
        repeatable=True,
        headers=headers_of(deadline_s=deadline_s),
        form=form_of(clips, {"remember": remember, "explain": explain or None}, progress=progress),
    )
    answer: httpx.Response = yield Send(call)
    return Classification.model_validate_json(answer.content)


def classify_all(
    task_id: str,
    clips: Sequence[AnyClip],
    *,
    remember: bool | None = None,
    explain: bool = False,
    deadline_s: float = LONG_S,
    progress: Progress | None = None,
) -> Items[ClipResult]:
    """Classify any number of clips, in as many requests as the service's limits ask for.

    Gives one result a clip, in order, as it is answered; `clip_index` counts from the first clip
    of all. The arguments are those of `classify`.
    """
    answered: httpx.Response = yield Send(Call("GET", "/v1/limits", repeatable=True))
    known = Limits.model_validate_json(answered.content)
    most = known.explained_clips if explain else known.query_clips
    for start, end in _batches(sizes_of(clips), most, known.request_bytes - HEADS_BYTES):
        found = yield from classify(
            task_id,
            clips[start:end],
            remember=remember,
            explain=explain,
            deadline_s=deadline_s,
            progress=progress,
        )
        for result in found.results:
            yield Give(result.model_copy(update={"clip_index": start + result.clip_index}))


def _batches(sizes: Sequence[int], most: int, most_bytes: int) -> Iterator[tuple[int, int]]:
    """Part clips of these sizes into requests; gives where each begins and ends."""
    start, held = 0, 0
    for place, size in enumerate(sizes):
        full = place - start == most
        if place > start and (full or held + size > most_bytes):
            yield start, place
            start, held = place, 0
        held += size
    if sizes:
        yield start, len(sizes)


def inbox(task_id: str) -> Flow[Inbox]:
    """List the queries that a task remembers, the least certain first."""
    answer: httpx.Response = yield Send(Call("GET", task_path(task_id, "inbox"), repeatable=True))
    return Inbox.model_validate_json(answer.content)


def query_frames(task_id: str, query_id: str, *, width: int | None = None) -> Flow[bytes]:
    """Return the pictures of a query that were looked at, side by side, as `clip_frames` does."""
    path = task_path(task_id, "inbox", query_id, "frames")
    params = {} if width is None else {"width": width}
    answer: httpx.Response = yield Send(Call("GET", path, repeatable=True, params=params))
    return answer.content


def info() -> Flow[Info]:
    """Tell which model, decoder and runtime answer."""
    answer: httpx.Response = yield Send(Call("GET", "/v1/info", repeatable=True))
    return Info.model_validate_json(answer.content)


def limits() -> Flow[Limits]:
    """Tell what a request may be."""
    answer: httpx.Response = yield Send(Call("GET", "/v1/limits", repeatable=True))
    return Limits.model_validate_json(answer.content)


def usage() -> Flow[Usage]:
    """Tell what the tenant of the key may use, and has used."""
    answer: httpx.Response = yield Send(Call("GET", "/v1/usage", repeatable=True))
    return Usage.model_validate_json(answer.content)


def health() -> Flow[Health]:
    """Tell whether requests can be served now.

    Raises:
        ProblemError: They cannot.
    """
    answer: httpx.Response = yield Send(Call("GET", "/v1/readyz", repeatable=True))
    return Health.model_validate_json(answer.content)


def model() -> Flow[Served]:
    """Tell which model answers, and how far another one is on its way into its place."""
    answer: httpx.Response = yield Send(Call("GET", MODEL, repeatable=True))
    return Served.model_validate_json(answer.content)


def swap_model(checkpoint: str) -> Flow[Served]:
    """Have another checkpoint served; `model` tells how far that is.

    Args:
        checkpoint: Name of one that the operator has allowed.

    Raises:
        ProblemError: There is none of this name, it cannot be used, or another is on its way.
    """
    call = Call("POST", MODEL, repeatable=False, json={"checkpoint": checkpoint})
    answer: httpx.Response = yield Send(call)
    return Served.model_validate_json(answer.content)
