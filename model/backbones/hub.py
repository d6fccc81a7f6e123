"""Weights from the hub: downloaded once into a named cache, resumed, verified.

A download lies in `CACHE/REPOSITORY/FILE.part`, named for what the hub says of the file, until it
is whole; only then it gets its own name. Another process that wants the same file waits for it.
"""

import errno
import fcntl
import hashlib
import logging
import os
import re
import time
from pathlib import Path
from typing import Any, BinaryIO, Self

from huggingface_hub import HfFileMetadata, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, RepositoryNotFoundError
from huggingface_hub.file_download import http_get

from model.backbones.sources import HubFile
from model.errors import BackboneError

SHA256 = re.compile(r"[0-9a-f]{64}")  # of a large file the hub's tag is its hash
FULL = (errno.ENOSPC, errno.EDQUOT)
LINE_S = 10.0  # between two lines of progress

log = logging.getLogger("kshot.model")


class Lines:
    """Progress as lines in the log, one every 10 s; in the shape of a bar of tqdm.

    Args:
        total: Bytes of the file, where the hub says it.
        initial: Of them, those that are there already.
        desc: The file's name.
        shown: What else a bar would show.
    """

    def __init__(
        self, *, total: int | None = None, initial: int = 0, desc: str = "", **shown: object
    ) -> None:
        del shown
        self.total, self.done, self.desc = total or 0, initial, desc
        self.said = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, count: float = 1) -> None:
        """Count bytes."""
        self.done += int(count)
        if time.monotonic() - self.said >= LINE_S:
            self.said = time.monotonic()
            log.info("%s: %.0f of %.0f MB", self.desc, self.done / 1e6, self.total / 1e6)


def fetch(file: HubFile, cache: Path, bar: type[Any] = Lines) -> Path:
    """Return where a file lies; it is downloaded when it is not there.

    Args:
        file: Which.
        cache: Folder of all downloads; made when it does not exist.
        bar: What shows progress, a class like tqdm's.

    Raises:
        BackboneError: It cannot be had; the sentence says which file to bring and where.
    """
    target = file.path(cache)
    if target.is_file():
        return target
    try:
        _download(file, target, bar)
    except BackboneError:
        raise
    except Exception as error:  # of the hub, the network and the disk, without a common class
        raise BackboneError(_sentence(file, cache, error)) from error
    return target


def _download(file: HubFile, target: Path, bar: type[Any]) -> None:
    url = hf_hub_url(file.repository, file.name)
    about = get_hf_file_metadata(url)  # asks once, where the hub's own download asks for 24 s
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{(about.etag or '')[:16]}.part")
    with part.open("ab") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        if target.is_file():  # another process made it meanwhile
            return
        opened.seek(0, os.SEEK_END)  # or it stopped, after more bytes than there were
        log.info("Downloading %s of %s to %s", file.name, file.repository, target.parent)
        _fill(opened, about, file.name, bar)
        if (reason := _fault(part, about)) is not None:
            opened.truncate(0)  # who waits for the lock has this very file open
            raise BackboneError(
                f"{file.name} of {file.repository} arrived damaged ({reason}); start again."
            )
        part.replace(target)


def _fill(opened: BinaryIO, about: HfFileMetadata, name: str, bar: type[Any]) -> None:
    """Append what is missing of a file."""
    http_get(
        about.location,
        opened,
        resume_size=opened.tell(),
        expected_size=about.size,
        displayed_filename=name,
        tqdm_class=bar,
    )
    opened.flush()


def _fault(part: Path, about: HfFileMetadata) -> str | None:
    """Say how a download differs from what the hub says of it; None where it does not."""
    size = part.stat().st_size
    if about.size is not None and size != about.size:
        return f"{size} bytes instead of {about.size}"
    if about.etag is not None and SHA256.fullmatch(about.etag):
        with part.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
        if found != about.etag:
            return f"its SHA-256 is {found[:12]} instead of {about.etag[:12]}"
    return None


def _sentence(file: HubFile, cache: Path, error: Exception) -> str:
    wanted = f"{file.name} of {file.repository}"
    bring = "bring the file here and name it with KSHOT_BACKBONE_WEIGHTS"
    if isinstance(error, GatedRepoError):
        return f"The hub gives {wanted} after its licence was accepted; log in there, or {bring}."
    if isinstance(error, RepositoryNotFoundError | EntryNotFoundError):
        return f"The hub has no {wanted}; choose other weights, or {bring}."
    if isinstance(error, OSError) and (error.filename or error.errno in FULL):
        return (
            f"{wanted} cannot be written to {cache} ({error.strerror}); free some room there, or "
            "set KSHOT_MODEL_CACHE to another folder."
        )
    first = (str(error) or type(error).__name__).splitlines()[0]
    return (
        f"{wanted} is not in {cache}, and the hub cannot be reached ({first}); {bring}, or run "
        "`make models MODEL=NAME` where there is a network and bring that folder."
    )
