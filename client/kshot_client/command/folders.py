"""Clips in folders of the disk."""

from collections.abc import Iterable
from pathlib import Path

from kshot_client.problems import SettingError

VIDEOS = frozenset({".avi", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mts", ".ts", ".webm"})


def videos_in(folder: Path) -> list[Path]:
    """List the videos below a folder, by their suffix, in order; hidden ones are left out."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in VIDEOS
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def labelled(folder: Path) -> dict[str, list[Path]]:
    """Read a folder of `<label>/<clip>`.

    Raises:
        SettingError: It is none.
    """
    if not folder.is_dir():
        raise SettingError(f"{folder} is no folder; give one of <label>/<clip>.")
    rooms = sorted(
        path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )
    found = {room.name: videos_in(room) for room in rooms}
    empty = [label for label, clips in found.items() if not clips]
    if empty:
        raise SettingError(
            f"The folder of {empty[0]!r} has no video; put clips there, or take it away."
        )
    if not found:
        raise SettingError(
            f"{folder} has no folders; make one for each label and put its clips there."
        )
    return found


def clips_of(paths: Iterable[Path]) -> list[Path]:
    """List files as they are given, and the videos below folders.

    Raises:
        SettingError: A path leads nowhere, or a folder has no video.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = videos_in(path)
            if not inside:
                raise SettingError(f"{path} has no video; give a folder with some, or files.")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise SettingError(f"There is no {path}; check its name.")
    return found
