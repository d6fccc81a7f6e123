"""Why a call failed: refusals in the service's own words, and what is no answer at all."""

import email.utils
import re
import time

import httpx
from pydantic import ValidationError

from kshot_client.models.problems import ClipProblem, FieldProblem, Problem

PROBLEM = "application/problem+json"
OF_PROXIES = frozenset({429, 502, 503, 504})  # what a proxy answers for a service that is away
SHOWN_CHARS = 200


class KshotError(Exception):
    """A call did not succeed; the message is one sentence, with the remedy."""


class SettingError(KshotError):
    """An address, a key or a file that cannot be used; nothing was sent."""


class NoAnswerError(KshotError):
    """The service cannot be reached, or the connection broke."""


class TaskFailedError(KshotError):
    """A task that was accepted could not be made ready.

    Args:
        task_id: Which.
        failure: Why, in the service's words.
        clips: Those that are to blame.
    """

    def __init__(self, task_id: str, failure: str, clips: list[ClipProblem]) -> None:
        self.task_id = task_id
        self.clips = clips
        super().__init__(f"Task {task_id} failed: {failure}")


class StillWorkingError(KshotError):
    """A task is not ready within the patience of the call; it goes on getting ready."""


class ProblemError(KshotError):
    """The service refused a call: RFC 9457.

    Args:
        problem: As it was sent.
        retry_after_s: When the same call may succeed, by `Retry-After`; None: it does not say.
    """

    def __init__(self, problem: Problem, retry_after_s: float | None = None) -> None:
        self.problem = problem
        self.retry_after_s = retry_after_s
        several = problem.clips if len(problem.clips) > 1 else []  # one is in the sentence already
        clips = "".join(f" [{clip.code}] {clip.detail}" for clip in several)
        super().__init__(f"[{problem.code}] {problem.detail}{clips}")

    @property
    def code(self) -> str:
        """The stable name of the fault: `task-not-found`."""
        return self.problem.code

    @property
    def status(self) -> int:
        """The status of the answer."""
        return self.problem.status

    @property
    def detail(self) -> str:
        """What is wrong, and what to do about it."""
        return self.problem.detail

    @property
    def instance(self) -> str:
        """The id of the request, which the service's log has too."""
        return self.problem.instance

    @property
    def retryable(self) -> bool:
        """Whether the same call may succeed later."""
        return self.problem.retryable

    @property
    def revision(self) -> int | None:
        """With `revision-stale`: the revision that stands."""
        return self.problem.revision

    @property
    def clips(self) -> list[ClipProblem]:
        """Clips that cannot be used, and why."""
        return self.problem.clips

    @property
    def errors(self) -> list[FieldProblem]:
        """Fields that are wrong."""
        return self.problem.errors


def problem_of(answer: httpx.Response) -> ProblemError:
    """Read a refusal; what is none of the service's, such as a proxy's page, becomes one."""
    after_s = retry_after_s(answer.headers.get("retry-after", ""))
    if after_s is None and answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
        after_s = reset_s(answer.headers.get("ratelimit", ""))
    if answer.headers.get("content-type", "").startswith(PROBLEM):
        try:
            return ProblemError(Problem.model_validate_json(answer.content), after_s)
        except ValidationError:
            pass
    said = " ".join(answer.text.split())[:SHOWN_CHARS] or "nothing"
    problem = Problem(
        type="about:blank",
        title=answer.reason_phrase,
        status=answer.status_code,
        detail=f"{answer.request.url} answered {answer.status_code} and said {said!r}, which is no "
        "answer of kshot; check the address, and what stands before the service.",
        instance=answer.headers.get("x-request-id", ""),
        code=f"http-{answer.status_code}",
        retryable=answer.status_code in OF_PROXIES,
    )
    return ProblemError(problem, after_s)


def retry_after_s(header: str) -> float | None:
    """Read `Retry-After`, seconds or a date (RFC 9110); None where it says nothing."""
    if header.strip().isdecimal():
        return float(header)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return None


def reset_s(header: str) -> float | None:
    """Read from `RateLimit` (IETF draft) when all quotas are whole again; None: it does not say."""
    without_names = re.sub(r'"[^"]*"', "", header)
    found = re.findall(r";\s*t=(\d{1,9})(?=\s*[;,]|\s*$)", without_names)
    return max(map(float, found), default=None)
