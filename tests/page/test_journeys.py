"""What people come for, each as one way through the page, in a real browser on a real server."""

import re
from pathlib import Path

import httpx
import numpy as np
import pytest
from playwright.sync_api import Page, Request, Route, expect

from tests.page.looking import ask, opened, tab
from tests.serving import moving_clip, register

LOADED = """video => video.readyState > 1 || new Promise(resolve => {
    video.addEventListener("loadeddata", () => resolve(true))
})"""
JUMP = """button => {
    const video = document.querySelector(".stage video")
    video.currentTime = video.duration
    button.click()
    return video.currentTime
}"""
WARMTH = """(canvas, [row, column, side]) => {
    const [wide, high] = [canvas.width / side, canvas.height / side]
    const { data } = canvas.getContext("2d").getImageData(column * wide, row * high, wide, high)
    return data.reduce((sum, value, at) => sum + [value, 0, -value, 0][at % 4], 0) / (wide * high)
}"""  # mean of red minus blue over a cell
CAN_BE_PLAYED = """urls => Promise.all(urls.map(url => new Promise(resolve => {
    const video = document.createElement("video")
    video.onloadeddata = () => resolve(true)
    video.onerror = () => resolve(false)
    video.src = url
})))"""


@pytest.fixture(scope="module")
def moving(client: httpx.Client) -> dict[str, object]:
    """A task that is only asked: each clip is one of its labels."""
    task = register(client, {"wave": [moving_clip(82)], "jump": [moving_clip(83)]})
    client.patch(f"/tasks/{task['id']}", json={"unknown_below": -1}).raise_for_status()
    return task


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a long video as a file."""
    path = tmp_path_factory.mktemp("day") / "day.mp4"
    path.write_bytes(moving_clip(82, frames=90))
    return path


def test_make_from_files_the_camera_and_a_span_of_a_video(
    page: Page, client: httpx.Client, files: list[Path]
) -> None:
    page.goto("/#/new")
    page.get_by_label("Name", exact=True).fill("Gestures")
    first, second = page.locator(".label").all()
    first.get_by_role("textbox").fill("wave")
    first.get_by_label("Choose files").set_input_files(files[:2])
    expect(first.locator("canvas.strip")).to_have_count(2)
    second.get_by_role("textbox").fill("jump")
    second.get_by_role("button", name="Record").click()
    page.get_by_label("Length").fill("2")
    page.get_by_role("button", name="Start in three seconds").click()
    page.get_by_role("button", name="Use this clip").click()
    second.get_by_label("Choose a long video").set_input_files(files[2])
    page.get_by_label("Start of the span").fill("0.4")
    page.get_by_label("End of the span").fill("0.9")
    expect(page.locator("dialog output")).to_have_text("0.4 s to 0.9 s (0.5 s)")
    page.get_by_role("button", name="Use this span").click()
    expect(second.locator(".clip")).to_have_count(2)
    page.get_by_role("button", name="Make the classifier").click()
    expect(page.get_by_role("heading", name="Gestures")).to_be_visible()
    expect(page.locator("img.strip").first).to_be_visible()

    task = client.get(f"/tasks/{page.url.split('/')[-2]}").json()
    assert {label["label"]: label["clips"] for label in task["labels"]} == {"wave": 2, "jump": 2}
    camera, span = (clip for clip in task["clips"] if clip["label"] == "jump")
    assert camera["name"].startswith("recording-")
    assert 0 < camera["duration_s"] < 4  # a loaded machine records less than it is asked for
    assert min(span["frames_s"]) >= 0.4
    assert max(span["frames_s"]) <= 0.9


def test_judge_shows_a_clip_that_is_there_twice_and_deletes_it(
    page: Page, client: httpx.Client
) -> None:
    twice = moving_clip(50)
    clips = {"wave": [twice, moving_clip(51)], "jump": [moving_clip(52), moving_clip(53), twice]}
    task = register(client, clips)
    opened(page, task, "judge")
    expect(page.locator(".grade .figure")).to_contain_text("%")
    expect(page.get_by_role("heading", name="Would more examples help?")).to_be_visible()
    copy = page.locator(".finding", has_text="The same clip twice")
    expect(copy).to_contain_text("one clip is there of 'wave' under 'jump'")
    copy.get_by_role("button", name="Delete").click()
    expect(copy).to_have_count(0)
    left = client.get(f"/tasks/{task['id']}").json()
    assert [label["clips"] for label in left["labels"]] == [2, 2]


def test_ask_ranks_every_label_and_says_how_it_came_to_it(
    page: Page, client: httpx.Client, files: list[Path]
) -> None:
    task = register(
        client, {label: [moving_clip(60 + k)] for k, label in enumerate(("wave", "jump", "pour"))}
    )
    opened(page, task, "ask")
    answer = ask(page, files[0])
    expect(answer.locator(".ranking li")).to_have_count(3)
    expect(answer.locator("canvas.strip")).to_be_visible()
    expect(answer.locator("img.strip")).to_be_visible()
    answer.get_by_text("How it came to this").click()
    expect(answer.locator("td.heat")).to_have_count(9)

    client.patch(f"/tasks/{task['id']}", json={"unknown_below": 1}).raise_for_status()
    unknown = ask(page, files[1])
    expect(unknown.get_by_role("heading", name="None of these")).to_be_visible()


def test_where_an_answer_was_seen_is_shown_on_demand_and_said_in_words(
    page: Page, moving: dict[str, object], files: list[Path]
) -> None:
    opened(page, moving, "ask")
    answer = ask(page, files[4])
    expect(answer.locator(".heats")).to_have_count(0)
    toggle = answer.get_by_role("button", name="Where it was seen")
    expect(toggle).to_have_attribute("aria-expanded", "false")
    with page.expect_response("**/classify") as asked:
        toggle.press("Enter")
    (result,) = asked.value.json()["results"]
    assert result["saliency"]["label"] == result["label"]
    expect(answer.locator(".seen")).to_contain_text(f"What speaks for {result['label']}")
    expect(answer.locator(".seen")).to_contain_text("Grad-CAM")
    pictures = answer.locator(".heats").get_by_role("img")
    expect(pictures).to_have_count(len(result["frames_s"]))
    expect(toggle).to_have_attribute("aria-expanded", "true")
    most = [max(map(max, rows)) for rows in result["saliency"]["frames"]]
    brightest = pictures.nth(most.index(1))
    expect(brightest).to_have_attribute("aria-label", re.compile("100.% of the most anywhere"))
    cells = np.array(result["saliency"]["frames"][most.index(1)])
    warm, cold = (
        brightest.evaluate(WARMTH, [*map(int, np.unravel_index(place, cells.shape)), len(cells)])
        for place in (cells.argmax(), cells.argmin())
    )
    assert warm > cold + 40
    toggle.press("Enter")
    expect(answer.locator(".heats")).to_be_hidden()
    expect(toggle).to_have_attribute("aria-expanded", "false")


def test_a_wrong_answer_is_corrected_and_learned(
    page: Page, client: httpx.Client, files: list[Path]
) -> None:
    task = register(client, {"wave": [moving_clip(70)], "jump": [moving_clip(71)]})
    opened(page, task, "ask")
    answer = ask(page, files[3])
    answer.get_by_role("button", name="That is wrong").click()
    page.get_by_role("combobox", name="Label").fill("pour")
    page.get_by_role("button", name="Choose", exact=True).click()
    expect(answer).to_contain_text("It is now an example of pour")
    expect(ask(page, files[3]).locator(".ranking")).to_contain_text("pour")
    labels = client.get(f"/tasks/{task['id']}").json()["labels"]
    assert [label["clips"] for label in labels] == [1, 1, 1]


def test_watch_tells_when_a_long_video_shows_a_label(
    page: Page, moving: dict[str, object], day: Path, tmp_path: Path
) -> None:
    opened(page, moving, "watch")
    page.get_by_label("Choose a video").set_input_files(day)
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save as CSV").click()
    saved.value.save_as(tmp_path / "day.csv")
    spans = page.locator(".list button")
    assert spans.count() > 0
    expect(page.locator(".track button")).to_have_count(spans.count())
    assert (tmp_path / "day.csv").read_text().count("STATE") == spans.count()

    page.locator(".stage video").evaluate(LOADED)
    start_s = float(spans.last.inner_text().split(" s")[0])
    for button in (spans.last, page.locator(".track button").last):
        jumped_to = button.evaluate(JUMP)
        assert jumped_to == pytest.approx(start_s, abs=0.06)  # shown to a tenth


def test_watch_follows_the_video_chosen_last_and_ends_the_one_before(
    page: Page, moving: dict[str, object], day: Path
) -> None:
    opened(page, moving, "watch")
    runs: list[Request] = []
    ended: list[Request] = []

    def slow_network(way: Route) -> None:
        """Let the first two uploads get stuck."""
        runs.append(way.request)
        if len(runs) > 2:
            way.continue_()

    page.route("**/timeline", slow_network)
    page.on("requestfailed", lambda request: ended.append(request))
    chooser = page.get_by_label("Choose a video")
    chooser.set_input_files(day)
    video = page.locator(".stage video")
    first = video.get_attribute("src")
    video.evaluate(LOADED)
    for _ in range(2):
        with page.expect_request("**/timeline"):
            chooser.set_input_files(day)
    expect(page.get_by_role("button", name="Save as CSV")).to_be_visible()
    assert ended[:2] == runs[:2]  # the page may let go of a stream whose last line it has read
    assert video.count() == 1
    assert page.evaluate(CAN_BE_PLAYED, [first, video.get_attribute("src")]) == [False, True]


def test_watch_says_why_a_file_is_no_video(
    page: Page, moving: dict[str, object], tmp_path: Path
) -> None:
    still = tmp_path / "still.mp4"
    still.write_bytes(b"no video at all")
    opened(page, moving, "watch")
    page.get_by_label("Choose a video").set_input_files(still)
    expect(page.get_by_role("alert")).to_contain_text("Report number")


def test_watch_answers_while_the_camera_runs(page: Page, moving: dict[str, object]) -> None:
    opened(page, moving, "watch")
    page.get_by_role("button", name="Start the camera").click()
    expect(page.locator(".live .verdict h2")).to_be_visible()
    expect(page.locator(".live")).to_contain_text("Answered in")
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Start the camera")).to_be_visible()


def test_a_task_is_exported_and_imported_renamed_and_deleted(
    page: Page, client: httpx.Client, tmp_path: Path
) -> None:
    task = register(client, {"wave": [moving_clip(90)], "jump": [moving_clip(91)]}, name="Takes")
    page.goto("/")
    page.get_by_label("Search classifiers").fill("takes")
    with page.expect_download() as exported:
        page.get_by_role("button", name="Export Takes").click()
    exported.value.save_as(tmp_path / "takes.zip")
    page.get_by_label("Import a file").set_input_files(tmp_path / "takes.zip")
    page.wait_for_url("**/#/task/*")
    expect(page.locator(".label")).to_have_count(2)
    new = page.url.split("/")[-1]
    assert new != task["id"]
    page.locator(".head").get_by_role("button", name="Rename").click()
    page.get_by_role("textbox", name="Name").fill("Takes again")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", name="Takes again")).to_be_visible()
    page.locator(".head").get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    page.wait_for_url("**/#/")
    assert client.get(f"/tasks/{new}").status_code == 404


def test_an_example_is_moved_and_words_are_changed(page: Page, client: httpx.Client) -> None:
    clips = {"wave": [moving_clip(92), moving_clip(93)], "jump": [moving_clip(94)]}
    task = register(client, clips)
    opened(page, task, "examples")
    page.get_by_role("button", name="Move 1.mp4 to another label").click()
    page.get_by_role("combobox", name="Label").fill("jump")
    page.get_by_role("button", name="Choose", exact=True).click()
    expect(page.locator(".label").nth(1).locator(".clip")).to_have_count(2)
    expect(page.locator(".label").nth(0).locator(".clip")).to_have_count(1)
    wave = page.locator(".label").nth(0)
    wave.get_by_text("Description").click()
    wave.get_by_label("Begins").fill("A hand is raised.")
    wave.get_by_role("button", name="Save").click()
    expect(page.locator(".label").nth(0)).to_contain_text("written by hand")
    labels = client.get(f"/tasks/{task['id']}").json()["labels"]
    assert labels[0]["descriptions"][0] == "A hand is raised."
    assert [label["clips"] for label in labels] == [1, 2]


@pytest.mark.parametrize(
    ("part", "shows"),
    [
        ("Examples", "Drop more examples here"),
        ("Judge", "Nothing to judge by yet"),
        ("Ask", "Drop clips to ask about"),
        ("Inbox", "Nothing to look at"),
        ("Watch", "Start the camera"),
    ],
)
def test_every_part_is_there_by_keyboard(
    shared: Page, moving: dict[str, object], part: str, shows: str
) -> None:
    page = shared
    opened(page, moving, "ask" if part == "Examples" else "examples")
    page.locator("h1").click()
    for _ in range(20):  # the head's buttons and the tabs before it
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == part:
            break
    page.keyboard.press("Enter")
    expect(page.get_by_text(shows).first).to_be_visible()
    expect(page.locator("main")).to_be_focused()
    expect(tab(page, part)).to_have_attribute("aria-current", "page")
