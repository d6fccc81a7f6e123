"""The researchers' page of results in a real browser: light and dark, narrow, and on paper."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from tests.reported import comparison, evaluation
from training.report.page import write_report

GRAVE = {"serious", "critical"}


@pytest.mark.parametrize("document", [evaluation, comparison])
def test_a_report_is_readable_in_every_width_and_colour(
    browser: Browser, tmp_path: Path, document: Callable[[], dict[str, Any]]
) -> None:
    file = tmp_path / "report.html"
    write_report(document(), file)
    with browser.new_context(viewport={"width": 320, "height": 700}) as context:
        page = context.new_page()
        told: list[str] = []
        asked: list[str] = []
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri())
        page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
        assert page.evaluate("document.documentElement.scrollWidth") == 320
        asked_of = {"resultTypes": ["violations"]}
        contrast = asked_of | {"runOnly": ["color-contrast"]}  # the rest is alike in the dark
        for scheme, options in (("light", asked_of), ("dark", contrast)):
            page.emulate_media(color_scheme=scheme)
            found = Axe().run(page, options=options).response["violations"]
            assert not [fault for fault in found if fault["impact"] in GRAVE]
        assert page.locator("svg[role=img]").first.bounding_box()["width"] > 250
        assert told == []
        assert asked == [file.as_uri()]


def test_what_is_folded_is_printed(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    write_report(comparison(), file)
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(file.as_uri())
        last = page.locator("details > .scroll table").last
        assert not last.is_visible()
        page.emulate_media(media="print")
        assert last.is_visible()
