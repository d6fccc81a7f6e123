"""What the tests of faults share: tiny weights on disk, one service."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from service.app import create_app
from service.settings import Settings
from tests.serving import serving_app, tiny_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def tiny(checkpoint: Path) -> dict[str, str]:
    """Settings of a service process, without its store."""
    return {"checkpoint": str(checkpoint), "threads": "1", "decode_workers": "2"}


@pytest.fixture(scope="session")
def served(
    checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[httpx.Client, FastAPI]]:
    """A service in this process, so that its inside can be looked at and harmed."""
    store = tmp_path_factory.mktemp("served") / "kshot.db"
    settings = Settings(
        checkpoint=str(checkpoint), store=f"sqlite:{store}", threads=1, decode_workers=2
    )
    app = create_app(settings)
    with serving_app(app) as client:
        yield client, app
