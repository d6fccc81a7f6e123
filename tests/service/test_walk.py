"""The walk of a request: which of our modules it enters, and what the process holds behind it."""

import sys
from pathlib import Path

import pytest

from tests.request_walk import Stretch, walk_of

ROOT = Path(__file__).resolve().parents[2]
MOST = 49  # of a classify request; the aim is 30
# What a packaged checkpoint, the embedded store and no language model do without takes seconds.
UNUSED = {"open_clip", "timm", "torchvision", "transformers", "torch._dynamo"}
UNUSED |= {
    "onnxruntime",
    "decord",
    "openai",
    "redis",
    "opentelemetry.sdk",
    "huggingface_hub",
    "scipy",
}


@pytest.fixture(scope="module")
def walks() -> dict[str, Stretch]:
    return walk_of(ROOT)


def test_a_classify_request_enters_few_modules(walks: dict[str, Stretch]) -> None:
    """Run with `-s` to see the two lists."""
    for name, walk in walks.items():
        lines = [f"{name} enters {len(walk.modules)}:", *walk.modules]
        sys.stdout.write("\n  ".join(lines) + "\n")
    assert "service/engine/engine.py" in walks["a classify request"].modules
    assert "service/tasks/register.py" in walks["a register request"].modules
    assert len(walks["a classify request"].modules) <= MOST


def test_a_service_of_a_packaged_checkpoint_imports_nothing_that_it_does_not_use(
    walks: dict[str, Stretch],
) -> None:
    held = set(walks["a classify request"].held)
    assert {"torch", "fastapi", "service.app"} <= held
    assert not held & UNUSED
