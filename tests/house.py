"""Count the house: modules, lines, functions, what a request enters, words, outside references.

    python -m tests.house                            # this checkout
    python -m tests.house --at ../kshot-old --walk   # another beside it, and what requests enter

The last line of stdout is JSON. A module is a Python file other than `__init__.py`; lines are
those of its file; a function's lines are those from `def` to its end, docstring and nested
functions included.
"""

import argparse
import ast
import json
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.request_walk import walk_of

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("model", "service", "client", "training", "deploy")
MOST_MODULE_LINES = 300
MOST_FUNCTION_LINES = 40
# What only somebody with our notes beside the repository could follow.
OUTSIDE = re.compile(
    r"\.\./shared|(?<![\w./-])specs/|(?<![\w/-])methods-\d|\bdesign(\.md)?,? (section )?\d+(\.\d+)?"
    r"|(?<![\w.$}/-])/(work|home|root|mnt)/\w"
)
SPEAKS_OF_THEM = {"tests/house.py"}  # this pattern itself
TEXTS = {".py", ".md", ".toml", ".yaml", ".yml", ".json", ".sh", ".js", ".html", ".cfg", ".conf"}
TEXT_NAMES = {"Makefile", "Dockerfile", "run"}


@dataclass(frozen=True, slots=True)
class Function:
    """One function and how long it is."""

    module: str
    name: str
    lines: int


@dataclass(slots=True)
class House:
    """All figures of one checkout."""

    modules: dict[str, int] = field(default_factory=dict)  # product: path -> lines
    test_lines: int = 0
    package_files: int = 0  # `__init__.py`
    long_functions: list[Function] = field(default_factory=list)
    readme_words: dict[str, int] = field(default_factory=dict)
    outside: list[str] = field(default_factory=list)  # path:line
    walks: dict[str, list[str]] = field(default_factory=dict)  # "classify" -> modules entered

    def of(self, package: str) -> list[int]:
        """Give the lengths of a package's modules."""
        return [n for path, n in self.modules.items() if path.startswith(f"{package}/")]


def tracked(root: Path) -> list[Path]:
    """List the files of a checkout that git tracks or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = {root / name for name in listed.stdout.split("\0") if name}
    return sorted(path for path in paths if path.is_file())


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Give name and length of every function of a module, methods and nested ones too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def outside_references(root: Path, path: Path) -> list[str]:
    """Give `path:line` for each line that names something outside the repository."""
    name = str(path.relative_to(root))
    if name in SPEAKS_OF_THEM or not (path.suffix in TEXTS or path.name in TEXT_NAMES):
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [f"{name}:{number}" for number, line in enumerate(lines, 1) if OUTSIDE.search(line)]


def count(root: Path) -> House:
    """Count one checkout; `walks` stays empty."""
    house = House()
    for path in tracked(root):
        name = str(path.relative_to(root))
        top = name.partition("/")[0]
        house.outside += outside_references(root, path)
        if path.name == "README.md":
            house.readme_words[name] = len(path.read_text(encoding="utf-8").split())
        if path.suffix != ".py":
            continue
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if top == "tests":
            house.test_lines += lines
        elif top in PACKAGES and path.name == "__init__.py":
            house.package_files += 1
        elif top in PACKAGES:
            house.modules[name] = lines
            house.long_functions += [
                Function(name, function, length)
                for function, length in functions(path)
                if length > MOST_FUNCTION_LINES
            ]
    return house


def rows(house: House) -> dict[str, str]:
    """Say the figures of a checkout, one a row."""
    sizes = list(house.modules.values())
    largest = max(house.modules, key=house.modules.__getitem__)
    packages = {name: house.of(name) for name in PACKAGES if house.of(name)}
    table = {
        "product modules": str(len(sizes)),
        "product lines (without tests)": f"{sum(sizes):,}",
        "lines of tests": f"{house.test_lines:,}",
        "median module": f"{statistics.median(sizes):g}",
        "largest module": f"{max(sizes)} {largest}",
        f"modules over {MOST_MODULE_LINES} lines": str(sum(n > MOST_MODULE_LINES for n in sizes)),
        f"functions over {MOST_FUNCTION_LINES} lines": str(len(house.long_functions)),
        "package files (__init__)": str(house.package_files),
        "references out of the repository": str(len(house.outside)),
    }
    for name, lines in packages.items():
        table[f"{name}: modules, lines, median, largest"] = (
            f"{len(lines)}, {sum(lines):,}, {statistics.median(lines):g}, {max(lines)}"
        )
    folders: dict[str, int] = {}
    for path in house.modules:
        folder = str(Path(path).parent)
        folders[folder] = folders.get(folder, 0) + 1
    fullest = max(folders, key=folders.__getitem__)
    table["fullest folder"] = f"{folders[fullest]} {fullest}"
    for name, words in house.readme_words.items():
        table[f"words of {name}"] = f"{words:,}"
    for name, modules in house.walks.items():
        table[f"modules that {name} enters"] = str(len(modules))
    return table


def print_table(houses: dict[str, House]) -> None:
    """Print one column a checkout."""
    columns = {name: rows(house) for name, house in houses.items()}
    labels = list(dict.fromkeys(label for column in columns.values() for label in column))
    print(f"{'':44}" + "".join(f"{name:>36}" for name in columns))
    for label in labels:
        print(
            f"{label:44}" + "".join(f"{column.get(label, '-'):>36}" for column in columns.values())
        )


def print_details(house: House) -> None:
    """Print what stands behind the figures of this checkout."""
    for function in sorted(house.long_functions, key=lambda each: -each.lines):
        print(f"{function.lines:4} lines: {function.name} ({function.module})")
    for place in house.outside:
        print(f"outside reference: {place}")
    for name, modules in house.walks.items():
        print(f"{name} enters: {' '.join(modules)}")


def facts_of(house: House) -> dict[str, object]:
    """Give a checkout's figures, and what stands behind them, for the JSON line."""
    return {
        "rows": rows(house),
        "long_functions": [asdict(function) for function in house.long_functions],
        "outside": house.outside,
        "walks": house.walks,
    }


def main() -> None:
    """Read the arguments, count, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.house", description=__doc__)
    parser.add_argument("--at", type=Path, action="append", default=[], help="another checkout")
    parser.add_argument("--walk", action="store_true", help="run the service and count modules")
    parser.add_argument("--details", action="store_true", help="list what is behind the figures")
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    arguments = parser.parse_args()
    roots = {str(path): path.resolve() for path in arguments.at} | {"this checkout": ROOT}
    houses = {name: count(root) for name, root in roots.items()}
    if arguments.walk:
        for name, root in roots.items():
            walks = walk_of(root)
            houses[name].walks = {stretch: walk.modules for stretch, walk in walks.items()}
    if not arguments.json:
        print_table(houses)
        if arguments.details:
            print_details(houses["this checkout"])
    print(json.dumps({name: facts_of(house) for name, house in houses.items()}))


if __name__ == "__main__":
    sys.exit(main())
