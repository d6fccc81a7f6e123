"""Write the generated tables of the documents: settings, presets and problem codes.

python -m deploy.readme_tables

Each table stands between `<!-- NAME: ... -->` and `<!-- end -->` in one document, whichever it is;
tests/test_documents.py compares them.
"""

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `--help` needs none of what the tables are made from
    from pydantic.fields import FieldInfo

    from model.config.method import MethodConfig

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("docs", "model", "service", "client", "training", "deploy", "tests")
MIB = 2**20


def variable(name: str, field: "FieldInfo") -> str:
    """Name the environment variable of one setting."""
    from pydantic import AliasChoices

    from service.settings import PREFIX

    if isinstance(field.validation_alias, AliasChoices):
        return str(field.validation_alias.choices[0])
    return PREFIX + name.upper()


def default(field: "FieldInfo") -> str:
    """Write a default as one would set it; byte counts also in MiB."""
    value = field.default
    if value is None:
        return "unset"
    if isinstance(value, tuple):
        return f"`{','.join(str(word) for word in value)}`"
    if isinstance(value, float) and value.is_integer():
        return f"`{int(value)}`"
    if isinstance(value, int) and value >= MIB and value % MIB == 0:
        return f"`{value}` ({value // MIB} MiB)"
    return f"`{value}`"


def settings_table() -> str:
    """List every setting of the service."""
    from service.settings import Settings

    rows = ["| variable | default | what |", "|---|---|---|"]
    rows += [
        f"| `{variable(name, field)}` | {default(field)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(rows)


def _visual(method: "MethodConfig") -> str:
    adapted = method.visual
    parts = [f"`{adapted.kind}`, {adapted.blocks} blocks"] if adapted else []
    parts += [f"`{method.temporal.kind}` along time"] if method.temporal else []
    parts += ["the whole tower learns"] if method.tune in ("all", "towers") else []
    return "; ".join(parts) or "frozen"


def _text(method: "MethodConfig") -> str:
    adapted = method.text
    if adapted is None:
        return "the whole tower learns" if method.tune == "towers" else "frozen"
    kind = getattr(adapted, "kind", "order")  # which no method.json names
    return f"`{kind}`, {adapted.blocks} block" + ("" if adapted.blocks == 1 else "s")


def _logits(method: "MethodConfig") -> str:
    if method.fusion == "product":
        return "video x text"
    return "video" if method.fusion == "video" else method.fusion.kind


def presets_table() -> str:
    """List every preset of `METHODS`."""
    from model.methods import METHODS

    rows = [
        "| preset | image tower | text tower | a query sees | prototypes | matcher | logits |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, method in METHODS.items():
        text = _text(method)
        cells = [
            f"`{name}`",
            _visual(method),
            text if method.fusion != "video" else "not used",
            f"`{method.query_context}`",
            f"`{method.prototypes.kind}`",
            f"`{method.matcher.kind}`",
            _logits(method),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def problems_table() -> str:
    """List the codes of all errors that a client can get, by status."""
    from service.http.statuses import ROUTE_CODES, STATUS, UNANSWERED

    codes: dict[int, set[str]] = {status: {code} for status, code in ROUTE_CODES.items()}
    for error, status in STATUS.items():
        if error not in UNANSWERED:
            codes.setdefault(status, set()).add(error.code)
    rows = ["| status | codes |", "|---|---|"]
    for status, found in sorted(codes.items()):
        rows.append(f"| {status} | {', '.join(f'`{code}`' for code in sorted(found))} |")
    return "\n".join(rows)


TABLES: dict[str, Callable[[], str]] = {
    "settings": settings_table,
    "presets": presets_table,
    "problems": problems_table,
}


def documents() -> list[Path]:
    """List every Markdown document of the repository: at the top and below each package."""
    nested = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md")]
    return sorted([*ROOT.glob("*.md"), *nested])


def block(name: str) -> re.Pattern[str]:
    """Match the lines between the marks of one generated block."""
    return re.compile(rf"(<!-- {name}:[^>]*-->\n)(.*?)(\n<!-- end -->)", re.DOTALL)


def home(name: str) -> Path:
    """Find the one document that holds a generated block.

    Raises:
        SystemExit: No document holds it, or several do.
    """
    found = [path for path in documents() if block(name).search(path.read_text(encoding="utf-8"))]
    if len(found) != 1:
        names = ", ".join(str(path.relative_to(ROOT)) for path in found) or "none"
        raise SystemExit(f"One document must hold the marks of {name!r}; found: {names}.")
    return found[0]


def put(name: str, written: str) -> None:
    """Replace a generated block in the document that holds it."""
    path = home(name)
    text = path.read_text(encoding="utf-8")
    new, count = block(name).subn(lambda found: found[1] + written + found[3], text)
    if count != 1:
        raise SystemExit(f"{path.name} needs one pair of marks for {name!r}; it has {count}.")
    path.write_text(new, encoding="utf-8")


def main() -> None:
    """Rewrite the tables in place."""
    argparse.ArgumentParser(description="Write the generated tables of documents.").parse_args()
    for name, table in TABLES.items():
        put(name, table())


if __name__ == "__main__":
    main()
