"""A small client of the HTTP API: register, classify, delete."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

PATIENCE = {"X-Request-Timeout-Ms": "60000"}  # sixteen clips may take a small machine that long
MOST_QUERIES = 16  # clips of one classify request: the service's default limit


class ApiError(Exception):
    """The service refused a request, or could not be reached."""


class ApiClient:
    """Talk to one service; each answer is the JSON document as it came."""

    def __init__(self, url: str, *, timeout_s: float = 120.0) -> None:
        self._http = httpx.Client(base_url=url, timeout=timeout_s, headers=PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def info(self) -> dict[str, Any]:
        """Tell what runs there."""
        return self._json(self._send("GET", "/info"))

    def register(
        self,
        support: Mapping[str, Sequence[Path]],
        name: str,
        descriptions: Mapping[str, Sequence[str]] | None = None,
    ) -> dict[str, Any]:
        """Register a task and wait until it is ready.

        Args:
            support: Clips of each label.
            name: What people call the task.
            descriptions: Three sentences of each label; none leaves them to the service.

        Raises:
            ApiError: The task was refused, or failed.
        """
        files = [
            (f"support[{label}]", _part(path)) for label, paths in support.items() for path in paths
        ]
        data = {"name": name}
        if descriptions is not None:
            told = {label: list(stages) for label, stages in descriptions.items()}
            data["descriptions"] = json.dumps(told)
        task = self._json(self._send("POST", "/tasks", data=data, files=files))
        while task["status"] == "processing":
            time.sleep(0.1)
            task = self._json(self._send("GET", f"/tasks/{task['id']}"))
        if task["status"] != "ready":
            why = task["failure"] or "see the service's log."
            raise ApiError(f"Task {task['id']} ended as {task['status']!r}: {why}")
        return task

    def classify(
        self, task_id: str, clips: Sequence[Path], *, remember: bool = False
    ) -> list[dict[str, Any]]:
        """Classify any number of clips, in requests of at most 16; the order is kept.

        `remember` puts them into the task's inbox.
        """
        data = {"remember": "true"} if remember else {}
        results: list[dict[str, Any]] = []
        for start in range(0, len(clips), MOST_QUERIES):
            files = [("clip", _part(path)) for path in clips[start : start + MOST_QUERIES]]
            path = f"/tasks/{task_id}/classify"
            answer = self._json(self._send("POST", path, data=data, files=files))
            results += answer["results"]
        for clip, result in zip(clips, results, strict=True):
            if result.get("error"):
                raise ApiError(f"{clip.name} could not be read: {result['error']['detail']}")
        return results

    def delete(self, task_id: str) -> None:
        """Delete a task."""
        self._send("DELETE", f"/tasks/{task_id}")

    def _send(self, method: str, path: str, **content: Any) -> httpx.Response:  # noqa: ANN401
        """Send one request; anything but a 2xx is an ApiError with the problem's own words."""
        try:
            answer = self._http.request(method, path, **content)
        except httpx.TransportError as error:
            raise ApiError(
                f"{method} {path} got no answer: {error or type(error).__name__}."
            ) from error
        if not answer.is_success:
            raise ApiError(f"{method} {path} answered {answer.status_code}: {_reason(answer)}")
        return answer

    def _json(self, answer: httpx.Response) -> dict[str, Any]:
        """Read the body as a JSON object."""
        document: dict[str, Any] = answer.json()
        return document


def _part(path: Path) -> tuple[str, bytes, str]:
    """Make a file part of a clip; the service looks at its content, not at its type."""
    return (path.name, path.read_bytes(), "application/octet-stream")


def _reason(answer: httpx.Response) -> str:
    """Take the sentence out of a problem document."""
    try:
        problem = answer.json()
    except ValueError:
        return answer.text[:200]
    clips = "".join(f" [{clip['code']}] {clip['detail']}" for clip in problem.get("clips", []))
    return f"[{problem.get('code')}] {problem.get('detail')}{clips}"
