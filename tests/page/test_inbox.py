"""Least certain answers are gone through by keyboard, each taught, counted or dropped."""

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.page.looking import ask, opened, tab
from tests.serving import moving_clip, query_files, register


@pytest.fixture
def task(client: httpx.Client) -> dict[str, object]:
    return register(client, {"wave": [moving_clip(30)], "jump": [moving_clip(31)]})


def remembered(client: httpx.Client, task: dict[str, object], count: int) -> None:
    clips = [moving_clip(32 + number) for number in range(count)]
    client.post(
        f"/tasks/{task['id']}/classify", files=query_files(*clips), data={"remember": "true"}
    ).raise_for_status()


def names(client: httpx.Client, task: dict[str, object]) -> list[str]:
    queries = client.get(f"/tasks/{task['id']}/inbox").json()["queries"]
    return [query["name"] for query in queries]


def press(page: Page, key: str, item: Locator) -> None:
    """Press a key on the first item, which then is another one."""
    expect(item).to_be_focused()
    before = item.inner_text()
    page.keyboard.press(key)
    expect(item).not_to_have_text(before, use_inner_text=True)


def test_the_inbox_is_gone_through_by_keyboard_alone(
    page: Page, client: httpx.Client, task: dict[str, object]
) -> None:
    remembered(client, task, 5)
    order = names(client, task)
    opened(page, task, "inbox")
    items = page.locator(".inbox > li")
    expect(items).to_have_count(5)
    expect(items.first.locator("img.strip")).to_be_visible()
    shown = [items.nth(place).locator("figcaption").inner_text() for place in range(5)]
    assert shown == order
    items.first.focus()
    page.keyboard.press("ArrowDown")
    expect(items.nth(1)).to_be_focused()
    page.keyboard.press("ArrowUp")
    first = items.first.locator("button bdi").first.inner_text()

    press(page, "1", items.first)  # the label that it ranked first
    press(page, "0", items.first)  # none of these
    press(page, "x", items.first)  # dropped
    expect(items.first).to_be_focused()
    page.keyboard.press("o")
    page.get_by_role("combobox", name="Label").fill("pour")
    page.keyboard.press("Enter")
    expect(items).to_have_count(1)
    page.keyboard.press("2")
    expect(page.get_by_role("heading", name="Nothing to look at")).to_be_visible()
    expect(page.locator("main")).to_be_focused()

    after = client.get(f"/tasks/{task['id']}").json()
    learned = {clip["name"]: clip["label"] for clip in after["clips"] if clip["name"] in order}
    assert learned[order[0]] == first
    assert learned[order[3]] == "pour"
    assert set(learned) == {order[0], order[3], order[4]}
    inbox = client.get(f"/tasks/{task['id']}/inbox").json()
    assert (inbox["none_of_these"], inbox["queries"]) == (1, [])


def test_a_query_that_somebody_else_answered_leaves_the_list(
    page: Page, client: httpx.Client, task: dict[str, object]
) -> None:
    remembered(client, task, 1)
    opened(page, task, "inbox")
    item = page.locator(".inbox > li")
    expect(item).to_be_visible()
    (query,) = client.get(f"/tasks/{task['id']}/inbox").json()["queries"]
    path = f"/tasks/{task['id']}/inbox/{query['query_id']}"
    client.post(path, json={"label": "wave"}).raise_for_status()
    item.get_by_role("button", name="None of these").click()
    expect(item).to_have_count(0)
    expect(page.locator(".toast")).to_contain_text("answered already")


def test_what_is_kept_is_set_on_the_page(
    page: Page, client: httpx.Client, task: dict[str, object], files: list[object]
) -> None:
    opened(page, task, "inbox")
    kept = page.get_by_label("Keep answers that it is unsure of")
    expect(kept).not_to_be_checked()
    with page.expect_response(f"**/tasks/{task['id']}"):
        kept.check()
    with page.expect_response(f"**/tasks/{task['id']}"):
        page.get_by_label("How unsure").fill("85")
    assert client.get(f"/tasks/{task['id']}").json()["inbox"] == {"keep": 50, "below": 0.85}
    with page.expect_response(f"**/tasks/{task['id']}"):
        kept.uncheck()
    assert client.get(f"/tasks/{task['id']}").json()["inbox"] is None

    tab(page, "Ask").click()
    ask(page, files[0])
    assert names(client, task) == []
    page.get_by_label("Keep these in the inbox").check()
    answer = ask(page, files[1])
    assert names(client, task) == ["take-1.mp4"]
    answer.get_by_role("button", name="Yes, learn it too").click()
    expect(answer).to_contain_text("It is now an example of")
    assert names(client, task) == []
