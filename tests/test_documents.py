"""The documents tell the truth: what they name is compared with the code."""

import re
import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from deploy import openapi
from deploy.readme_answer import COMMANDS
from deploy.readme_tables import FOLDERS, ROOT, TABLES, block, documents, home, variable
from model.methods import METHODS
from service.app import create_app
from service.http.schemas import Classification
from service.settings import OF_CLIENTS, Settings

TEXTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in documents()}
README = TEXTS["README.md"]
VERBS = {"get", "post", "put", "patch", "delete"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
HISTORIES = ("DECISIONS.md", "CHANGELOG.md", "training/experiments/", "tests/bench/figures/")
RETIRED = {
    *("KSHOT_COMPILE", "KSHOT_SUPPORT_SHARE", "KSHOT_SUPPORT_HOST_BYTES", "KSHOT_TEMPERATURE")
}
README_WORDS = 1200
SCREEN = 80
PACKAGE_READMES = [
    *(f"{name}/README.md" for name in ("model", "service", "training", "deploy", "tests")),
    "tests/bench/README.md",
]


def is_history(name: str) -> bool:
    """Say whether a document tells what was, so that it may name what is gone."""
    return any(part in name for part in HISTORIES)


def section(name: str, title: str) -> str:
    """Cut out one `## ` section of a document."""
    found = re.search(
        rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", TEXTS[name], re.DOTALL | re.MULTILINE
    )
    assert found, f"{name} has no section {title!r}"
    return found[1]


def routes(text: str) -> set[tuple[str, str]]:
    """List the routes that the tables of a text have a row for."""
    rows = re.findall(r"^\| `([A-Z]+) (/[^`]*)` \|", text, re.MULTILINE)
    return {(verb.lower(), re.sub(r"\{\w+\}", "{id}", path)) for verb, path in rows}


def test_routes_are_those_of_the_app() -> None:
    documented = routes(TEXTS["docs/api.md"])
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
    assert routes(README)
    assert routes(README) <= documented


@pytest.mark.parametrize("name", TABLES)
def test_generated_tables_are_up_to_date(name: str) -> None:
    found = block(name).search(home(name).read_text(encoding="utf-8"))
    assert found
    assert found[2] == TABLES[name](), "run: python -m deploy.readme_tables"


def test_the_kept_openapi_document_is_that_of_the_service() -> None:
    assert openapi.PLACE.read_text(encoding="utf-8") == openapi.document(), (
        "run: python -m deploy.openapi"
    )


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
    settings = [variable(name, field) for name, field in Settings.model_fields.items()]
    assert not [name for name in settings if f"`{name}`" not in TEXTS["docs/settings.md"]]
    assert not [name for name in METHODS if f"`{name}`" not in TEXTS["docs/methods.md"]]


def test_no_document_names_a_setting_that_is_not_there() -> None:
    known = {variable(name, field) for name, field in Settings.model_fields.items()}
    known |= OF_CLIENTS | {"KSHOT_SHARED", "KSHOT_"}
    others = {
        name: (ROOT / name).read_text(encoding="utf-8") for name in ("compose.yaml", "Dockerfile")
    }
    for name, text in {**TEXTS, **others}.items():
        named = set(re.findall(r"KSHOT_[A-Z0-9_]*", text))
        assert named <= (known | RETIRED if is_history(name) else known), name


def test_every_make_target_is_documented() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):.*## ", makefile, re.MULTILINE)) - {"help"}
    assert targets == {
        *("demo", "serve", "models", "onnx", "causal", "test", "fuzz", "soak", "lint", "bench")
    }
    commands = section("CONTRIBUTING.md", "Commands")
    assert not [name for name in targets if not re.search(rf"`make {name}[ `]", commands)]
    for name, text in TEXTS.items():
        assert set(re.findall(r"`make ([a-z]+)", text)) <= targets, name


def test_make_help_lists_every_target() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    named = set(re.findall(r"^make ([a-z]+) ", done.stdout, re.MULTILINE))
    assert named == {
        "help",
        "demo",
        "serve",
        "models",
        "onnx",
        "causal",
        "test",
        "fuzz",
        "soak",
        "lint",
        "bench",
    }


def tree_entries(text: str) -> list[str]:
    """List the paths of a fenced file tree: a folder's own files follow it, indented."""
    tree = re.search(r"```\n(.*?)```", text, re.DOTALL)
    assert tree
    folder = ""
    entries = []
    for line in tree[1].splitlines():
        names = re.split(r"\s{2,}", line.strip(), maxsplit=1)[0].split()
        if line.startswith(" "):
            entries += [folder + name for name in names]
        else:
            entries += names
            folder = names[0] if names and names[0].endswith("/") else ""
    return entries


def test_layout_names_every_package() -> None:
    entries = tree_entries(section("CONTRIBUTING.md", "Layout"))
    assert {f"{folder}/" for folder in FOLDERS} <= set(entries)
    assert not [entry for entry in entries if not (ROOT / entry).exists()]


@pytest.mark.parametrize("name", PACKAGE_READMES)
def test_map_of_a_package_is_that_of_its_folder(name: str) -> None:
    entries = tree_entries(section(name, "Map"))
    folder = (ROOT / name).parent
    assert not [entry for entry in entries if not (folder / entry).exists()]
    rooms = {f"{path.parent.name}/" for path in folder.glob("*/*.py")}
    assert rooms - {"__pycache__/"} <= set(entries)


@pytest.mark.parametrize("name", PACKAGE_READMES)
def test_package_readme_fits_on_a_screen(name: str) -> None:
    assert len(TEXTS[name].splitlines()) <= SCREEN


def test_readme_is_short() -> None:
    assert len(README.split()) <= README_WORDS


def test_links_between_documents_lead_somewhere() -> None:
    links = [
        (name, link)
        for name, text in TEXTS.items()
        for link in re.findall(r"\]\((?!https?://|#)([^)#\s]+)", text)
    ]
    assert links
    assert not [(name, link) for name, link in links if not ((ROOT / name).parent / link).exists()]


def test_modules_of_commands_exist() -> None:
    named = {
        (name, module)
        for name, text in TEXTS.items()
        for module in re.findall(
            r"python -m ((?:deploy|model|service|training|tests)[\w.]*\w)", text
        )
    }
    assert named
    paths = {module: ROOT / Path(*module.split(".")) for _, module in named}
    missing = {
        module
        for module, path in paths.items()
        if not (path.with_suffix(".py").is_file() or (path / "__main__.py").is_file())
    }
    assert not [(name, module) for name, module in named if module in missing]


def test_no_document_names_what_is_outside_of_the_repository() -> None:
    outside = {name: re.findall(r"\.\./shared|\bspecs/|/work/", TEXTS[name]) for name in TEXTS}
    assert not {name: found for name, found in outside.items() if found}


def test_versions_agree() -> None:
    changelog = TEXTS["CHANGELOG.md"]
    assert version("kshot") == PROJECT["version"]
    released = re.findall(r"^## \[(\d[^\]]*)\]", changelog, re.MULTILINE)
    assert released[:1] in ([], [PROJECT["version"]])
    assert released or "## [Unreleased]" in changelog
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
