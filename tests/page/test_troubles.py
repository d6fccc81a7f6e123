"""What goes wrong, what is odd, and who cannot see or point: the page says it and goes on."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Browser, BrowserContext, Page, expect

from service.settings import Settings
from tests.page.conftest import watched
from tests.page.looking import ask, opened
from tests.serving import make_key, moving_clip, register, serving

GRAVE = {"serious", "critical"}
MARKUP = "<img src=x onerror=alert(1)>"
ARABIC = "يلوّح بيده"
MANY = 200
VIEWS = {"#/": "main .task", "#/new": "main .bottom"}  # what each alone has
PARTS = ("examples", "judge", "ask", "inbox", "watch")
# What begins inside the view and ends beyond it, unless it scrolls there on purpose.
TOO_WIDE = """
    [...document.querySelectorAll("body *")]
        .filter(node => node.getBoundingClientRect().right > innerWidth + 1)
        .filter(node => !node.closest(".tabs, .scroll, .unseen, .away, .cut, .film"))
        .map(node => `${node.tagName}.${node.className} ${node.getBoundingClientRect().right}`)
"""


@pytest.fixture(scope="package")
def many(client: httpx.Client) -> dict[str, object]:
    """A task of many labels, one of which is markup and one Arabic."""
    labels = [MARKUP, ARABIC, *(f"label {number}" for number in range(MANY - 2))]
    clip = moving_clip(1, frames=4)
    return register(client, {label: [clip] for label in labels}, name=MARKUP)


def test_a_refused_clip_is_named_with_its_fault(
    page: Page, files: list[Path], tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(files[0].read_bytes()[:300])
    page.goto("/#/new")
    for place, (name, file) in enumerate([("wave", files[0]), ("jump", damaged)]):
        card = page.locator(".label").nth(place)
        card.get_by_role("textbox").fill(name)
        card.get_by_label("Choose files").set_input_files(file)
    with page.expect_response("**/v1/tasks") as refused:
        page.get_by_role("button", name="Make the classifier").click()
    problem = page.get_by_role("alert").filter(has_text="Report number")
    expect(problem.locator("code")).to_have_text(refused.value.headers["x-request-id"])
    expect(page.locator(".label").nth(1).locator(".fault")).to_be_visible()
    expect(page.locator(".label").nth(0).locator(".fault")).to_have_count(0)
    page.get_by_role("button", name="Delete damaged.mp4").click()
    page.locator(".label").nth(1).get_by_label("Choose files").set_input_files(files[1])
    page.get_by_role("button", name="Make the classifier").click()
    expect(page.locator(".tabs")).to_be_visible()


def test_a_server_that_goes_away_and_comes_back(
    browser: Browser, settings: Settings, files: list[Path], tmp_path: Path
) -> None:
    own = settings.model_copy(update={"store": f"sqlite:{tmp_path / 'kshot.db'}"})
    with browser.new_context() as context:
        page = context.new_page()
        with serving(own) as client:
            task = register(client, {"wave": [moving_clip(1)], "jump": [moving_clip(2)]})
            url, port = str(client.base_url), client.base_url.port
            page.goto(f"{url}/#/task/{task['id']}/ask")
            expect(page.locator(".drop")).to_be_visible()
        page.get_by_label("Choose files").set_input_files(files[0])
        expect(page.locator("#offline")).to_be_visible()
        expect(page.locator(".box.bad")).to_contain_text("cannot be reached")
        with serving(own, port or 0):
            expect(page.locator("#offline")).to_be_hidden(timeout=20_000)
            ask(page, files[0])


def test_a_task_deleted_elsewhere_is_said_to_be_gone(
    page: Page, client: httpx.Client, files: list[Path]
) -> None:
    task = register(client, {"wave": [moving_clip(3)], "jump": [moving_clip(4)]})
    opened(page, task, "ask")
    expect(page.locator(".drop")).to_be_visible()
    client.delete(f"/tasks/{task['id']}").raise_for_status()
    page.get_by_label("Choose files").set_input_files(files[0])
    expect(page.get_by_role("heading", name="This classifier is gone")).to_be_visible()
    expect(page.locator(".problem")).to_contain_text("Report number")


@pytest.fixture(scope="module")
def listed(window: BrowserContext, many: dict[str, object]) -> Iterator[Page]:
    """Show the task of many labels."""
    with watched(window.new_page()) as page:
        opened(page, many, "examples")
        expect(page.locator(".label")).to_have_count(MANY)
        yield page


def test_two_hundred_labels_are_shown_and_the_list_names_the_first(
    listed: Page, page: Page
) -> None:
    expect(listed.locator(".label h2").last).to_have_text(f"label {MANY - 3}")
    page.goto("/")
    expect(page.locator(".task", has_text=MARKUP).first).to_contain_text(f"{MANY - 6} more")


def test_a_label_is_text_whatever_it_contains(listed: Page) -> None:
    expect(listed.locator(".label h2").nth(0)).to_have_text(MARKUP)
    expect(listed.locator("h1")).to_have_text(MARKUP)
    assert listed.locator("img[src=x]").count() == 0


def test_an_arabic_label_runs_from_right_to_left(listed: Page) -> None:
    label = listed.locator(".label h2 bdi").nth(1)
    expect(label).to_have_text(ARABIC)
    assert label.evaluate("element => getComputedStyle(element).direction") == "rtl"


def test_a_change_leaves_who_makes_it_at_its_place_in_a_long_list(listed: Page) -> None:
    card = listed.locator(".label").nth(150)
    card.get_by_role("button", name="Rename").press("Enter")
    listed.get_by_role("dialog").get_by_role("textbox").fill("another name")
    listed.keyboard.press("Enter")
    expect(card.locator("h2")).to_have_text("another name")
    expect(card).to_be_focused()
    expect(card).to_be_in_viewport()


def test_a_locked_service_is_used_with_a_key_that_this_tab_alone_keeps(
    browser: Browser, settings: Settings, tmp_path: Path
) -> None:
    own = settings.model_copy(update={"store": f"sqlite:{tmp_path / 'kshot.db'}"})
    key = make_key(own.store)
    with serving(own) as client, browser.new_context(base_url=str(client.base_url)) as window:
        with watched(window.new_page()) as page:
            page.goto("/")
            asked = page.get_by_role("dialog", name="This service asks for a key")
            for given in (f"{key[:-1]}{'1' if key[-1] == '0' else '0'}", key):
                expect(asked).to_contain_text("Authorization")
                asked.get_by_label("API key").fill(given)
                asked.get_by_role("button", name="Use it for this session").click()
            expect(page.get_by_role("heading", name="Teach it an action")).to_be_visible()
            page.reload()
            expect(page.get_by_role("heading", name="Teach it an action")).to_be_visible()
            assert page.evaluate("Object.values(sessionStorage)") == [key]
            assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
            assert key not in page.content()
        with watched(window.new_page()) as other:
            other.goto("/")
            expect(other.get_by_role("dialog")).to_be_visible()
            other.get_by_role("button", name="Cancel").click()
            expect(other.locator(".empty .problem")).to_contain_text("Report number")


def test_axe_finds_nothing_serious_in_any_view_light_or_dark(
    page: Page, client: httpx.Client, files: list[Path]
) -> None:
    clips = {"wave": [moving_clip(5), moving_clip(6)], "jump": [moving_clip(7), moving_clip(5)]}
    task = register(client, clips, name="For all")
    seen = {}
    parts = {f"#/task/{task['id']}/{part}": f'a[href$="{part}"][aria-current]' for part in PARTS}
    for path, view in {**VIEWS, **parts, "#/task/0": "main .empty"}.items():
        page.goto(f"/{path}")
        expect(page.locator(view)).not_to_have_count(0)  # not the view before it
        if path.endswith("ask"):
            answer = ask(page, files[0])
            answer.get_by_text("How it came to this").click()
            answer.get_by_role("button", name="Where it was seen").click()
            expect(answer.locator(".heats")).to_be_visible()
        page.emulate_media(color_scheme="light")
        seen[path] = grave_faults(page)
        page.emulate_media(color_scheme="dark")
        seen[path] += grave_faults(page, runOnly=["color-contrast"])
    assert not {path: faults for path, faults in seen.items() if faults}


def grave_faults(page: Page, **options: object) -> list[tuple[str, str]]:
    if page.evaluate("typeof axe") == "undefined":
        page.evaluate(AXE_SCRIPT)
    found = page.evaluate("options => axe.run(options)", {"resultTypes": ["violations"], **options})
    return [
        (fault["id"], node["html"])
        for fault in found["violations"]
        if fault["impact"] in GRAVE
        for node in fault["nodes"]
    ]


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("path", ["/", "/#/new"])
def test_the_list_and_make_fit_into_320_pixels(shared: Page, path: str) -> None:
    page = shared
    page.set_viewport_size({"width": 320, "height": 640})
    page.goto(path)
    expect(page.locator(VIEWS[path.lstrip("/") or "#/"])).not_to_have_count(0)
    assert page.evaluate("document.documentElement.scrollWidth") <= 320


@pytest.fixture(scope="package")
def unbroken(client: httpx.Client) -> dict[str, object]:
    """A task whose names have no place to break a line."""
    clips = {letter * 90: [moving_clip(8), moving_clip(8)] for letter in "wj"}
    return register(client, clips, name="n" * 120)


@pytest.mark.parametrize("part", PARTS)
def test_a_task_of_long_names_fits_into_320_pixels(
    shared: Page, unbroken: dict[str, object], files: list[Path], part: str
) -> None:
    page = shared
    page.set_viewport_size({"width": 320, "height": 640})
    opened(page, unbroken, part)
    expect(page.locator(".tab > *").first).to_be_visible()
    if part == "ask":
        ask(page, files[0])
    wide = page.evaluate(TOO_WIDE)
    assert (page.evaluate("document.documentElement.scrollWidth"), wide) == (320, [])
