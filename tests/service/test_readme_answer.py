"""README's answer is a real one: the shape of what the service says, and of these weights."""

import json
import re
from pathlib import Path

import httpx

from deploy.readme_answer import COMMANDS
from model.checkpoint import load_recognizer
from tests.serving import classify, moving_clip, register

ROOT = Path(__file__).resolve().parents[2]
REMEDY = "run: python -m deploy.readme_answer"


def shape(value: object) -> object:
    """Keep the names, the kinds and the lengths of lists; numbers of either kind are alike."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shape(inner) for inner in value]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return "number" if number else type(value).__name__


def shown() -> dict[str, object]:
    """Read the answer that stands behind README's commands."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert COMMANDS in text, REMEDY
    found = re.search(r"```json\n(.*?)\n```", text.partition(COMMANDS)[2], re.DOTALL)
    assert found
    return dict(json.loads(found[1]))


def test_the_answer_in_the_readme_has_the_shape_of_a_real_one(client: httpx.Client) -> None:
    labels = ("jump", "wave")
    clips = {label: [moving_clip(k), moving_clip(k + 10)] for k, label in enumerate(labels)}
    real = classify(client, register(client, clips)["id"], moving_clip(20))
    assert shape(shown()) == shape(real), REMEDY


def test_the_answer_in_the_readme_is_of_the_packaged_weights() -> None:
    assert shown()["model_revision"] == load_recognizer("causal").fingerprint, REMEDY
