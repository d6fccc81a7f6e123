"""When requests are sent, and what their answers amount to. No clock, no network."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

REJECTED = (429, 503)


@dataclass(frozen=True, slots=True)
class Sample:
    """One request as its client saw it; times in seconds from the start of the run.

    Args:
        intended: When it should have been sent.
        sent: When it was.
        done: When its answer was complete, or its client left.
        status: HTTP status; 0 is no answer: the client left, or the connection broke.
        body: Which of the prepared bodies was sent.
        label: The answer's first label, where it has one.
        decode_ms: As the answer tells it; queue_ms and compute_ms too.
    """

    intended: float
    sent: float
    done: float
    status: int
    body: int = 0
    label: str | None = None
    decode_ms: float = 0.0
    queue_ms: float = 0.0
    compute_ms: float = 0.0

    @property
    def latency_s(self) -> float:
        """From the intended moment: a sender that lags hides nothing."""
        return self.done - self.intended


def poisson(rate: float, seconds: float, seed: int, start: float = 0.0) -> list[float]:
    """Draw the moments of a Poisson process with `rate` arrivals a second."""
    rng = random.Random(seed)
    moments, at = [], start + rng.expovariate(rate)
    while at < start + seconds:
        moments.append(at)
        at += rng.expovariate(rate)
    return moments


def departures(clients: int, share: float, within_s: float, seed: int) -> list[float | None]:
    """Choose who leaves and when, at random; None stays."""
    rng = random.Random(seed)
    leaving = set(rng.sample(range(clients), round(share * clients)))
    return [rng.uniform(0, within_s) if place in leaving else None for place in range(clients)]


def percentile(values: Sequence[float], percent: float) -> float:
    """Interpolate between the two nearest ranks.

    Raises:
        ValueError: There are no values.
    """
    if not values:
        raise ValueError("There is no percentile of no values.")
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def is_good(sample: Sample, limit_s: float, labels: Sequence[str]) -> bool:
    """Tell whether an answer came in time and says what it says on an idle server."""
    right = sample.label == labels[sample.body]
    return sample.status == 200 and right and sample.latency_s <= limit_s


def goodput(
    samples: Sequence[Sample], limit_s: float, labels: Sequence[str], start: float, end: float
) -> float:
    """Count good answers a second among those that came between two moments."""
    good = [one for one in samples if start <= one.done < end and is_good(one, limit_s, labels)]
    return len(good) / (end - start)


def recovery_s(
    samples: Sequence[Sample], limit_s: float, labels: Sequence[str], since: float
) -> float:
    """Tell how long after `since` the last request was sent that got no good answer."""
    bad = [
        one.intended - since
        for one in samples
        if one.intended >= since and not is_good(one, limit_s, labels)
    ]
    return max(bad, default=0.0)


def summary(samples: Sequence[Sample]) -> dict[str, float]:
    """Give the latencies of all answers with status 200, in ms, and the share of rejected ones."""
    times = [1e3 * one.latency_s for one in samples if one.status == 200]
    shares = (
        {f"p{percent:g}_ms": percentile(times, percent) for percent in (50, 90, 99, 99.9)}
        if times
        else {}
    )
    rejected = sum(one.status in REJECTED for one in samples) / max(1, len(samples))
    lag = [1e3 * (one.sent - one.intended) for one in samples]
    return {name: round(value, 1) for name, value in shares.items()} | {
        "requests": len(samples),
        "answered": len(times),
        "rejected": round(rejected, 4),
        "sender_lag_p99_ms": round(percentile(lag, 99), 1) if lag else 0.0,
    }
