"""What the tests of faults share: tiny weights on disk."""

from pathlib import Path

import pytest

from tests.serving import tiny_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def tiny(checkpoint: Path) -> dict[str, str]:
    """Settings of a service process, without its store."""
    return {"checkpoint": str(checkpoint), "threads": "1", "decode_workers": "2"}
