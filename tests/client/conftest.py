"""A tiny service, clips on disk, and both clients of it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kshot_client import Client
from service.settings import Settings
from tests.serving import moving_clip, serving, tiny_checkpoint


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("served")
    settings = Settings(
        checkpoint=str(tiny_checkpoint(folder / "checkpoint")),
        store=f"sqlite:{folder / 'store'}",
        threads=1,
        decode_workers=1,
    )
    with serving(settings) as http:
        yield str(http.base_url)


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder of <label>/<clip>, one label of which is no word."""
    folder = tmp_path_factory.mktemp("clips")
    for place, path in enumerate(("jump/a.mp4", "jump/b.mp4", "wave [slowly]/c.mp4")):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(moving_clip(place))
    (folder / "jump" / "notes.txt").write_text("no video")
    return folder


@pytest.fixture(scope="session")
def support(clips: Path) -> dict[str, list[Path]]:
    return {room.name: sorted(room.glob("*.mp4")) for room in sorted(clips.iterdir())}


@pytest.fixture(scope="session")
def query(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("query") / "q.mp4"
    path.write_bytes(moving_clip(7))
    return path


@pytest.fixture(scope="session", autouse=True)
def _no_settings() -> None:
    for name in ("KSHOT_URL", "KSHOT_API_KEY"):
        os.environ.pop(name, None)


@pytest.fixture(scope="session")
def client(url: str) -> Iterator[Client]:
    with Client(url) as client:
        yield client
