"""The names in the table of docs/metrics.md, which test_metrics.py holds to the service."""

import re
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "metrics.md"


def documented() -> set[str]:
    """Give all names, also those that a line cuts short (`kshot_support_cache_bytes`, `_tasks`)."""
    told = set()
    text = DOCUMENT.read_text(encoding="utf-8")
    for line in re.findall(r"^\| (`kshot_.*?) \|", text, flags=re.MULTILINE):
        first, *others = re.findall(r"`([a-z_]+)`", line)
        told |= {first, *(name for name in others if name.startswith("kshot_"))}
        stem = re.sub(r"_(bytes|hits_total|rebuild_seconds)$", "", first)
        told |= {stem + name for name in others if name.startswith("_")}
    return told
