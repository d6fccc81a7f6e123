"""What all commands of `training` share: options, errors, exit codes and the last line.

A command module declares its options and names a function of the parsed options:

    COMMAND = Command("fit", __doc__, declare, run)
    main = partial(cli.main, COMMAND)

It imports what takes long inside of `run`, so that `--help` is there at once.

`run` calls plain functions with values and returns what the last line of stdout tells as JSON.
Lines for people go to stderr.
"""

import argparse
import json
import logging
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from model.errors import KshotError
from training.data.datasets import MAX_MISSING, DataChoice
from training.errors import IncompleteError, InputError


@dataclass(frozen=True, slots=True)
class Command:
    """One command of `python -m training.NAME`.

    Args:
        name: The module's path below `training`.
        doc: Its help; the lines are shown as they stand.
        declare: Adds the options to a parser.
        run: Does the work; returns the values of the JSON line, or None where another process
            tells them.
    """

    name: str
    doc: str | None
    declare: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], Mapping[str, object] | None]


def main(command: Command, arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        command: What to run.
        arguments: Its command line; None takes that of the process.

    Returns:
        The exit code: 0, or 2 after one sentence on stderr for input that does not fit.
    """
    logging.basicConfig(format="%(message)s")
    logging.getLogger("kshot").setLevel(logging.INFO)  # downloads tell how far they are
    last: Mapping[str, object] | None = None
    code = 0
    try:
        last = command.run(parse(command, arguments))
    except IncompleteError as error:
        code, last = complain(command, str(error)), error.result
    except (InputError, KshotError) as error:
        code = complain(command, str(error))
    except OSError as error:
        code = complain(command, f"A file cannot be read or written ({error}); check its disk.")
    if last is not None:
        print(json.dumps(last))
    return code


def parse(command: Command, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read a command line; `--help` prints the help and ends the process.

    What was typed is in `command`, for reports.

    Raises:
        InputError: An option is missing or unknown, or its value does not fit.
    """
    parser = _Parser(
        prog=f"python -m training.{command.name}",
        description=command.doc,
        formatter_class=_Help,
    )
    command.declare(parser)
    options = parser.parse_args(arguments)
    typed = sys.argv[1:] if arguments is None else arguments
    options.command = shlex.join(["python", "-m", f"training.{command.name}", *typed])
    if getattr(options, "device", None) == "auto":
        options.device = _present_device()
    return options


def _present_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def complain(command: Command, sentence: str) -> int:
    """Write why a command ends to stderr; return the exit code 2."""
    print(f"{command.name.rpartition('.')[2]}: {sentence}", file=sys.stderr)
    return 2


def add_device_options(parser: argparse.ArgumentParser, *, precision: str = "auto") -> None:
    """Add `--device` and `--precision`, where `auto` is bfloat16 if the hardware has it."""
    parser.add_argument(
        "--device",
        default="auto",
        help="Device to compute on: cpu, cuda, cuda:N, or auto: CUDA where there is one.",
    )
    parser.add_argument(
        "--precision",
        choices=("auto", "bf16", "fp32"),
        default=precision,
        help="Precision of the computation; auto is bfloat16 where the hardware has it.",
    )


def add_data_options(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """Add `--data` and what belongs to it.

    Args:
        parser: Whose options.
        several: Whether several data sets may be given, to be joined.
    """
    form = "An index.csv, a folder of split files, or a folder of clips"
    parser.add_argument(
        "--data",
        type=Path,
        nargs="+" if several else 1,
        required=True,
        help=f"{form}; several are joined." if several else f"{form}.",
    )
    parser.add_argument(
        "--root",
        type=Path,
        help="Folder of the clips that split files list; without it, their own folder.",
    )
    parser.add_argument(
        "--names", type=Path, help="File with the names of labels that split files number."
    )
    parser.add_argument(
        "--max-missing",
        type=float,
        default=MAX_MISSING,
        help="Share of the listed clips whose files may be missing.",
    )
    parser.add_argument(
        "--descriptions", type=Path, help="File of stage texts; without it, the template's."
    )


def data_choice(options: argparse.Namespace) -> DataChoice:
    """Return what the options of `add_data_options` choose."""
    return DataChoice(
        data=tuple(options.data),
        root=options.root,
        names=options.names,
        max_missing=options.max_missing,
    )


def pairs(option: str, given: Sequence[str], form: str) -> dict[str, str]:
    """Return the values of an option that takes NAME=VALUE pairs.

    Args:
        option: Its name.
        given: The pairs.
        form: How a pair is written, for the message.

    Raises:
        InputError: A pair has no '='.
    """
    found: dict[str, str] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals:
            raise InputError(f"{option} {pair!r} has no '='; write {form}.")
        found[name] = value
    return found


class _Help(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the description, and adds to an option the default that it has."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help or ""
        unsaid = action.default in (None, False, [], argparse.SUPPRESS) or "%(default)" in text
        return text if unsaid else f"{text} Default: %(default)s."


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; `{self.prog} --help` lists the options.")
