"""What is counted when it happens: requests, passes of the device, clips that were read.

Values of metric labels come from closed sets: no id, no address and no word of a client is one.
"""

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Histogram

from model.media.sampling import Clip
from service.engine.work import Kind
from service.tasks.classify import TaskAnswer

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
WORK = METHODS - {"GET", "HEAD", "OPTIONS"}  # what admission is asked about
OTHER, NONE = "other", "-"
# What admission says, by the code of the problem; every other answer was admitted.
REFUSED = {
    "server-full": "full",
    "tenant-over-share": "quota",
    "deadline-passed": "deadline",
    "deadline-unmet": "deadline",
    "server-stopping": "draining",
}
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
FRAMES = (8, 16, 32, 64, 128, 256, 512, 1024)
RATIOS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
SCORES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class Meters:
    """Counters and histograms of one service; any thread may count.

    Args:
        registry: Where they are registered.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
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
        text = "Time that a stage takes: reading a clip, a pass of the device."
        self._stages = measure("kshot_stage_duration_seconds", text, ("stage",), buckets=SECONDS)
        text = "Time that queries wait for their stage."
        self._waits = measure("kshot_stage_queue_seconds", text, ("stage",), buckets=SECONDS)
        self._frames = measure("kshot_batch_frames", "Of a pass.", ("stage",), buckets=FRAMES)
        self._decodes = count("kshot_decode", "Clips that were read.", ("outcome", "codec"))
        text = "Time of a decoder for a second of video."
        name = "kshot_decode_seconds_per_clip_second"
        self._decode_cost = measure(name, text, buckets=RATIOS)
        text = "Probability of the best label less that of the second."
        self._margins = measure("kshot_score_margin", text, buckets=SCORES)
        self._unknown = count("kshot_unknown", "Query clips that are none of the labels.")

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

    def passed(self, kind: Kind, frames: int, seconds: float) -> None:
        """Count a pass of the device."""
        self._stages.labels(kind).observe(seconds)
        self._frames.labels(kind).observe(frames)

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
