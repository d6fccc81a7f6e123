"""Files and folders that are there whole or not at all, and stay after a loss of power."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

ASIDE = ".aside-"  # being written; a crash leaves it, the next opening sweeps it
TRASH = ".trash-"  # being removed; likewise


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make a folder with these files, durably and all at once, where none is.

    Raises:
        OSError: nothing was made; FileExistsError or ENOTEMPTY when the folder is there.
    """
    aside = folder.with_name(ASIDE + secrets.token_hex(8))
    try:
        aside.mkdir(mode=0o700)
        for name, content in files.items():
            (aside / name).write_bytes(content)
        for name in files:  # after all writes: the first fsync carries most of the others
            sync(aside / name)
        sync(aside)
        aside.rename(folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    try:
        sync(folder.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            remove_folder(folder)
        raise


def write_file(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Put a file in place of what is there, all at once; on failure the old one stays."""
    aside = path.with_name(ASIDE + secrets.token_hex(8))
    try:
        aside.write_bytes(content)
        if durable:
            sync(aside)
        aside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise
    if durable:
        sync(path.parent)


def remove_folder(folder: Path) -> None:
    """Make a folder vanish durably and at once; its files are removed after that.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    trash = folder.with_name(TRASH + secrets.token_hex(8))
    folder.rename(trash)
    sync(folder.parent)
    shutil.rmtree(trash, ignore_errors=True)


def sweep_leftovers(folder: Path) -> int:
    """Remove what crashes left in a folder that nobody else writes to; return how many."""
    leftovers = [path for path in folder.iterdir() if path.name.startswith((ASIDE, TRASH))]
    for path in leftovers:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return len(leftovers)
