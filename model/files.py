"""Writing a file whole or not at all, so that it outlasts a crash and a loss of power."""

import os
import secrets
from pathlib import Path


def write_file(path: Path, content: bytes) -> None:
    """Put a file in place of what is there; its folder is made where none is.

    When this returns, the new content survives the machine's loss of power. At every moment before,
    a reader finds the old file or the new one, never a part.

    Raises:
        OSError: It cannot be written, as on a full disk; what was there before stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk: a rename lasts once its folder does."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
