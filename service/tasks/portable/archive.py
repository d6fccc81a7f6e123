"""The file of a task: a zip of its record, its pictures and their checksums.

    manifest.json      what this is, its version, and the SHA-256 of every other file but the last
    task.json          the record
    pictures/ID/NN     the pictures of each clip, as they are kept
    inbox/ID/NN        those of remembered queries, of which inbox/ID/query tells the rest
    checksum           the SHA-256 of manifest.json

Nothing is packed, so a file is as long as what it holds. What is read is untrusted: nothing here
decodes a picture, and names of files are never used as paths.
"""

import hashlib
import io
import json
import zipfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.stores import records
from service.stores.errors import StoreCorruptError
from service.stores.inboxes import kept
from service.stores.inboxes.kept import Query
from service.stores.inboxes.policy import MOST_KEPT
from service.stores.protocol import Pictures
from service.stores.records import TaskRecord
from service.tasks.portable.errors import (
    ExportDamagedError,
    ExportForeignError,
    ExportNewerError,
)

FORMAT, VERSION = "kshot-task", 1
VERSION_WITH_QUERIES = 2  # what read version 1 alone would call such a file damaged
MANIFEST, TASK, CHECKSUM = "manifest.json", "task.json", "checksum"
INBOX = "inbox/"
MOST_FILES = 20_000
DATE = (2026, 1, 1, 0, 0, 0)  # the same task gives the same bytes


@dataclass(frozen=True, slots=True)
class Exported:
    """A task out of a file."""

    record: TaskRecord
    pictures: Pictures
    queries: tuple[Query, ...] = ()


def write(
    record: TaskRecord, pictures: Pictures, model: Mapping[str, Any], queries: Sequence[Query] = ()
) -> bytes:
    """Return a task as a file.

    Args:
        record: The task.
        pictures: Of its clips.
        model: What served it; for people.
        queries: That it remembers.
    """
    files = {TASK: records.to_json(record)}
    for clip_id, shown in pictures.items():
        files |= {f"pictures/{clip_id}/{place:02}": one for place, one in enumerate(shown)}
    for query, shown in queries:
        start = f"{INBOX}{query.query_id}/"
        files[f"{start}query"] = kept.to_json(query)
        files |= {f"{start}{place:02}": one for place, one in enumerate(shown)}
    about = {
        "format": FORMAT,
        "version": VERSION_WITH_QUERIES if queries else VERSION,
        "model": dict(model),
        "files": {name: _sha256(content) for name, content in files.items()},
    }
    manifest = json.dumps(about, indent=1).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in {
            MANIFEST: manifest,
            **files,
            CHECKSUM: _sha256(manifest).encode(),
        }.items():
            archive.writestr(zipfile.ZipInfo(name, DATE), content)
    return buffer.getvalue()


def read(content: bytes) -> Exported:
    """Read a task out of a file.

    Raises:
        ExportForeignError: It is no such file.
        ExportNewerError: It is of a later version.
        ExportDamagedError: It is not as it was written.
    """
    files = _files(content)
    about = _manifest(files)
    listed: Mapping[str, str] = about["files"]
    if sorted(listed) != sorted(files):
        missing = sorted(listed.keys() ^ files.keys())[0]
        raise _damaged(f"{missing[:80]!r} is missing, or is not listed")
    for name, digest in listed.items():
        if _sha256(files[name]) != digest:
            raise _damaged(f"{name[:80]!r} fails its checksum")
    try:
        record = records.from_json(files.pop(TASK))
    except (KeyError, StoreCorruptError) as error:
        raise _damaged("its record cannot be read") from error
    of_queries = {name: files.pop(name) for name in sorted(files) if name.startswith(INBOX)}
    return Exported(record, _pictures(record, files), _queries(record, of_queries))


def _pictures(record: TaskRecord, files: Mapping[str, bytes]) -> Pictures:
    found: dict[str, tuple[bytes, ...]] = {}
    for clip in record.clips:
        start = f"pictures/{clip.clip_id}/"
        found[clip.clip_id] = tuple(files[name] for name in sorted(files) if name.startswith(start))
        if not found[clip.clip_id] or not 0 <= clip.label < len(record.labels):
            raise _damaged(f"clip {clip.clip_id!r} has no pictures or no label")
    if record.state != "decoded" or sum(map(len, found.values())) != len(files):
        raise _damaged("its record and its pictures do not belong together")
    return found


def _queries(record: TaskRecord, files: Mapping[str, bytes]) -> tuple[Query, ...]:
    shown: dict[str, list[bytes]] = defaultdict(list)
    about: dict[str, bytes] = {}
    for name, content in files.items():  # in order
        query_id, _, part = name.removeprefix(INBOX).partition("/")
        if part == "query":
            about[query_id] = content
        else:
            shown[query_id].append(content)
    if about.keys() != shown.keys() or len(about) > MOST_KEPT:
        raise _damaged("its remembered queries and their pictures do not belong together")
    found = []
    for query_id, document in about.items():
        try:
            query = kept.from_json(document)
        except StoreCorruptError as error:
            raise _damaged(f"its remembered query {query_id[:80]!r} cannot be read") from error
        known = query.query_id == query.clip.clip_id == query_id
        if not known or len(query.ranking) < 2 or query.clip.label >= len(record.labels):
            raise _damaged(f"its remembered query {query_id[:80]!r} is none of this task")
        found.append((query, tuple(shown[query_id])))
    return tuple(sorted(found, key=lambda query: query[0].at))


def _files(content: bytes) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            names = [entry.filename for entry in entries]
            if MANIFEST not in names:
                raise ExportForeignError(
                    "The zip file is no task that kshot exported: it has no manifest.json; send "
                    "what GET /tasks/{id}/export gave."
                )
            packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
            total = sum(entry.file_size for entry in entries)
            if packed or len(set(names)) != len(names) or len(names) > MOST_FILES:
                raise _damaged("it was packed anew, or has a file twice")
            if min(entry.header_offset for entry in entries):
                raise _damaged("something stands in front of its files")
            if total > len(content):
                raise _damaged("its files are longer than it is")
            return {entry.filename: archive.read(entry) for entry in entries}
    except zipfile.BadZipFile as error:
        if content.startswith(b"PK"):
            raise _damaged("its zip structure is torn") from error
        raise ExportForeignError(
            f"The {len(content)} bytes are no zip file; send what the export of a task gave."
        ) from error
    except (NotImplementedError, RuntimeError, OSError, ValueError, EOFError) as error:
        raise _damaged("its zip structure is torn") from error


def _manifest(files: dict[str, bytes]) -> dict[str, Any]:
    manifest, checksum = files.pop(MANIFEST), files.pop(CHECKSUM, b"")
    try:
        about = json.loads(manifest)
    except (ValueError, RecursionError) as error:
        raise _damaged("its manifest is no JSON") from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        if checksum == _sha256(manifest).encode():
            raise ExportForeignError(
                "The zip file was not exported by kshot; send what the export of a task gave."
            )
        raise _damaged("its manifest fails its checksum")
    if checksum != _sha256(manifest).encode():
        raise _damaged("its manifest fails its checksum")
    version = about.get("version")
    if version not in (VERSION, VERSION_WITH_QUERIES):
        raise ExportNewerError(
            f"The file has version {version!r} and this service reads {VERSION_WITH_QUERIES}; "
            "import it with a later version of kshot."
        )
    listed = about.get("files")
    if not isinstance(listed, dict) or TASK not in listed:
        raise _damaged("its manifest lists no record")
    return about


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _damaged(how: str) -> ExportDamagedError:
    return ExportDamagedError(f"The file is damaged: {how}; export the task again.")
