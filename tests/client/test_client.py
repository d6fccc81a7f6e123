"""The client against a real service: both ways of waiting, one meaning."""

import io
import re
import zipfile
from pathlib import Path

import httpx
import pytest

from kshot_client import (
    AsyncClient,
    Client,
    Clip,
    ProblemError,
    Retries,
    SettingError,
    TaskFailedError,
)
from kshot_client.calls import Send
from kshot_client.models.tasks import InboxPolicy, Task
from kshot_client.models.timelines import Begun, Ended, Span
from kshot_client.operations.changes import add_clips
from kshot_client.operations.questions import _batches
from kshot_client.operations.tasks import register
from kshot_client.uploads import Upload
from tests.client.faulty import ANSWERED, BROKEN, CUT, faulty
from tests.service.test_uploads_safe import damaged

Support = dict[str, list[Path]]


@pytest.fixture(scope="module")
def task(client: Client, support: Support) -> Task:
    return client.register(support, name="gestures")


def test_a_registered_task_is_ready_and_has_its_labels(task: Task) -> None:
    assert task.status == "ready"
    assert [(label.label, label.clips) for label in task.labels] == [
        ("jump", 2),
        ("wave [slowly]", 1),
    ]
    assert [clip.name for clip in task.clips] == ["a.mp4", "b.mp4", "c.mp4"]


async def test_both_clients_get_the_same_answers(
    url: str, client: Client, task: Task, query: Path
) -> None:
    content = query.read_bytes()  # noqa: ASYNC240
    wanted = client.classify(task.id, [query, content])
    async with AsyncClient(url) as other:
        given = await other.classify(task.id, [query, content])
        assert await other.task(task.id) == client.task(task.id)
        assert task.id in [line.id async for line in other.tasks(page=1)]
        events = [event async for event in other.timeline(task.id, query, window_s=0.5)]
        copy = await other.import_task(await other.export_task(task.id))
        await other.delete(copy.id)
        assert await other.usage() == client.usage()
    assert [result.name for result in given.results] == ["q.mp4", "clip"]
    assert given.results == wanted.results
    assert (type(events[0]), type(events[-1])) == (Begun, Ended)


def test_a_task_that_is_not_waited_for_can_be_waited_for_later(
    client: Client, support: Support
) -> None:
    made = client.register(support, wait=False)
    assert client.wait_until_ready(made.id).status == "ready"


def test_damaged_clips_behind_a_202_make_an_exception_that_names_them(
    client: Client, support: Support
) -> None:
    broken = damaged(support["jump"][0].read_bytes())
    made = client.register({"a": [broken], "b": [support["jump"][1]]}, wait=False)
    with pytest.raises(TaskFailedError, match=made.id) as caught:
        client.wait_until_ready(made.id)
    assert [clip.label for clip in caught.value.clips] == ["a"]


def test_spans_of_clips_reach_the_service(client: Client, support: Support) -> None:
    first, second = support["jump"]
    late = Clip(first, start_s=0.6, name="late.mp4")
    made = client.register({"a": [late, second], "b": [second]}, ttl_s=600)
    shown = {clip.name: clip.frames_s for clip in made.clips}
    assert min(shown["late.mp4"]) >= 0.6 > min(shown["b.mp4"])
    assert made.expires_at is not None


def test_any_number_of_clips_is_classified_in_order(
    client: Client, task: Task, query: Path, support: Support
) -> None:
    asked = [query, support["jump"][0]] * 10
    found = list(client.classify_all(task.id, asked))
    assert [result.clip_index for result in found] == list(range(20))
    assert [result.name for result in found] == ["q.mp4", "a.mp4"] * 10


def test_requests_keep_to_the_number_of_clips_and_their_bytes(client: Client) -> None:
    limits = client.limits()
    most, room = limits.query_clips, limits.request_bytes
    assert list(_batches([1] * (most + 1), most, room)) == [(0, most), (most, most + 1)]
    assert list(_batches([room // 2, room // 2 + 1, 9], most, room)) == [(0, 1), (1, 3)]
    assert list(_batches([2 * room, 1], most, room)) == [(0, 1), (1, 2)], "the service refuses it"
    assert list(_batches([], most, room)) == []


def test_few_clips_at_a_time_are_explained(client: Client, task: Task, query: Path) -> None:
    (answer,) = client.classify(task.id, [query], explain=True).results
    seen = answer.saliency
    assert seen is not None
    assert (seen.method, seen.label, len(seen.frames)) == ("gradient", answer.label, 8)
    more = client.limits().explained_clips + 1
    with pytest.raises(ProblemError, match="too-many-clips"):
        client.classify(task.id, [query] * more, explain=True)
    found = list(client.classify_all(task.id, [query] * more, explain=True))
    assert [result.saliency for result in found] == [seen] * more


def test_a_task_is_changed_step_by_step(client: Client, support: Support, query: Path) -> None:
    made = client.register(support)
    grown = client.add_clips(made.id, "wave [slowly]", [query])
    assert len(grown.change.added_clips) == 1
    named = client.rename_label(made.id, "wave [slowly]", "wave/both", if_revision=grown.revision)
    assert [label.label for label in named.labels] == ["jump", "wave/both"]
    with pytest.raises(ProblemError) as stale:
        client.remove_label(made.id, "wave/both", if_revision=made.revision)
    assert (stale.value.code, stale.value.revision) == ("revision-stale", named.revision)
    put = client.put_label(made.id, "pour tea", [query], descriptions=["One.", "Two.", "Three."])
    assert put.labels[-1].descriptions == ["One.", "Two.", "Three."]
    words = client.describe_label(made.id, "pour tea", None)
    assert words.labels[-1].text_source == "template"
    assert len(client.remove_label(made.id, "wave/both").labels) == 2
    fewer = client.remove_clip(made.id, made.clips[0].clip_id)
    assert made.clips[0].clip_id not in [clip.clip_id for clip in fewer.clips]
    set_up = client.change(made.id, name="mine", unknown_below=0.25)
    assert (set_up.name, set_up.unknown_below) == ("mine", 0.25)
    assert client.change(made.id, unknown_below=None).name == "mine"
    assert client.clip_frames(made.id, fewer.clips[0].clip_id)[:2] == b"\xff\xd8"
    assert client.diagnose(made.id).task_revision == client.task(made.id, diagnosis=True).revision
    client.delete(made.id)
    with pytest.raises(ProblemError, match="task-not-found"):
        client.task(made.id)


def test_a_remembered_query_becomes_an_example(
    client: Client, support: Support, query: Path
) -> None:
    made = client.register(support, inbox=InboxPolicy(keep=7, below=0.0))
    assert made.inbox == InboxPolicy(keep=7, below=0.0)
    asked = client.classify(made.id, [query], remember=True).results[0]
    assert asked.query_id is not None
    assert [each.query_id for each in client.inbox(made.id).queries] == [asked.query_id]
    assert client.query_frames(made.id, asked.query_id)[:2] == b"\xff\xd8"
    learned = client.answer_query(made.id, asked.query_id, label="jump")
    assert learned.change.added_clips == [asked.query_id]


def test_a_timeline_ends_in_its_last_event_and_as_a_text(
    client: Client, task: Task, query: Path
) -> None:
    events = list(client.timeline(task.id, query, window_s=0.5, unknown_below=-1, scores=True))
    names = [type(event).__name__ for event in events]
    assert (names[0], names[-1]) == ("Begun", "Ended")
    assert {"Span", "Windows", "Progress"} <= set(names)
    text = client.timeline_text(task.id, query, "vtt", window_s=0.5, unknown_below=-1)
    spans = [event for event in events if isinstance(event, Span)]
    assert text.count("-->") == len(spans) > 0


def test_who_stops_asking_ends_the_timeline(client: Client, task: Task, query: Path) -> None:
    for event in client.timeline(task.id, query, window_s=0.5):
        assert isinstance(event, Begun)
        break
    assert client.health().ok


def test_an_export_is_a_file_that_makes_the_task_again(
    client: Client, task: Task, tmp_path: Path
) -> None:
    place = tmp_path / "task.zip"
    place.write_bytes(client.export_task(task.id, remembered=True))
    assert "task.json" in zipfile.ZipFile(io.BytesIO(place.read_bytes())).namelist()
    sent: list[int] = []
    copy = client.import_task(place, progress=sent.append)
    assert sum(sent) == place.stat().st_size
    assert [label.label for label in copy.labels] == [label.label for label in task.labels]


def test_a_refusal_is_an_exception_with_the_problem_in_it(client: Client) -> None:
    with pytest.raises(ProblemError) as caught:
        client.task("nothing")
    error = caught.value
    assert (error.code, error.status, error.retryable) == ("task-not-found", 404, False)
    assert "'nothing'" in error.detail
    assert re.fullmatch(r"\w{16,}", error.instance)
    assert str(error) == f"[{error.code}] {error.detail}"


def test_clips_that_cannot_be_used_are_named(client: Client, task: Task, query: Path) -> None:
    found = client.classify(task.id, [query, b"no video"])
    assert found.results[0].error is None
    assert found.results[1].error is not None
    with pytest.raises(ProblemError) as caught:
        client.classify(task.id, [Clip(b"no video", name="bad.mp4")])
    assert [clip.name for clip in caught.value.clips] == ["bad.mp4"]


def test_requests_that_create_carry_a_key_of_their_own(support: Support) -> None:
    def key_of(flow: object) -> str:
        step = next(flow)  # type: ignore[call-overload]
        assert isinstance(step, Send)
        return step.call.headers["Idempotency-Key"]

    keys = [key_of(register(support)), key_of(register(support))]
    assert len({*keys, key_of(add_clips("t", "l", support["jump"]))}) == 3
    assert key_of(register(support, idempotency_key="mine")) == '"mine"'


def test_a_file_is_open_only_while_it_is_read(query: Path) -> None:
    sent: list[int] = []
    upload = Upload(query, sent.append)
    assert upload._opened is None
    half = upload.read(10)
    assert upload._opened is not None
    assert half + upload.read() == query.read_bytes()
    assert upload._opened is None
    assert sum(sent) == query.stat().st_size == upload.length
    upload.seek(0)
    assert upload.read() == query.read_bytes()


@pytest.mark.parametrize("given", ["ftp://here", "nowhere", "http://"])
def test_an_address_that_is_none_is_refused_at_once(given: str) -> None:
    with pytest.raises(SettingError, match="is no address"):
        Client(given)


def test_address_and_key_are_those_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("KSHOT_URL", url + "/")
    monkeypatch.setenv("KSHOT_API_KEY", "kshot_abc")
    with Client() as client:
        assert client.health().ok
        assert client._http.headers["authorization"] == "Bearer kshot_abc"
    with Client("http://other:1", "kshot_def") as client:
        assert client._http.base_url == httpx.URL("http://other:1")
        assert client._http.headers["authorization"] == "Bearer kshot_def"
    with pytest.raises(SettingError, match="KSHOT_API_KEY"):
        Client(url, "two words")


def test_a_missing_file_is_told_before_anything_is_sent(client: Client, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="is no file"):
        client.register({"a": [tmp_path / "nothing.mp4"], "b": [tmp_path]})


def test_a_watched_task_tells_each_change_once_over_a_broken_connection(
    url: str, client: Client, support: Support
) -> None:
    made = client.register(support)
    with faulty(url, BROKEN) as proxy, Client(proxy.url) as other:
        events = other.watch_task(made.id)
        first = next(events)
        assert (first.status, first.revision, first.progress) == ("ready", 1, 1.0)
        client.rename_label(made.id, "jump", "leap")
        second = next(events)
        assert (second.status, second.revision) == ("ready", 2)
        client.delete(made.id)
        assert [event.status for event in events] == ["deleted"]
    assert proxy.heads("last-event-id") == ["", "1-ready-100"]


async def test_the_client_for_asyncio_watches_too(
    url: str, client: Client, support: Support
) -> None:
    made, found = client.register(support), []
    with faulty(url, ANSWERED, CUT) as proxy:
        async with AsyncClient(proxy.url, retries=Retries(first_s=0.01)) as other:
            async for event in other.watch_task(made.id):
                found.append(event.status)
                if event.status == "ready":
                    client.delete(made.id)
            with pytest.raises(ProblemError, match="task-not-found"):
                await anext(other.watch_task(made.id))
    assert found == ["ready", "deleted"]
    assert len(proxy.requests) == 4
