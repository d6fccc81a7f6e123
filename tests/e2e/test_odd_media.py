"""Odd and broken media as support and as query: an answer or a refusal, and never a restart."""

import logging
import os
import random
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.forked import ForkedService
from tests.serving import moving_clip, problem, query_files, register, support_files

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
ODD = Path(os.environ.get("KSHOT_SHARED", ROOT.parent / "shared")) / "media" / "odd"
PATIENT = {"x-request-timeout-ms": "60000"}
GOOD = [moving_clip(1), moving_clip(2)]


@pytest.fixture(scope="module")
def service(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkedService]:
    folder = tmp_path_factory.mktemp("odd")
    settings = {"checkpoint": str(checkpoint), "store": f"sqlite:{folder / 'kshot.db'}"}
    process = ForkedService(settings, folder / "log")
    try:
        yield process
    finally:
        process.stop()


@pytest.fixture
def client(service: ForkedService) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=120) as client:
        yield client


@pytest.mark.timeout(600)
def test_every_odd_file_is_answered_and_the_service_never_restarts(
    service: ForkedService, client: httpx.Client
) -> None:
    files = sorted(path for path in ODD.glob("*") if path.suffix != ".tsv")
    if not files:
        pytest.skip(f"{ODD} is not here: no odd media to post")
    task_id = register(client, {"one": GOOD[:1], "two": GOOD[1:]})["id"]

    def post(path: Path) -> tuple[httpx.Response, httpx.Response]:
        odd = path.read_bytes()
        support = support_files({"odd": [odd], "two": GOOD[1:]})
        return (
            client.post("/tasks", files=support),
            client.post(f"/tasks/{task_id}/classify", files=query_files(odd), headers=PATIENT),
        )

    taken, refused = [], []
    with ThreadPoolExecutor(2) as threads:
        for path, answers in zip(files, threads.map(post, files), strict=True):
            statuses = [answer.status_code for answer in answers]
            assert all(200 <= status < 300 or 400 <= status < 500 for status in statuses), path.name
            codes = {answer.json().get("code") for answer in answers}
            assert len(codes) == 1, (path.name, codes)
            (taken if statuses[0] == 201 else refused).append(path.name)
            if statuses[0] != 201:
                assert codes != {None}, path.name
                assert [c["index"] for c in answers[0].json()["clips"]] == [0]
    log.info("%d files taken, %d refused", len(taken), len(refused))
    assert len(taken) >= 40  # most of the files are sound
    assert len(refused) >= 20
    assert service.alive
    assert client.get("/livez").json()["ok"]
    restarts = [line for line in service.log_lines() if line["message"].startswith("Serving")]
    assert len(restarts) == 1


@contextmanager
def listening() -> Iterator[tuple[int, list[bytes]]]:
    """Listen, and keep what connects."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        done = threading.Event()

        def accept() -> None:
            while not done.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                with connection:
                    heard.append(connection.recv(100))

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield server.getsockname()[1], heard
        finally:
            done.set()
            thread.join()


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n",
    "hls master": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{target}\n",
    "concat": "ffconcat version 1.0\nfile '{target}'\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT1S"><Period><AdaptationSet mimeType="video/mp4">'
    '<Representation id="1" bandwidth="1"><BaseURL>{target}</BaseURL></Representation>'
    "</AdaptationSet></Period></MPD>",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
    "m=video {port} RTP/AVP 96\n",
    "svg": '<svg xmlns="http://www.w3.org/2000/svg"><image href="{target}"/></svg>',
}


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_a_playlist_posted_as_a_clip_opens_nothing(
    client: httpx.Client, tmp_path: Path, kind: str
) -> None:
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(GOOD[0])
    task_id = register(client, {"one": GOOD[:1], "two": GOOD[1:]})["id"]
    with listening() as (port, heard):
        for target in (f"http://127.0.0.1:{port}/a.ts", f"file://{secret}", str(secret)):
            playlist = PLAYLISTS[kind].format(target=target, port=port).encode()
            for padded in (playlist, playlist + bytes(5000)):
                answer = client.post(
                    "/tasks", files=support_files({"odd": [padded], "two": GOOD[1:]})
                )
                problem(answer, 415, "container-not-allowed")
                answer = client.post(f"/tasks/{task_id}/classify", files=query_files(padded))
                problem(answer, 415, "container-not-allowed")
    assert not heard


def test_damaged_clips_are_refused_or_read_but_never_fatal(
    service: ForkedService, client: httpx.Client
) -> None:
    """Bytes flipped all over a sound clip, with fixed seeds."""

    task_id = register(client, {"one": GOOD[:1], "two": GOOD[1:]})["id"]
    before = service.pid
    for seed in range(30):
        rng = random.Random(seed)
        damaged = bytearray(GOOD[seed % 2])
        for _ in range(rng.randint(1, 200)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        files = query_files(bytes(damaged))
        answer = client.post(f"/tasks/{task_id}/classify", files=files, headers=PATIENT)
        assert answer.status_code == 200 or 400 <= answer.status_code < 500, answer.text
    assert service.pid == before
    assert service.alive
