"""Tasks as files, through real HTTP: out of one store, into another, and nothing damaged."""

import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.settings import Settings
from service.tasks.portable import archive
from service.tasks.portable.archive import _sha256
from service.tasks.portable.errors import ExportDamagedError
from tests.redis_server import redis_server
from tests.serving import (
    classify,
    moving_clip,
    problem,
    query_files,
    register,
    scores,
    serving,
    tiny_checkpoint,
)

A, B, C, D = (moving_clip(seed) for seed in range(1, 5))
QUERY = moving_clip(8)
ZIP = {"content-type": "application/zip"}
WITH_QUERIES = {"remembered": "true"}


@pytest.fixture(scope="module")
def exported(client: httpx.Client) -> tuple[str, bytes]:
    """A task and its file, with a query that it remembers."""
    task = register(client, {"jump": [A, B], "wave": [C]}, name="moves")
    path = f"/tasks/{task['id']}"
    words = {"descriptions": ["The wave begins.", "The jump goes on.", "The jump ends."]}
    assert client.put(f"{path}/labels/wave/descriptions", json=words).status_code == 200
    assert client.patch(path, json={"unknown_below": 0.25}).status_code == 200
    remember = {"data": {"remember": "true"}, "files": query_files(QUERY)}
    assert client.post(f"{path}/classify", **remember).status_code == 200
    answer = client.get(f"{path}/export", params=WITH_QUERIES)
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["etag"] == '"3"'
    assert client.get(f"{path}/export", params=WITH_QUERIES).content == answer.content
    return task["id"], answer.content


def inbox(client: httpx.Client, task_id: str) -> list[dict[str, Any]]:
    """Return the queries that a task remembers."""
    queries: list[dict[str, Any]] = client.get(f"/tasks/{task_id}/inbox").json()["queries"]
    return queries


def imported(client: httpx.Client, content: bytes) -> httpx.Response:
    """Send a file."""
    return client.post("/tasks/import", content=content, headers=ZIP)


def test_a_task_goes_to_another_store_and_scores_alike(
    client: httpx.Client, exported: tuple[str, bytes], settings: Settings, tmp_path: Path
) -> None:
    task_id, content = exported
    before = client.get(f"/tasks/{task_id}").json()
    with redis_server(tmp_path / "redis") as server:
        shared = settings.model_copy(update={"store": server.url})
        with serving(shared) as other:
            answer = imported(other, content)
            assert answer.status_code == 201, answer.text
            task = answer.json()
            assert answer.headers["location"] == f"/v1/tasks/{task['id']}"
            assert task["id"] != task_id
            for same in ("name", "labels", "unknown_below", "text"):
                assert task[same] == before[same]
            shown = [{**clip, "index": None} for clip in task["clips"]]
            assert shown == [{**clip, "index": None} for clip in before["clips"]]
            (here,), (there,) = (
                scores(classify(http, one, QUERY))
                for http, one in ((client, task_id), (other, task["id"]))
            )
            for label, numbers in here.items():  # pictures are encoded as JPEG once more
                assert there[label] == pytest.approx(numbers, abs=0.05)
            assert inbox(other, task["id"]) == inbox(client, task_id) != []
            query_id = inbox(other, task["id"])[0]["query_id"]
            learnt = other.post(f"/tasks/{task['id']}/inbox/{query_id}", json={"label": "wave"})
            assert learnt.json()["clips"][-1]["clip_id"] == query_id


def test_remembered_queries_stay_at_home_unless_they_are_asked_for(
    client: httpx.Client, exported: tuple[str, bytes]
) -> None:
    content = client.get(f"/tasks/{exported[0]}/export").content
    with zipfile.ZipFile(io.BytesIO(content)) as zipped:
        assert json.loads(zipped.read("manifest.json"))["version"] == 1  # as older ones read it
    assert inbox(client, imported(client, content).json()["id"]) == []


def test_queries_of_a_file_are_those_of_its_task(exported: tuple[str, bytes]) -> None:
    found = archive.read(exported[1])
    ((query, shown),) = found.queries
    other = replace(query, query_id="q1", clip=replace(query.clip, clip_id="q1"))
    for wrong in (
        replace(query, ranking=query.ranking[:1]),
        replace(query, clip=replace(query.clip, label=2)),
        replace(query, clip=other.clip),
    ):
        with pytest.raises(ExportDamagedError, match="none of this task"):
            archive.read(archive.write(found.record, found.pictures, {}, [(wrong, shown)]))
    for few in ([(query, ())], [(query, shown), (other, ())]):
        with pytest.raises(ExportDamagedError, match="belong together"):
            archive.read(archive.write(found.record, found.pictures, {}, few))


def test_a_task_goes_to_a_checkpoint_of_other_frames(
    exported: tuple[str, bytes], settings: Settings, tmp_path: Path
) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "other", "task_adapter", frames=4)
    with serving(settings.model_copy(update={"checkpoint": str(checkpoint)})) as other:
        answer = imported(other, exported[1])
        assert answer.status_code == 201, answer.text
        task = answer.json()
        (query,) = inbox(other, task["id"])
        assert len(query["frames_s"]) == 4
        assert [len(clip["frames_s"]) for clip in task["clips"]] == [4, 4, 4]
        assert classify(other, task["id"], A)["results"][0]["label"] in ("jump", "wave")


def test_a_task_outlives_a_checkpoint_of_other_frames(settings: Settings, tmp_path: Path) -> None:
    with serving(settings) as http:
        task_id = register(http, {"jump": [A], "wave": [C]})["id"]
    checkpoint = tiny_checkpoint(tmp_path / "other", "task_adapter", frames=4)
    with serving(settings.model_copy(update={"checkpoint": str(checkpoint)})) as http:
        files = [("clip", ("q.mp4", QUERY, "video/mp4"))]
        refused = http.post(f"/tasks/{task_id}/classify", files=files)
        said = problem(refused, 409, "task-incompatible")["detail"]
        assert "export it and import it here" in said
        content = http.get(f"/tasks/{task_id}/export").content
        answer = imported(http, content)
        assert answer.status_code == 201, answer.text
        classify(http, answer.json()["id"], QUERY)
        fewer = http.get(f"/tasks/{answer.json()['id']}/export").content
    with serving(settings) as http:
        classify(http, task_id, QUERY)  # nothing of it was lost
        answer = imported(http, fewer)
        assert answer.status_code == 201, answer.text
        assert [clip["distinct"] for clip in answer.json()["clips"]] == [4, 4]
        classify(http, answer.json()["id"], QUERY)


def test_a_change_of_one_byte_in_any_part_is_noticed(
    client: httpx.Client, exported: tuple[str, bytes]
) -> None:
    content = exported[1]
    with zipfile.ZipFile(io.BytesIO(content)) as zipped:
        entries = zipped.infolist()
    assert len(entries) == 3 + 3 * 8 + 1 + 8
    before = len(client.get("/tasks", params={"limit": 100}).json()["tasks"])
    about_query = [entry for entry in entries if entry.filename.endswith("/query")]
    for entry in (*entries[:4], *about_query, *entries[-2:]):
        data = entry.header_offset + 30 + len(entry.filename.encode())
        for place in (data, data + entry.file_size // 2, data + entry.file_size - 1):
            damaged = bytearray(content)
            damaged[place] ^= 1
            problem(imported(client, bytes(damaged)), 422, "export-damaged")
    assert len(client.get("/tasks", params={"limit": 100}).json()["tasks"]) == before


def packed(files: dict[str, bytes], kind: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_what_is_no_task_is_told_from_what_is_damaged_or_newer(
    client: httpx.Client, exported: tuple[str, bytes]
) -> None:
    content = exported[1]
    with zipfile.ZipFile(io.BytesIO(content)) as zipped:
        files = {name: zipped.read(name) for name in zipped.namelist()}
    about = json.loads(files["manifest.json"])

    def with_manifest(**changes: object) -> bytes:
        manifest = json.dumps({**about, **changes}).encode()
        sums = {"manifest.json": manifest, "checksum": _sha256(manifest).encode()}
        return packed({**files, **sums})

    cases = {
        "export-foreign": [b"", b"not a zip", packed({"a": b"b"}), with_manifest(format="other")],
        "export-newer": [with_manifest(version=3)],
        "export-damaged": [
            content[:-100],
            content[:100],
            content + content,
            b"front" + content,
            packed(files, zipfile.ZIP_DEFLATED),
            packed({name: files[name] for name in [*[*files][:-2], "checksum"]}),
            packed({**files, "more": b"x"}),
            with_manifest(files={}),
        ],
    }
    for code, given in cases.items():
        for one in given:
            problem(imported(client, one), 422, code)
    problem(client.post("/tasks/import", json={}), 415, "media-type-not-supported")
    problem(client.get(f"/tasks/{'0' * 32}/export"), 404, "task-not-found")


def test_a_picture_of_a_file_meets_the_sandbox_first(
    client: httpx.Client, exported: tuple[str, bytes]
) -> None:
    """A file whose sums are right may still hold anything in the place of a picture."""
    found = archive.read(exported[1])
    clip = found.record.clips[1].clip_id
    pictures = {**found.pictures, clip: (b"no picture", *found.pictures[clip][1:])}
    answer = imported(client, archive.write(found.record, pictures, {}))
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.json()["clips"][0]["index"] == 1
    ((query, shown),) = found.queries
    queries = [(query, (b"no picture", *shown[1:]))]
    answer = imported(client, archive.write(found.record, found.pictures, {}, queries))
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.json()["clips"][0]["index"] == 3  # behind the clips
