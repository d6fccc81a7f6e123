"""Have Lighthouse grade the page, on a service and clips of its own.

    npm install --prefix FOLDER lighthouse@12.2.3
    python -m deploy.lighthouse FOLDER [--views examples ask ...] [--runs 3]

It needs Chromium, and Lighthouse in a folder of its own: it is no dependency. Of each view it
prints the median of the runs. What else runs on the machine costs points, so the load is printed
beside them. The last line is JSON.
"""

import argparse
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from deploy.local_service import local_service
from deploy.screenshots import draw_clips, prepare
from kshot_client import Client

VIEWS = ("tasks", "new", "examples", "judge", "ask", "inbox", "watch")
CATEGORIES = ("performance", "accessibility", "best-practices")
AUDITS = {
    "first paint, ms": "first-contentful-paint",
    "largest paint, ms": "largest-contentful-paint",
    "blocked, ms": "total-blocking-time",
    "shift": "cumulative-layout-shift",
    "speed index, ms": "speed-index",
    "bytes": "total-byte-weight",
}
LONGEST_S = 180.0  # of one run


def address(url: str, task: str, view: str) -> str:
    """Return where a view is."""
    whole = {"tasks": "#/", "new": "#/new"}
    return f"{url}/{whole.get(view, f'#/task/{task}/{view}')}"


def graded(binary: Path, url: str, chromium: str) -> dict[str, float]:
    """Run Lighthouse once: points of 100 of each category, and what they come from."""
    with tempfile.TemporaryDirectory(prefix="kshot-lighthouse-") as folder:
        out = Path(folder) / "report.json"
        flags = f"--headless=new --no-sandbox --user-data-dir={folder}/profile"
        command = [str(binary), url, f"--only-categories={','.join(CATEGORIES)}", "--quiet"]
        command += ["--output=json", f"--output-path={out}", f"--chrome-flags={flags}"]
        env = os.environ | {"CHROME_PATH": chromium}
        subprocess.run(command, check=True, timeout=LONGEST_S, env=env)
        report: dict[str, Any] = json.loads(out.read_text())
    points = {name: 100 * report["categories"][name]["score"] for name in CATEGORIES}
    return points | {name: report["audits"][id_]["numericValue"] for name, id_ in AUDITS.items()}


def main() -> None:
    """Grade the views and print their medians."""
    options = parser().parse_args()
    binary = options.folder / "node_modules" / ".bin" / "lighthouse"
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None or not binary.exists():
        raise SystemExit(f"Chromium or {binary} is missing; see --help.")
    rows = []
    with (
        tempfile.TemporaryDirectory(prefix="kshot-lighthouse-") as place,
        local_service() as service,
        Client(service.url) as client,
    ):
        task = prepare(client, draw_clips(Path(place)))
        for view in options.views:
            url = address(service.url, task, view)
            runs = [graded(binary, url, chromium) for _ in range(options.runs)]
            row = {name: round(median(run[name] for run in runs), 2) for name in runs[0]}
            rows.append({"view": view, **row, "load": round(os.getloadavg()[0], 1)})
            print(", ".join(f"{name} {value}" for name, value in rows[-1].items()), flush=True)
    print(json.dumps({"runs": options.runs, "rows": rows}))


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description="Have Lighthouse grade the page.")
    parser.add_argument("folder", type=Path, help="where npm has installed Lighthouse")
    parser.add_argument("--views", nargs="+", choices=VIEWS, default=VIEWS, help="which ones")
    parser.add_argument("--runs", type=int, default=3, help="runs a view; the median is printed")
    return parser


if __name__ == "__main__":
    main()
