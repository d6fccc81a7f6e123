"""Make the pictures of the page that the documents show, on a service and clips of their own.

    python -m deploy.screenshots [FOLDER] [--views make ask ...] [--width 320] [--dark]

Without arguments it writes Make, Judge, Ask and Watch into docs/. It needs Chromium. The clips are
synthetic, so each run shows the same.
"""

import argparse
import io
import shutil
import signal
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from deploy.local_service import ROOT, local_service
from kshot_client import Client

if TYPE_CHECKING:
    from playwright.sync_api import Page

Clips = Mapping[str, Sequence[Path]]
WIDTH = 1120
HEIGHT = 1000
PATIENCE_MS = 60_000
SHOTS = 4
QUERIES = 3
COLOURS = 256
NAME = "Shapes in motion"


def draw_clips(folder: Path) -> Clips:
    """Write the clips: those of each label are numbered, the last ones to be asked about."""
    from deploy.demo_synthetic import draw_actions
    from training.synthetic.rendering import write_clip

    clips: dict[str, list[Path]] = {}
    actions, course = draw_actions(4, 3, order=False)
    for place, action in enumerate(actions):
        paths = [folder / f"{action.shape}-{take}.mp4" for take in range(SHOTS + QUERIES)]
        for take, path in enumerate(paths):
            write_clip(path, action, place * 1000 + take, course=course)
        clips[action.label] = paths
    return clips


def draw_day(folder: Path, clips: Clips) -> Path:
    """Write a long video: a clip of each label three times, one label after the other."""
    import av

    path = folder / "long.mp4"
    shown = [paths[SHOTS] for paths in clips.values()]
    pictures = []
    for source in shown:
        with av.open(source) as clip:
            rate = clip.streams.video[0].average_rate
            pictures += 3 * [frame.to_ndarray(format="rgb24") for frame in clip.decode(video=0)]
    with av.open(path, "w") as out:
        stream = out.add_stream("libx264", rate=rate)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode(None))
    return path


def save(picture: bytes, path: Path) -> None:
    """Write a picture of few colours: a third of the size, and nobody sees it."""
    from PIL import Image

    with Image.open(io.BytesIO(picture)) as shown:
        shown.convert("RGB").quantize(COLOURS).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} KB")


class Shown:
    """A page in a browser, a task, and clips to show on it."""

    def __init__(self, page: "Page", task_id: str, clips: Clips, folder: Path) -> None:
        self.page, self.task_id, self.clips, self.folder = page, task_id, clips, folder

    def make(self) -> None:
        """Show two labels with their clips, and an empty one."""
        self.page.goto("/#/new")
        self.page.get_by_label("Name", exact=True).fill(NAME)
        self.page.get_by_role("button", name="Add a label").click()
        for place, (label, paths) in enumerate(list(self.clips.items())[:2]):
            card = self.page.locator(".label").nth(place)
            card.get_by_role("textbox").fill(label)
            card.get_by_label("Choose files").set_input_files(paths[: 3 - place])
        self.page.locator("canvas.strip").nth(4).wait_for()

    def examples(self) -> None:
        """Show the task."""
        self._open("examples")
        self.page.locator("img.strip").first.wait_for()

    def judge(self) -> None:
        """Show what it says of itself; a clip is under a wrong label."""
        self._open("judge")
        self.page.locator(".grade .figure").wait_for()

    def ask(self) -> None:
        """Show an answer, opened."""
        self._open("ask")
        self.page.get_by_label("Choose files").set_input_files(self._query(1))
        self.page.get_by_text("How it came to this").click()
        self.page.locator(".answer img.strip").wait_for()
        self.page.locator(".answer canvas.strip").wait_for()

    def seen(self) -> None:
        """Show where an answer was seen."""
        self._open("ask")
        self.page.get_by_label("Choose files").set_input_files(self._query(1))
        self.page.get_by_role("button", name="Where it was seen").click()
        self.page.locator(".heats").wait_for()
        self.page.get_by_text("In words").click()

    def inbox(self) -> None:
        """Show answers that wait for somebody."""
        self._open("inbox")
        self.page.locator(".inbox img.strip").first.wait_for()
        self.page.locator(".inbox > li").first.focus()

    def watch(self) -> None:
        """Show the spans of a long video."""
        self._open("watch")
        self.page.get_by_label("Choose a video").set_input_files(draw_day(self.folder, self.clips))
        self.page.get_by_role("button", name="Save as CSV").wait_for()
        spans = self.page.locator(".list button")
        if spans.count():
            spans.last.click()
        self.page.locator(".stage video").evaluate("video => video.pause()")

    def tasks(self) -> None:
        """Show all tasks."""
        self.page.goto("/")
        self.page.locator(".task").first.wait_for()

    def _open(self, part: str) -> None:
        self.page.goto(f"/#/task/{self.task_id}/{part}")

    def _query(self, place: int) -> Path:
        return list(self.clips.values())[place][SHOTS]


VIEWS: Mapping[str, Callable[[Shown], None]] = {
    name: getattr(Shown, name)
    for name in ("make", "judge", "ask", "seen", "watch", "examples", "inbox", "tasks")
}
IN_DOCUMENTS = ("make", "judge", "ask", "watch")


def prepare(client: Client, clips: Clips) -> str:
    """Register a task, one clip of which is under a wrong label, and ask it; return its id."""
    (first, *_), (second, *_) = list(clips.items())[:2]
    support = {label: list(paths[:SHOTS]) for label, paths in clips.items()}
    support[first][SHOTS - 1] = clips[second][SHOTS]
    task = client.register(support, name=NAME)
    list(
        client.classify_all(task.id, [paths[SHOTS + 1] for paths in clips.values()], remember=True)
    )
    return task.id


def main() -> None:
    """Write the pictures."""
    options = parser().parse_args()
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, _leave)
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    options.folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="kshot-pictures-") as place,
        local_service() as service,
        Client(service.url) as client,
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"]) as browser,
    ):
        clips = draw_clips(Path(place))
        task_id = prepare(client, clips)
        for view in options.views:
            page = browser.new_page(
                base_url=service.url,
                viewport={"width": options.width, "height": HEIGHT},
                color_scheme="dark" if options.dark else "light",
                reduced_motion="reduce",
            )
            page.set_default_timeout(PATIENCE_MS)
            VIEWS[view](Shown(page, task_id, clips, Path(place)))
            path = options.folder / f"page-{view}.png"
            page.evaluate("scrollTo(0, 0)")
            save(page.screenshot(full_page=options.whole or view == "watch"), path)
            page.close()


def _leave(number: int, _: object) -> NoReturn:
    """End as on Ctrl-C, so that the service and the browser end too."""
    raise SystemExit(128 + number)


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description="Make the pictures of the page.")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "docs", help="where to")
    parser.add_argument("--views", nargs="+", choices=VIEWS, default=IN_DOCUMENTS)
    parser.add_argument("--width", type=int, default=WIDTH, help="pixels of the window")
    parser.add_argument("--dark", action="store_true", help="in dark colours")
    parser.add_argument("--whole", action="store_true", help="all of the page, not a window of it")
    return parser


if __name__ == "__main__":
    main()
