"""Pictures cut into values of a bounded size, far below the 512 MB that Redis takes.

A chunk's name is `CLIP_ID/NUMBER/COUNT`; it is sealed under the task's id and its name.
"""

from collections.abc import Iterator, Mapping

from service.stores import records, sealing
from service.stores.errors import StoreCorruptError

CHUNK_BYTES = 8 * 2**20


def split_chunks(
    task_id: str, pictures: Mapping[str, tuple[bytes, ...]], size: int = CHUNK_BYTES
) -> dict[str, bytes]:
    """Return the sealed chunks of all clips of a task, by name."""
    chunks: dict[str, bytes] = {}
    for clip_id, frames in pictures.items():
        packed = sealing.pack_pictures(frames)
        starts = range(0, len(packed), size)
        for number, start in enumerate(starts):
            name = f"{clip_id}/{number}/{len(starts)}"
            part = packed[start : start + size]
            chunks[name] = sealing.seal(f"pictures/{task_id}/{name}", part)
    return chunks


def join_chunks(task_id: str, clip_id: str, chunks: Mapping[str, bytes]) -> tuple[bytes, ...]:
    """Return the pictures of one clip from its chunks, in any order.

    Raises:
        StoreCorruptError: a damaged or missing chunk.
    """
    numbered: dict[int, bytes] = {}
    for name, sealed in chunks.items():
        part = sealing.unseal(f"pictures/{task_id}/{name}", sealed)
        _, number, count = name.split("/")
        if int(count) != len(chunks):
            raise records.missing_pictures(task_id, clip_id)
        numbered[int(number)] = part
    if sorted(numbered) != list(range(len(chunks))):
        raise StoreCorruptError(
            f"The pictures of clip {clip_id} of task {task_id} are out of order; "
            "delete the task and register it again."
        )
    return sealing.unpack_pictures(b"".join(numbered[number] for number in sorted(numbered)))


def batches(chunks: Mapping[str, bytes], size: int = CHUNK_BYTES) -> Iterator[dict[str, bytes]]:
    """Group chunks into messages of about `size` bytes."""
    batch: dict[str, bytes] = {}
    held = 0
    for name, value in chunks.items():
        if batch and held + len(value) > size:
            yield batch
            batch, held = {}, 0
        batch[name] = value
        held += len(value)
    if batch:
        yield batch
