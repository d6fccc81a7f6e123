"""Which of our modules a request enters: the service under a profile, asked over HTTP.

The service of any checkout is started with a profile hook in all its threads. Between two marks
every file in which a function was called is noted; decoder processes are not seen. What the
service does by itself meanwhile (its watch on the device, say) counts, since it runs, too.
"""

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import httpx
import numpy as np

BEHIND_S = 1.0  # what goes on behind the answer to a registration is part of it
START_S = 300.0  # every call is profiled, and other work may run beside it
# Run in the counted checkout. A line on standard input ends a stretch, and its files are written
# to the path that the line names.
PROFILED = """
import json, os, runpy, sys, threading
root, seen = os.getcwd() + os.sep, set()
def note(frame, event, _):
    if event == "call" and frame.f_code.co_name != "<module>":
        seen.add(frame.f_code.co_filename)
def listen():
    for line in sys.stdin:
        files, path = sorted(seen), line.strip()
        seen.clear()
        ours = [name.removeprefix(root) for name in files if name.startswith(root)]
        found = {"modules": [name for name in ours if not name.startswith(".")]}
        found["held"] = sorted(sys.modules)
        with open(path + ".part", "w") as file:
            json.dump(found, file)
        os.rename(path + ".part", path)
import service.app  # before the profile, which makes every call dear
from model.checkpoint import load_recognizer
load_recognizer("compact")  # the other packaged checkpoint, for what it imports
listener = threading.Thread(target=listen, daemon=True)
listener.start()
threading.setprofile(note)
sys.setprofile(note)
sys.argv = ["service"]
runpy.run_module("service", run_name="__main__")
"""


@dataclass(frozen=True, slots=True)
class Stretch:
    """What a request leaves behind: modules of ours that it entered, all that the process holds."""

    modules: list[str]  # paths
    held: list[str]  # names


def walk_of(root: Path) -> dict[str, Stretch]:
    """Give what one registration and one classification enter in a checkout."""
    with tempfile.TemporaryDirectory(prefix="kshot-walk-") as name:
        folder = Path(name)
        with (
            _service(root, folder) as (process, url),
            httpx.Client(base_url=url, timeout=60) as http,
        ):
            walks = {}
            _mark(process, folder / "start")
            task = _register(http)
            time.sleep(BEHIND_S)
            walks["a register request"] = _mark(process, folder / "register")
            answer = http.post(
                f"/v1/tasks/{task}/classify", files=[("clip", ("clip.mp4", clip(7)))]
            )
            answer.raise_for_status()
            walks["a classify request"] = _mark(process, folder / "classify")
    return walks


def clip(seed: int) -> bytes:
    """Make a short MP4 of moving noise."""
    pixels = np.random.default_rng(seed).integers(0, 255, (64, 64, 3), np.uint8)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for shift in range(10):
            frame = av.VideoFrame.from_ndarray(np.roll(pixels, 4 * shift, axis=1), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


@contextlib.contextmanager
def _service(root: Path, folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    env = {
        key: value for key, value in os.environ.items() if not key.startswith(("KSHOT_", "OPENAI"))
    }
    env |= {"KSHOT_PORT": str(port), "PYTHONPATH": str(root), "KSHOT_STOP_GRACE_S": "1"}
    env |= {"KSHOT_RUNTIME": "torch", "KSHOT_STORE": _store(root, folder)}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", PROFILED],
            cwd=root,
            env=env,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            text=True,
        )
        try:
            _wait(process, url, folder / "log")
            yield process, url
        finally:
            process.terminate()
            process.communicate()


def _store(root: Path, folder: Path) -> str:
    """Name the embedded store as the checkout's settings do: a folder before SQLite came."""
    settings = (root / "service" / "settings.py").read_text(encoding="utf-8")
    return f"sqlite:{folder}/kshot.db" if "sqlite:" in settings else f"dir:{folder}/store"


def _wait(process: subprocess.Popen[str], url: str, log: Path) -> None:
    start = time.monotonic()
    while time.monotonic() - start < START_S and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/readyz", timeout=5.0).is_success:
                return
        time.sleep(0.2)
    raise RuntimeError(f"The service did not start: {log.read_text()[-500:]}")


def _mark(process: subprocess.Popen[str], path: Path) -> Stretch:
    """End the stretch that runs."""
    assert process.stdin is not None
    process.stdin.write(f"{path}\n")
    process.stdin.flush()
    start = time.monotonic()
    while not path.exists():
        if time.monotonic() - start > START_S:
            raise RuntimeError("The profiled service gives no list of files.")
        time.sleep(0.05)
    return Stretch(**json.loads(path.read_text()))


def _register(http: httpx.Client) -> str:
    """Register two labels of one clip each, and wait until the task is ready."""
    files = [(f"support[{label}]", ("clip.mp4", clip(label))) for label in (1, 2)]
    answer = http.post("/v1/tasks", files=files, data={"name": "walk"})
    answer.raise_for_status()
    task = answer.json()
    while task["status"] == "processing":
        time.sleep(0.1)
        task = http.get(f"/v1/tasks/{task['id']}").json()
    return str(task["id"])
