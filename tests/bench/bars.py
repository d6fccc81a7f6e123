"""Figures beside their bars, the table of them, and the machine that they were measured on."""

import importlib.metadata
import json
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

LIBRARIES = ("torch", "onnxruntime", "onnxruntime-gpu", "numpy", "open_clip_torch")
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8")


@dataclass(frozen=True, slots=True)
class Bar:
    """One figure and what it must be.

    Args:
        figure: What was measured.
        measured: Its value; None where this machine or this run cannot tell.
        sense: Whether more is better.
        bar: The least, or the most.
        unit: Of both; a ratio has none.
    """

    figure: str
    measured: float | None
    sense: Literal[">=", "<="]
    bar: float
    unit: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None where nothing was measured."""
        if self.measured is None:
            return None
        return self.measured >= self.bar if self.sense == ">=" else self.measured <= self.bar

    def row(self) -> dict[str, Any]:
        """Give it as JSON carries it."""
        return asdict(self) | {"met": self.met}


def table(bars: Sequence[Mapping[str, Any]]) -> str:
    """Lay bars out for people, one a line."""
    words = {True: "met", False: "MISSED", None: "not measured"}
    lines = []
    for bar in bars:
        measured = "-" if bar["measured"] is None else f"{bar['measured']:.4g}"
        limit = f"{bar['sense']} {bar['bar']:g} {bar['unit']}".rstrip()
        lines.append(f"{bar['figure']:<66} {measured:>10}  {limit:<12} {words[bar['met']]}")
    return "\n".join(lines)


def median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Divide round by round, so that what disturbs a round hurts both sides; give the median."""
    return statistics.median(one / other for one, other in zip(above, below, strict=True))


def installed(name: str) -> str | None:
    """Give a library's version, or None where it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def machine() -> dict[str, Any]:
    """Say what was measured on, when, and how busy it was with other work."""
    import torch  # lazily: the load generator wants none of it

    told = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    fields = dict(line.split(":", 1) for line in told.splitlines() if ":" in line)
    named = {key.strip(): value.strip() for key, value in fields.items()}
    flags = set(named.get("flags", "").split())
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": named.get("model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "instructions": [name for name in INSTRUCTIONS if name in flags],
        "load_1min": round(os.getloadavg()[0], 1),
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "versions": {name: found for name in LIBRARIES if (found := installed(name))},
    }


def tell(bench: str, bars: Sequence[Bar], before: Mapping[str, Any], **details: object) -> None:
    """Print the table, and one JSON document as the last line.

    Args:
        bench: Which benchmark.
        bars: Its figures.
        before: The machine as it was when the measurement began.
        details: All else that was measured.
    """
    rows = [bar.row() for bar in bars]
    print(table(rows))
    print(json.dumps({"bench": bench, "bars": rows, **details, "machine": dict(before)}))


def interleaved(rounds: int, calls: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Call every one once a round, side by side; the order turns, so that none is always first."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            found[name].append(calls[name]())
    return found
