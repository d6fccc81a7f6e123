"""The walk of a request: how many of our modules it enters in the serving process."""

import sys
from pathlib import Path

from tests.request_walk import walk_of

ROOT = Path(__file__).resolve().parents[2]
MOST = 49  # of a classify request; the aim is 30


def test_a_classify_request_enters_few_modules() -> None:
    """Run with `-s` to see the two lists."""
    walks = walk_of(ROOT)
    for name, modules in walks.items():
        sys.stdout.write("\n  ".join([f"{name} enters {len(modules)}:", *modules]) + "\n")
    assert "service/engine/engine.py" in walks["a classify request"]
    assert "service/tasks/register.py" in walks["a register request"]
    assert len(walks["a classify request"]) <= MOST
