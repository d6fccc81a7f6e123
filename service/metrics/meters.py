"""What is counted when it happens: requests, passes of the device, clips that were read.

Values of metric labels come from closed sets: no id, no address and no word of a client is one.
"""

import asyncio
import functools
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, ParamSpec, TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram

from model.errors import KshotError
from model.media.sampling import Clip
from service.engine.work import Pass, Query, Step
from service.tasks.classify import TaskAnswer

P = ParamSpec("P")
Result = TypeVar("Result")
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
WORK = METHODS - {"GET", "HEAD", "OPTIONS"}  # what admission is asked about
OTHER, NONE = "other", "-"
# What admission says, by the code of the problem; every other answer was admitted.
REFUSED = {
    "server-full": "full",
    **dict.fromkeys(("tenant-over-share", "quota-exceeded"), "quota"),
    **dict.fromkeys(("quota-too-small", "quota-full"), "quota"),
    "deadline-passed": "deadline",
    "deadline-unmet": "deadline",
    "server-stopping": "draining",
}
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
FRAMES = (8, 16, 32, 64, 128, 256, 512, 1024)
RATIOS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
TASKS = (1, 2, 4, 8, 16, 32)
SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
LONG_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
AGES_S = (1.0, 10.0, 60.0, 600.0, 3600.0, 6 * 3600.0, 86_400.0)
QUICK_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
SCORES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class Meters:
    """Counters and histograms of one service; any thread may count.

    Args:
        registry: Where they are registered.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.in_flight = 0  # requests
        count = partial(Counter, registry=registry)
        measure = partial(Histogram, registry=registry)
        self._requests = measure(
            "kshot_http_request_duration_seconds",
            "From the first byte of a request to the last of its answer.",
            ("method", "route", "status"),
            buckets=SECONDS,
        )
        text = "Requests that bring work, by whether they were let in."
        self._admission = count("kshot_admission", text, ("outcome",))
        self._problems = count("kshot_problems", "Answers that are problems.", ("code",))
        text = "Time that a stage takes: a body that comes, a clip that is read, a pass, text."
        self._stages = measure("kshot_stage_duration_seconds", text, ("stage",), buckets=SECONDS)
        text = "Time that queries wait for their stage."
        self._waits = measure("kshot_stage_queue_seconds", text, ("stage",), buckets=SECONDS)
        self._frames = measure("kshot_batch_frames", "Of a pass.", ("stage",), buckets=FRAMES)
        text = "Tasks whose clips share a pass."
        self._tasks = measure("kshot_batch_tasks", text, buckets=TASKS)
        text = "Part of a pass that is filled up with nothing."
        self._padding = measure("kshot_batch_pad_ratio", text, ("stage",), buckets=SHARES)
        self._decodes = count("kshot_decode", "Clips that were read.", ("outcome", "codec"))
        text = "Time of a decoder for a second of video."
        name = "kshot_decode_seconds_per_clip_second"
        self._decode_cost = measure(name, text, buckets=RATIOS)
        text = "Probability of the best label less that of the second."
        self._margins = measure("kshot_score_margin", text, buckets=SCORES)
        self._unknown = count("kshot_unknown", "Query clips that are none of the labels.")
        self._measure_tasks(measure)

    def _measure_tasks(self, measure: "partial[Histogram]") -> None:
        """Make what the store and tasks are measured by."""
        text = "Time of an operation of the store."
        self._store = measure("kshot_store_seconds", text, ("op", "outcome"), buckets=QUICK_S)
        text = "From a registration's last byte to its answer."
        self._registered = measure("kshot_register_seconds", text, ("outcome",), buckets=LONG_S)
        text = "From a registration's last byte to a task that is ready."
        self._ready = measure("kshot_task_ready_seconds", text, ("text_source",), buckets=LONG_S)
        text = "Time to get the encoded supports of a known task again."
        name = "kshot_support_cache_rebuild_seconds"
        self._rebuilds = measure(name, text, ("outcome",), buckets=LONG_S)
        text = "How long encoded supports were not used before they were evicted."
        name = "kshot_support_cache_idle_before_evict_seconds"
        self._idle = measure(name, text, buckets=AGES_S)

    def answered(
        self, method: str, route: str, status: int, code: str | None, seconds: float
    ) -> None:
        """Count a request that was answered.

        Args:
            method: As it was sent; one that HTTP does not know counts as `other`.
            route: The template of its path; `-` where there is none.
            status: Of the answer.
            code: Of the problem, where it is one.
            seconds: From its first byte to the last of its answer.
        """
        known = method if method in METHODS else OTHER
        self._requests.labels(known, route, status).observe(seconds)
        if known in WORK:
            self._admission.labels(REFUSED.get(code or "", "ok")).inc()
        if code is not None:
            self._problems.labels(code).inc()

    def passed(self, done: Pass) -> None:
        """Count a pass of the device; steps that end others are of no size."""
        first, frames = done.works[0], done.frames
        if isinstance(first, Step) and not first.timed:
            return
        self._stages.labels(first.kind).observe(done.seconds)
        self._frames.labels(first.kind).observe(frames)
        self._padding.labels(first.kind).observe(1 - frames / done.room_frames)
        if isinstance(first, Query):
            self._tasks.observe(
                len({id(one.support) for one in done.works if isinstance(one, Query)})
            )

    def read(self, outcome: str, clip: Clip | None, seconds: float) -> None:
        """Count a clip that a decoder has read, or refused with a code."""
        self._decodes.labels(outcome, NONE if clip is None else clip.codec).inc()
        self._stages.labels("decode").observe(seconds)
        if clip is not None and clip.duration_s > 0:
            self._decode_cost.observe(seconds / clip.duration_s)

    def classified(self, answer: TaskAnswer) -> None:
        """Count what query clips are, and how long they waited for the device."""
        self._waits.labels("classify").observe(answer.queue_ms / 1e3)
        for clip in answer.clips:
            best, second = sorted(clip.probabilities_N, reverse=True)[:2]
            self._margins.observe(best - second)
            if clip.unknown:
                self._unknown.inc()

    def staged(self, stage: str, seconds: float) -> None:
        """Count what a stage took."""
        self._stages.labels(stage).observe(seconds)

    def stored(self, op: str, outcome: str, seconds: float) -> None:
        """Count an operation of the store."""
        self._store.labels(op, outcome).observe(seconds)

    def registered(self, outcome: str, seconds: float) -> None:
        """Count a registration that was answered."""
        self._registered.labels(outcome).observe(seconds)

    def prepared(self, text_source: str, seconds: float) -> None:
        """Count a task that has become ready."""
        self._ready.labels(text_source).observe(seconds)

    def rebuilt(self, outcome: str, seconds: float) -> None:
        """Count supports that were encoded again, or taken from the store."""
        self._rebuilds.labels(outcome).observe(seconds)

    def evicted(self, idle_s: float) -> None:
        """Count supports that had to leave the cache."""
        self._idle.observe(idle_s)


def timed(
    work: Callable[P, Coroutine[Any, Any, Result]], tell: Callable[[str, float], None]
) -> Callable[P, Coroutine[Any, Any, Result]]:
    """Have `tell` hear how each call ends, `ok` or the code of its error, and its seconds."""

    @functools.wraps(work)
    async def telling(*args: P.args, **kwargs: P.kwargs) -> Result:
        begun, outcome = time.monotonic(), "failed"
        try:
            result = await work(*args, **kwargs)
            outcome = "ok"
        except KshotError as error:
            outcome = error.code
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            tell(outcome, time.monotonic() - begun)
        return result

    return telling
