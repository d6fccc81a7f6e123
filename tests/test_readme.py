"""README tells the truth: routes, settings, presets, commands, files and versions are compared."""

import re
import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from deploy.readme_answer import COMMANDS
from deploy.readme_tables import TABLES, block, variable
from model.methods import METHODS
from service.app import create_app
from service.http.schemas import Classification
from service.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
VERBS = {"get", "post", "put", "patch", "delete"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DOCUMENTS = sorted(
    path
    for pattern in (
        "*.md",
        "model/*.md",
        "service/*.md",
        "training/*.md",
        "deploy/*.md",
        "tests/*.md",
    )
    for path in ROOT.glob(pattern)
)


def section(title: str) -> str:
    """Cut out one `## ` section."""
    found = re.search(
        rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", README, re.DOTALL | re.MULTILINE
    )
    assert found, f"README.md has no section {title!r}"
    return found[1]


def test_routes_are_those_of_the_app() -> None:
    rows = re.findall(r"^\| `([A-Z]+) (/[^`]*)` \|", section("The API by example"), re.MULTILINE)
    documented = {(verb.lower(), path) for verb, path in rows}
    served = {
        (verb, path)
        for path, verbs in create_app(Settings()).openapi()["paths"].items()
        for verb in verbs
        if verb in VERBS
    }
    canonical = {(verb, re.sub(r"\{\w+\}", "{id}", path)) for verb, path in served}
    unprefixed = {(verb, path.removeprefix("/v1")) for verb, path in canonical}
    assert documented == unprefixed
    assert {
        (verb, "/v1" + path) for verb, path in unprefixed if path.startswith("/tasks")
    } <= canonical


@pytest.mark.parametrize("name", TABLES)
def test_generated_tables_are_up_to_date(name: str) -> None:
    found = block(name).search(README)
    assert found, f"README.md has no table {name!r}"
    assert found[2] == TABLES[name](), "run: python -m deploy.readme_tables"


def test_answer_of_the_curl_is_one_the_service_gives() -> None:
    found = block("curl").search(README)
    assert found
    commands, document = re.findall(r"```(?:json)?\n(.*?)\n```", found[2], re.DOTALL)
    assert commands == COMMANDS
    answer = Classification.model_validate_json(document)
    arrow, star = re.findall(r"(?:ARROW|STAR)='(.*)'", commands)
    assert answer.results[0].label == star
    assert [row.label for row in answer.results[0].ranking] == [star, arrow]


def test_every_setting_and_every_preset_is_named() -> None:
    names = [variable(name, field) for name, field in Settings.model_fields.items()]
    assert not [name for name in [*names, *METHODS] if f"`{name}`" not in README]


def test_no_document_names_a_setting_that_is_not_there() -> None:
    known = {variable(name, field) for name, field in Settings.model_fields.items()}
    known |= {"KSHOT_SHARED", "KSHOT_"}
    for path in [*DOCUMENTS, ROOT / "compose.yaml", ROOT / "Dockerfile"]:
        named = set(re.findall(r"KSHOT_[A-Z0-9_]*", path.read_text(encoding="utf-8")))
        assert named <= known, path.name


def test_every_make_target_is_documented() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):.*## ", makefile, re.MULTILINE)) - {"help"}
    assert targets == {"demo", "serve", "onnx", "test", "lint", "bench"}
    assert not [target for target in targets if f"`make {target}`" not in section("Develop")]
    assert set(re.findall(r"`make ([a-z]+)", README)) <= targets


def test_make_help_lists_every_target() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    named = set(re.findall(r"^make ([a-z]+) ", done.stdout, re.MULTILINE))
    assert named == {"help", "demo", "serve", "onnx", "test", "lint", "bench"}


def test_file_tree_entries_exist() -> None:
    tree = re.search(r"```\n(.*?)```", section("Files"), re.DOTALL)
    assert tree
    folder = ""
    entries = []
    for line in tree[1].splitlines():
        names = re.split(r"\s{2,}", line.strip(), maxsplit=1)[0].split()
        if line.startswith(" "):
            entries += [folder + name for name in names]
        else:
            entries += names
            folder = names[0] if names[0].endswith("/") else ""
    assert len(entries) > 20
    assert not [entry for entry in entries if not (ROOT / entry).exists()]
    packages = {entry for entry in entries if entry.endswith("/")}
    assert {"model/", "service/", "training/", "deploy/", "tests/"} <= packages


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", path.read_text(encoding="utf-8"))
    assert not [link for link in links if not (path.parent / link).exists()]


def test_versions_agree() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert version("kshot") == PROJECT["version"]
    released = re.findall(r"^## \[(\d[^\]]*)\]", changelog, re.MULTILINE)
    assert "## [Unreleased]" in changelog or released[0] == PROJECT["version"]
    lowest = PROJECT["requires-python"].removeprefix(">=")
    assert f"Python {lowest}" in README


def test_tested_versions_meet_the_bounds() -> None:
    pinned = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    )
    names = {name.lower().replace("_", "-") for name in pinned}
    extras = PROJECT["optional-dependencies"].values()
    wanted = [*PROJECT["dependencies"], *(line for lines in extras for line in lines)]
    asked = {re.split(r"[<>=;\[ ]", line)[0].lower().replace("_", "-") for line in wanted}
    assert not asked - names
