"""Write the generated tables of README.md: settings, and the presets.

python -m deploy.readme_tables

Each stands between `<!-- NAME: ... -->` and `<!-- end -->`; tests/test_readme.py compares them.
"""

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from pydantic import AliasChoices
from pydantic.fields import FieldInfo

from model.config import AimConfig, MethodConfig, TaskConfig
from model.methods import METHODS
from service.settings import PREFIX, Settings

README = Path(__file__).resolve().parents[1] / "README.md"
MIB = 2**20


def variable(name: str, field: FieldInfo) -> str:
    """Name the environment variable of one setting."""
    if isinstance(field.validation_alias, AliasChoices):
        return str(field.validation_alias.choices[0])
    return PREFIX + name.upper()


def default(field: FieldInfo) -> str:
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
    rows = ["| variable | default | what |", "|---|---|---|"]
    rows += [
        f"| `{variable(name, field)}` | {default(field)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(rows)


def _visual(method: MethodConfig) -> str:
    match method.visual:
        case None:
            return "none"
        case AimConfig(blocks=blocks):
            return f"AIM, {blocks} blocks"
        case TaskConfig(blocks=blocks):
            return f"Task-Adapter, {blocks} blocks"
        case other:
            return f"{other.kind}, {other.blocks} blocks"


def presets_table() -> str:
    """List every preset of `METHODS`."""
    rows = [
        "| preset | visual adapter | text adapter | a query attends to | score |",
        "|---|---|---|---|---|",
    ]
    for name, method in METHODS.items():
        text = f"order, {method.text.blocks} blocks" if method.text else "none"
        score = "video x text" if method.fusion == "product" else "video"
        rows.append(
            f"| `{name}` | {_visual(method)} | {text} | `{method.query_context}` | {score} |"
        )
    return "\n".join(rows)


TABLES: dict[str, Callable[[], str]] = {"settings": settings_table, "presets": presets_table}


def block(name: str) -> re.Pattern[str]:
    """Match the lines between the marks of one table."""
    return re.compile(rf"(<!-- {name}:[^>]*-->\n)(.*?)(\n<!-- end -->)", re.DOTALL)


def put(text: str, name: str, written: str) -> str:
    """Put one generated part in its place."""
    parts = block(name).split(text)
    if len(parts) != 5:  # before, mark, old, mark, after
        raise SystemExit(f"README.md needs one pair of marks for {name!r}.")
    parts[2] = written
    return "".join(parts)


def renew(text: str) -> str:
    """Put every table in its place."""
    for name, table in TABLES.items():
        text = put(text, name, table())
    return text


def main() -> None:
    """Rewrite README.md in place."""
    argparse.ArgumentParser(description="Write the generated tables of README.md.").parse_args()
    README.write_text(renew(README.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
