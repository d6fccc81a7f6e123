"""Dashboard and alerts: every metric in them is one of the service, and promtool takes them."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.metric_table import documented

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "deploy" / "grafana"
BOARD: dict[str, Any] = json.loads((FOLDER / "kshot.json").read_text(encoding="utf-8"))
ALERTS = yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
TARGETS = [target for panel in BOARD["panels"] for target in panel["targets"]]
# Of metrics whose table names them: docs/metrics.md.
LABELS = {
    *("job", "instance", "le", "method", "route", "status", "code", "outcome", "stage", "class"),
    *("codec", "reason", "state", "op", "text_source", "kind", "version", "model"),
    *("model_revision", "quota"),
}


def metrics_in(expression: str) -> set[str]:
    """Give the metrics of an expression, without the endings of a histogram."""
    names = set(re.findall(r"\bkshot_[a-z_]+", expression))
    known = documented()
    return {name if name in known else re.sub(r"_(bucket|sum|count)$", "", name) for name in names}


def labels_in(expression: str) -> set[str]:
    grouped = re.findall(r"\b(?:by|on) \(([^)]*)\)", expression)
    matched = re.findall(r"(\w+)(?:=~|!~|!=|=)\"", expression)
    return {name.strip() for group in grouped for name in group.split(",")} | set(matched)


@pytest.mark.parametrize("expression", [each["expr"] for each in [*TARGETS, *RULES]])
def test_every_expression_is_of_metrics_and_labels_that_there_are(expression: str) -> None:
    found = metrics_in(expression)
    assert found or expression.startswith("up{")
    assert found <= documented()
    assert labels_in(expression) <= LABELS


def test_the_dashboard_shows_every_metric() -> None:
    shown = {name for target in TARGETS for name in metrics_in(target["expr"])}
    assert shown == documented()


def test_panels_have_their_own_ids_and_places_and_the_chosen_source() -> None:
    panels = BOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)
    for each in [*panels, *TARGETS]:
        assert each["datasource"]["uid"] == "${datasource}"
    assert all('instance=~"$instance"' in target["expr"] for target in TARGETS)


def test_each_alert_has_a_line_in_the_document() -> None:
    text = (ROOT / "docs" / "watching.md").read_text(encoding="utf-8")
    told = set(re.findall(r"^\| `(Kshot\w+)` \|", text, flags=re.MULTILINE))
    assert told == {rule["alert"] for rule in RULES}
    assert {rule["labels"]["severity"] for rule in RULES} == {"page", "ticket"}


@pytest.mark.parametrize(
    "command",
    [
        "check rules alerts.yml",
        "check config prometheus.yml",
        "check config prometheus.compose.yml",
        "test rules alerts_test.yml",
    ],
)
def test_promtool_takes_the_files(command: str) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("There is no promtool here; install Debian's package prometheus.")
    done = subprocess.run(
        ["promtool", *command.split()], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_compose_mounts_files_that_are_there() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
    mounted = [
        volume.split(":")[0]
        for name in ("prometheus", "grafana")
        for volume in services[name]["volumes"]
        if volume.startswith("./")
    ]
    assert len(mounted) == 4
    assert all((ROOT / path).exists() for path in mounted)
    assert all(services[name]["profiles"] == ["watch"] for name in ("prometheus", "grafana"))
