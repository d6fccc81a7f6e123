"""The command line against a real service: what it prints, and how it ends."""

import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from kshot_client import Client
from kshot_client.command.main import main
from kshot_client.command.showing import usage_lines
from kshot_client.models.operations import Quota, SecondsQuota, Usage
from tests.client.faulty import ANSWERED, faulty


class Ended(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


Kshot = Callable[..., Ended]


@pytest.fixture
def kshot(url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Kshot:
    monkeypatch.setenv("KSHOT_URL", url)

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["kshot", *map(str, arguments)])
        try:
            status = main()
        except SystemExit as end:
            status = int(end.code or 0)
        return Ended(status, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def task(client: Client, support: dict[str, list[Path]]) -> str:
    return client.register(support, name="gestures").id


def test_a_folder_becomes_a_task_whose_labels_are_its_folders(
    kshot: Kshot, clips: Path, client: Client
) -> None:
    ended = kshot("register", clips, "--ttl-s", 600)
    assert (ended.status, ended.err) == (0, "")
    made = client.task(ended.out.strip())
    assert [label.label for label in made.labels] == ["jump", "wave [slowly]"]
    assert made.name == clips.name
    shown = json.loads(kshot("show", made.id, "--json").out)
    assert shown["id"] == made.id
    assert f"{made.id}\tready\t3 clips\t{clips.name}\tjump, wave [slowly]" in kshot("tasks").out
    assert kshot("delete", made.id).status == 0
    assert made.id not in [line["id"] for line in json.loads(kshot("tasks", "--json").out)]


def test_files_and_folders_are_classified_as_lines_csv_and_json(
    kshot: Kshot, task: str, clips: Path, query: Path, tmp_path: Path
) -> None:
    asked = [query, clips / "jump"]
    lines = kshot("classify", task, *asked).out.splitlines()
    assert [line.split("\t")[0] for line in lines] == [
        str(path) for path in (query, clips / "jump" / "a.mp4", clips / "jump" / "b.mp4")
    ]
    documents = json.loads(kshot("classify", task, *asked, "--json").out)
    assert [document["path"] for document in documents] == [line.split("\t")[0] for line in lines]
    place = tmp_path / "answers.csv"
    assert kshot("classify", task, *asked, "--csv", "-o", place).out == ""
    rows = list(csv.DictReader(io.StringIO(place.read_text(encoding="utf-8"))))
    for row, document in zip(rows, documents, strict=True):
        assert (row["path"], row["label"]) == (document["path"], document["label"])
        scores = {r["label"]: r["score"] for r in document["ranking"]}
        assert {label: float(row[f"score[{label}]"]) for label in scores} == pytest.approx(scores)


def test_a_clip_that_cannot_be_read_is_told_in_its_place(
    kshot: Kshot, task: str, query: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    ended = kshot("classify", task, bad, query)
    assert ended.status == 4
    first, second = ended.out.splitlines()
    assert first.startswith(f"{bad}\t-\t[")
    assert second.endswith("%")


def test_a_video_is_watched_as_lines_events_and_subtitles(
    kshot: Kshot, task: str, query: Path
) -> None:
    asked = ("watch", task, query, "--window-s", 0.5, "--unknown-below", -1)
    lines = kshot(*asked).out.splitlines()
    assert lines
    assert all(len(line.split("\t")) == 4 and line.startswith("0:00:0") for line in lines)
    events = [json.loads(line) for line in kshot(*asked, "--json").out.splitlines()]
    assert (events[0]["event"], events[-1]["event"]) == ("begun", "ended")
    assert sum(event["event"] == "span" for event in events) == len(lines)
    assert kshot(*asked, "--vtt").out.startswith("WEBVTT")
    assert "Behavior" in kshot(*asked, "--csv").out.splitlines()[0]


def test_a_task_is_followed_until_it_is_deleted(
    kshot: Kshot, client: Client, support: dict[str, list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Reading(io.StringIO):
        """Deletes the task once it has been told how it stands."""

        def write(self, text: str) -> int:
            if "ready" in text:
                client.delete(made)
            return super().write(text)

    for more, lines in (
        ((), ["revision 1\tready\t100%", "revision 1\tdeleted\t100%"]),
        (("--json",), ["ready", "deleted"]),
    ):
        made = client.register(support).id
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", Reading())
            assert kshot("follow", made, *more).status == 0
            told = sys.stdout.getvalue().splitlines()  # type: ignore[attr-defined]
        assert [json.loads(line)["status"] if more else line for line in told] == lines


def test_a_task_is_carried_by_a_file(kshot: Kshot, task: str, tmp_path: Path) -> None:
    place = tmp_path / "task.zip"
    assert kshot("export", task, "-o", place).out == f"{place}\n"
    ended = kshot("import", place, "--json")
    assert ended.status == 0
    assert json.loads(ended.out)["id"] != task


def test_what_may_be_wrong_is_told(kshot: Kshot, task: str) -> None:
    assert "has one clip" in kshot("diagnose", task).out
    assert kshot("info").out.startswith("kshot ")


WRONG: list[tuple[list[str], int, str]] = [
    (["show", "nothing"], 1, "[task-not-found]"),
    (["--url", "http://127.0.0.1:9", "--key", "k", "export", "x"], 3, "check the address"),
    (["--url", "nowhere", "tasks"], 2, "is no address"),
    (["register", "nowhere"], 2, "is no folder; give one of <label>/<clip>"),
    (["classify", "x", "nowhere.mp4"], 2, "There is no nowhere.mp4"),
    (["import", "nowhere.zip"], 2, "is no file"),
    (["classify", "x"], 2, "required: paths"),
    ([], 2, "required: COMMAND"),
]


@pytest.mark.parametrize(("arguments", "status", "said"), WRONG)
def test_an_error_is_one_sentence_and_a_status(
    kshot: Kshot,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    status: int,
    said: str,
) -> None:
    monkeypatch.setattr("kshot_client.retries.Retries.pause_s", lambda *_: None)
    ended = kshot(*arguments)
    assert (ended.status, ended.out) == (status, "")
    assert said in ended.err
    assert "Traceback" not in ended.err
    assert ended.err.startswith(("kshot: ", "usage: "))


def test_a_folder_without_clips_is_refused(kshot: Kshot, tmp_path: Path) -> None:
    assert "has no folders; make one for each label" in kshot("register", tmp_path).err
    (tmp_path / "jump").mkdir()
    (tmp_path / "jump" / ".hidden.mp4").touch()
    assert "'jump' has no video" in kshot("register", tmp_path).err


def test_a_busy_service_is_waited_for(kshot: Kshot, url: str) -> None:
    with faulty(url, ANSWERED) as proxy:
        assert kshot("--url", proxy.url, "info").status == 0
        assert len(proxy.requests) == 2


def test_usage_says_what_is_used_and_of_how_much(kshot: Kshot, task: str) -> None:
    assert task
    lines = dict(line.split("\t") for line in kshot("usage").out.splitlines())
    assert set(lines) == {"tasks", "bytes", "clip-seconds", "frames"}
    assert lines["tasks"].endswith(", no limit")
    shown = json.loads(kshot("usage", "--json").out)
    assert shown["tasks"]["used"] >= 1
    assert shown["bytes"]["used"] > 0
    count = Quota(limit=100, used=12, left=88, reset_s=None)
    seconds = SecondsQuota(limit=600.0, used=37.25, left=562.75, reset_s=21.5)
    usage = Usage(tasks=count, bytes=count, clip_seconds=seconds, frames=count, window_s=60.0)
    assert "clip-seconds\t37.25 of 600, whole again in 22 s" in usage_lines(usage)
    assert "tasks\t12 of 100" in usage_lines(usage)
