"""A file is whole or not there, and nothing else is left behind."""

import os
from pathlib import Path

import pytest

from model.files import write_file


def test_file_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    for content in (b"old and longer", b"new"):
        write_file(tmp_path / "made" / "file", content)
    assert (tmp_path / "made" / "file").read_bytes() == b"new"
    assert os.listdir(tmp_path / "made") == ["file"]  # noqa: PTH208


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_failed_write_leaves_the_old_file_alone(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    write_file(tmp_path / "file", b"old")
    monkeypatch.setattr(*{"fsync": (os, "fsync"), "replace": (Path, "replace")}[step], full)
    with pytest.raises(OSError, match="No space"):
        write_file(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_content_then_name_reach_the_disk_in_this_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        steps.append(
            "folder" if os.path.samestat(os.fstat(descriptor), tmp_path.stat()) else "file"
        )
        fsync(descriptor)

    def renamed(self: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    write_file(tmp_path / "file", b"content")
    assert steps == ["file", "rename", "folder"]
