"""What the end-to-end tests share: tiny weights on disk, small clips."""

from pathlib import Path

import pytest

from tests.serving import tiny_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))
