"""One server and one browser for all tests of the page."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from service.settings import Settings
from tests.serving import moving_clip, serving, tiny_checkpoint

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE_MS = 30_000  # two cores, and a browser beside the server
expect.set_options(timeout=PATIENCE_MS)  # 5 s else, whatever the patience of a window is
CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]


@pytest.fixture(scope="package")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("page")
    return Settings(
        checkpoint=str(tiny_checkpoint(folder / "checkpoint")),
        store=f"sqlite:{folder / 'kshot.db'}",
        threads=1,
        decode_workers=1,
        max_labels=200,
        max_support_clips=400,
    )


@pytest.fixture(scope="package")
def client(settings: Settings) -> Iterator[httpx.Client]:
    with serving(settings) as client:
        yield client


@pytest.fixture(scope="package")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Give six clips as files, each of something else."""
    folder = tmp_path_factory.mktemp("clips")
    paths = [folder / f"take-{number}.mp4" for number in range(6)]
    for number, path in enumerate(paths):
        path.write_bytes(moving_clip(40 + number))
    return paths


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Start a browser. While it runs, its event loop does, and no test with a loop can run.

    So it ends with this package, as which pytest knows a folder with `__init__.py` alone.
    """
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", *CAMERA]
        )
        try:
            yield started
        finally:
            started.close()


@pytest.fixture(scope="package")
def window(browser: Browser, client: httpx.Client) -> Iterator[BrowserContext]:
    """Open a window, whose tabs have the page's files at hand once one has read them."""
    with browser.new_context(
        base_url=str(client.base_url), accept_downloads=True, reduced_motion="reduce"
    ) as window:
        window.set_default_timeout(PATIENCE_MS)
        yield window


@pytest.fixture(scope="module")
def shared(window: BrowserContext) -> Iterator[Page]:
    """Give a tab that the tests of a module use in turn, each in a view of its own."""
    with watched(window.new_page()) as page:
        yield page


@pytest.fixture
def page(window: BrowserContext) -> Iterator[Page]:
    """Give a tab of its own; what goes wrong in a script fails the test."""
    with watched(window.new_page()) as page:
        yield page


@contextmanager
def watched(page: Page) -> Iterator[Page]:
    """Close a tab in the end; fail where a script of it went wrong."""
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    yield page
    page.close()
    assert not faults
