"""Run README's curl against a service of its own and write the real answer beside it.

    python -m deploy.readme_answer

The clips are those of `make demo ARGS='--keep clips'`; run it again when the checkpoint changes.
"""

import argparse
import json
import re
import subprocess
import tempfile
from pathlib import Path

from deploy.local_service import local_service
from deploy.readme_tables import put

URL = "http://127.0.0.1:8000"
COMMANDS = f"""\
ARROW='blue wavy arrow bounces then rises then fades'
STAR='green dotted star fades then shrinks then moves left'
ID=$(curl -s -F "support[$ARROW]=@clips/arrow-0.mp4" -F "support[$ARROW]=@clips/arrow-1.mp4" \\
     -F "support[$STAR]=@clips/star-0.mp4" -F "support[$STAR]=@clips/star-1.mp4" \\
     {URL}/tasks | python3 -c 'import json, sys; print(json.load(sys.stdin)["id"])')
curl -s -F clip=@clips/star-9.mp4 {URL}/tasks/$ID/classify"""
SHORT = re.compile(r"\[\s+([-\d][^\[\]{}]*?)\s+\]")  # a list of numbers spread over lines


def make_clips(folder: Path) -> None:
    """Write those of the demo's clips that the commands name into `folder`/clips."""
    # Not at the top: `--help` needs none of it.
    from training.synthetic.actions import demo_actions
    from training.synthetic.rendering import write_clip

    (folder / "clips").mkdir()
    for place, action in enumerate(demo_actions(5, 0)):
        for index in (0, 1, 9):
            path = folder / "clips" / f"{action.shape}-{index}.mp4"
            if path.name in COMMANDS:
                write_clip(path, action, place * 1000 + index)


def answer(folder: Path) -> str:
    """Run the commands in a folder with the clips and return the answer, indented."""
    make_clips(folder)
    with local_service() as service:
        script = COMMANDS.replace(URL, service.url)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
    spread = json.dumps(json.loads(done.stdout), indent=2)
    return SHORT.sub(lambda found: "[" + re.sub(r"\s+", " ", found[1]) + "]", spread)


def main() -> None:
    """Rewrite the commands and their answer in place."""
    argparse.ArgumentParser(description="Write the answer of README's curl.").parse_args()
    with tempfile.TemporaryDirectory(prefix="kshot-readme-") as folder:
        found = answer(Path(folder))
    written = f"```\n{COMMANDS}\n```\n\n```json\n{found}\n```"
    put("curl", written)


if __name__ == "__main__":
    main()
