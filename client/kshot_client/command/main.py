"""The command line: what it takes, and what its exit status says.

0 done, 1 refused, 2 wrong arguments, 3 no answer, 4 done but for clips that cannot be used, 130
stopped by Ctrl-C.
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from kshot_client.problems import KshotError, NoAnswerError, SettingError

if TYPE_CHECKING:
    from kshot_client.blocking import Client

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

REFUSED, WRONG, NO_ANSWER, STOPPED = 1, 2, 3, 130
EPILOG = """\
exit status: 0 done, 1 refused, 2 wrong arguments or files, 3 no answer, 4 done but for clips that
cannot be used. The service is that of --url or KSHOT_URL, the key that of KSHOT_API_KEY.
"""


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    made = argparse.ArgumentParser(
        prog="kshot",
        description="Recognise actions in video from a handful of example clips.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "--url", help="address of the service (default: KSHOT_URL, or port 8000 here)"
    )
    made.add_argument("--key", help="API key; KSHOT_API_KEY hides it from lists of processes")
    made.add_argument("--quiet", action="store_true", help="no progress bars")
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_making(commands)
    _add_asking(commands)
    for name, said in (
        ("show", "show a task"),
        ("follow", "tell how a task stands, now and after each change, until it is deleted"),
        ("diagnose", "say what may be wrong with a task"),
        ("delete", "delete a task"),
    ):
        _command(commands, name, said).add_argument("task", help="its id")
    _command(commands, "tasks", "list the tasks, newest first")
    _command(commands, "info", "tell what runs there")
    _command(commands, "usage", "tell what may be used, and is")
    export = _command(commands, "export", "write a task into a file")
    export.add_argument("task", help="its id")
    export.add_argument("-o", "--out", type=Path, help="the file (default kshot-TASK.zip)")
    return made


def _command(commands: "Commands", name: str, said: str) -> argparse.ArgumentParser:
    made = commands.add_parser(name, help=said, description=f"{said[0].upper()}{said[1:]}.")
    made.add_argument("--json", action="store_true", help="write JSON")
    return made


def _add_making(commands: "Commands") -> None:
    register = _command(commands, "register", "make a task of a folder of <label>/<clip>")
    register.add_argument("folder", type=Path, help="a folder for each label, its clips inside")
    register.add_argument("--name", help="what people call it (default: the folder's name)")
    register.add_argument("--ttl-s", type=float, help="seconds that it lives (default: for ever)")
    register.add_argument(
        "--descriptions", type=Path, metavar="FILE", help="JSON: sentences a label, one a stage"
    )
    register.add_argument(
        "--allow-partial", action="store_true", help="leave out clips that cannot be used"
    )
    take_in = _command(commands, "import", "make a task of a file that export wrote")
    take_in.add_argument("file", type=Path, help="the file")
    for made in (register, take_in):
        made.add_argument("--no-wait", action="store_true", help="do not wait until it is ready")


def _add_asking(commands: "Commands") -> None:
    classify = _command(commands, "classify", "classify clips")
    classify.add_argument("task", help="id of the task")
    classify.add_argument("paths", nargs="+", type=Path, help="files, or folders of videos")
    classify.add_argument("--csv", action="store_true", help="write CSV")
    classify.add_argument(
        "--remember", action="store_true", help="keep the clips in the task's inbox"
    )
    watch = _command(commands, "watch", "tell when a long video shows which label")
    watch.add_argument("task", help="id of the task")
    watch.add_argument("video", type=Path, help="the video")
    forms = watch.add_mutually_exclusive_group()
    forms.add_argument("--csv", action="store_true", help="write CSV, as BORIS has it")
    forms.add_argument("--vtt", action="store_true", help="write WebVTT, for a player")
    for name, said in (
        ("window-s", "length of a window, seconds"),
        ("enter", "probability at which a span begins"),
        ("leave", "probability that it keeps"),
        ("unknown-below", "nearest below which no span begins"),
    ):
        watch.add_argument(f"--{name}", type=float, help=said)
    for made in (classify, watch):
        made.add_argument("-o", "--out", type=Path, help="a file to write to")


def main() -> int:
    """Run one command; give the exit status."""
    options = parser().parse_args()
    # Not at the top: `--help` needs none of it.
    from kshot_client import blocking
    from kshot_client.command import commands

    runs: dict[str, Callable[[Client, argparse.Namespace], int]] = {
        "register": commands.register,
        "classify": commands.classify,
        "watch": commands.watch,
        "tasks": commands.tasks,
        "show": commands.show,
        "follow": commands.follow,
        "diagnose": commands.diagnose,
        "delete": commands.delete,
        "export": commands.export,
        "import": commands.take_in,
        "info": commands.info,
        "usage": commands.usage,
    }
    try:
        with blocking.Client(options.url, options.key) as client:
            return runs[options.command](client, options)
    except KshotError as error:
        print(f"kshot: {error}", file=sys.stderr)
        if isinstance(error, NoAnswerError):
            return NO_ANSWER
        return WRONG if isinstance(error, SettingError) else REFUSED
    except KeyboardInterrupt:
        print("kshot: stopped.", file=sys.stderr)
        return STOPPED
    except BrokenPipeError:  # whoever read has enough, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main())
