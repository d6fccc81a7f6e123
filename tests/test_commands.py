"""Every command of the packages: found by its `main`, quick to say how it is called."""

import argparse
import ast
import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from training import cli

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("model", "service", "client", "training", "deploy")
# Each takes seconds to import, and no help needs any of them.
SLOW = {"torch", "torchvision", "open_clip", "timm", "transformers", "scipy", "openai"}
SLOW |= {"matplotlib", "onnxruntime", "fastapi"}


def is_command(source: str) -> bool:
    """Tell whether a module runs when it is started, and takes a command line."""
    tree = ast.parse(source)
    ends = (node for node in tree.body if isinstance(node, ast.If))
    started = any("__name__" in ast.unparse(node.test) for node in ends)
    return started and ("argparse" in source)


COMMANDS = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removeprefix("client.")
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
    if is_command(path.read_text(encoding="utf-8"))
]
TRAINING = [name for name in COMMANDS if name.startswith("training.")]
HELPS = f"""
import contextlib, importlib, io, sys
for name in sys.argv[1:]:
    sys.argv = [name, "--help"]
    before = set(sys.modules)
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):
        importlib.import_module(name).main()
    slow = sorted((set(sys.modules) - before) & {SLOW!r})
    print(name, "shows", "usage:" in said.getvalue(), *slow)
"""


def test_commands_are_found_by_looking() -> None:
    assert {"training.fit", "training.calibrate", "training.synthetic.__main__"} <= set(COMMANDS)
    assert {"service.__main__", "deploy.demo", "model.export.__main__"} <= set(COMMANDS)


def test_help_imports_nothing_that_takes_seconds() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HELPS, *COMMANDS],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": "client"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == [f"{name} shows True" for name in COMMANDS], done.stderr


@pytest.mark.parametrize("name", TRAINING)
def test_every_option_is_explained_in_a_sentence(name: str) -> None:
    command = importlib.import_module(name).COMMAND
    assert isinstance(command, cli.Command)
    parser = argparse.ArgumentParser()
    command.declare(parser)
    for action in parser._actions[1:]:
        text = action.help or ""
        said = f"{name} {action.option_strings or action.dest}: {text!r}"
        assert re.fullmatch(r"[A-Z].*\.", text, flags=re.DOTALL), said
        assert len(text.split()) > 1, said
    assert parser.format_help()


def test_every_bar_is_one_that_knows_a_log_from_a_terminal() -> None:
    sources = {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
    }
    made = {name for name, text in sources.items() if re.search(r"(import|\.) ?tqdm\b", text)}
    bars = "client/kshot_client/command/bars.py"
    assert made == {"training/progress.py", "model/backbones/download.py", bars}
    for name in ("model/backbones/download.py", bars):
        assert "sys.stderr.isatty()" in sources[name]


def test_the_recipe_of_the_packaged_network_is_made_of_commands_as_they_are() -> None:
    said = subprocess.run(
        ["make", "-n", "causal", "KSHOT_SHARED=/shared", "OUT=/runs"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.replace("\\\n", " ")
    lines = [shlex.split(line) for line in said.splitlines() if " -m training." in line]
    named = {}
    for _, _, name, *options in lines:
        parser = argparse.ArgumentParser()
        command: cli.Command = importlib.import_module(name).COMMAND
        command.declare(parser)
        named[name] = parser.parse_args(options)
    assert list(named) == ["training.distil.fit", "training.distil.teach", "training.calibrate"]
    assert named["training.distil.teach"].start == str(named["training.distil.fit"].out)
    assert named["training.calibrate"].checkpoint == str(named["training.distil.teach"].out)
    assert named["training.distil.fit"].leave_out == named["training.distil.teach"].leave_out
