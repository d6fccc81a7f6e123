"""What several tests do on the page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page, expect


def opened(page: Page, task: Mapping[str, Any], part: str) -> None:
    """Open a part of a task."""
    path = f"#/task/{task['id']}/{part}"
    page.goto(f"/{path}")
    expect(page.locator(f'.tabs a[href="{path}"]')).to_have_attribute("aria-current", "page")


def tab(page: Page, name: str) -> Locator:
    """Find the tab of a part."""
    return page.locator(".tabs").get_by_role("link", name=name)


def ask(page: Page, file: Path) -> Locator:
    """Ask about a clip, and give its answer."""
    before = page.locator(".answer").count()
    page.get_by_label("Choose files").set_input_files(file)
    expect(page.locator(".answer")).to_have_count(before + 1)
    return page.locator(".answer").first
