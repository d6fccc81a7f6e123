"""One tiny service for the tests that only ask it."""

import io
from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import httpx
import numpy as np
import pytest
import uvloop
from PIL import Image

from model.recognizer import Recognizer
from service.engine.runtimes.pytorch import TorchRuntime
from service.settings import Settings
from tests.limited import Limited, locked_app
from tests.redis_server import redis_server
from tests.serving import moving_clip, serving, tiny_checkpoint


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], AbstractEventLoop]]:
    """Run coroutines on the loop that serves."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def clip() -> bytes:
    return moving_clip(1)


@pytest.fixture(scope="session")
def clips() -> dict[str, list[bytes]]:
    """Ragged supports of three labels."""
    return {
        "jump": [moving_clip(10), moving_clip(11)],
        "wave": [moving_clip(20)],
        "pour": [moving_clip(30), moving_clip(31), moving_clip(32)],
    }


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the address of a SQLite file and of a real Redis, for a module alone."""
    folder = tmp_path_factory.mktemp("stores")
    if request.param == "sqlite":
        yield f"sqlite:{folder}/kshot.db"
        return
    with redis_server(folder / "redis") as server:
        yield server.url


@pytest.fixture(scope="module")
def limited(url: str, checkpoint: Path) -> Iterator[Limited]:
    """Serve tenants with quotas."""
    with locked_app(url, checkpoint, quota_tasks=1000) as (app, http):
        yield Limited(url, app, http)


@pytest.fixture
def settings(checkpoint: Path, tmp_path: Path) -> Settings:
    return Settings(
        checkpoint=str(checkpoint),
        store=f"sqlite:{tmp_path / 'kshot.db'}",
        threads=1,
        decode_workers=1,
    )


@pytest.fixture
def serve_instead(monkeypatch: pytest.MonkeyPatch) -> Callable[[Recognizer], None]:
    """Have a recognizer served as it is: copies and traces would lack what a test hung into it."""

    def serve(recognizer: Recognizer) -> None:
        monkeypatch.setattr("service.container.load_model", lambda *_: recognizer)
        monkeypatch.setattr("service.engine.passes.choice.plain_torch", TorchRuntime)
        monkeypatch.setattr("service.engine.passes.choice.reduced_torch", lambda *_, **__: [])

    return serve


@pytest.fixture(scope="session")
def client(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    store = tmp_path_factory.mktemp("http") / "store"
    settings = Settings(
        checkpoint=str(checkpoint), store=f"sqlite:{store}", threads=1, decode_workers=2
    )
    with serving(settings) as client:
        yield client


@pytest.fixture(scope="session")
def pictures() -> list[bytes]:
    """Ten PNG pictures in order."""
    rng = np.random.default_rng(5)
    shown = [rng.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(10)]
    return [png(picture) for picture in shown]


def png(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()
