"""Decodes the clips of a request in the pool, and says of each that fails why."""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence

from model.errors import ClipError
from model.media.sampling import Clip
from service.decoding.pool import ClipRequest, DecodePool
from service.errors import ClipFault, ClipsRefusedError
from service.tasks.drafts import ClipDraft


async def decode_clips(
    pool: DecodePool, drafts: Sequence[ClipDraft], labels: Mapping[int, str] | None = None
) -> tuple[dict[int, Clip], list[ClipFault]]:
    """Decode clips, no more at once than the pool has workers, so that requests take turns.

    Args:
        pool: The sandboxed decoders.
        drafts: The clips.
        labels: Label by index of clip, for the faults.

    Returns:
        The clips by index, and the faults in the order of the request.
    """
    turns = asyncio.Semaphore(pool.workers)

    async def decode(draft: ClipDraft) -> Clip | ClipFault:
        try:
            if isinstance(draft.source, ClipError):
                raise draft.source
            async with turns:
                return await pool.decode(draft.source)
        except ClipError as error:
            return ClipFault(draft.index, (labels or {}).get(draft.index), error)

    decoding = [asyncio.create_task(decode(draft)) for draft in drafts]
    try:
        outcomes = await asyncio.gather(*decoding)
    finally:
        for task in decoding:
            task.cancel()  # where one failed for a reason of ours, the others are not wanted
    clips = {
        draft.index: outcome
        for draft, outcome in zip(drafts, outcomes, strict=True)
        if isinstance(outcome, Clip)
    }
    faults = [outcome for outcome in outcomes if isinstance(outcome, ClipFault)]
    return clips, sorted(faults, key=lambda fault: fault.index)


def refuse_clips(faults: Sequence[ClipFault], of: int, hint: str = "") -> ClipsRefusedError:
    """Make the refusal of a request whose clips cannot be used.

    Args:
        faults: One or more.
        of: How many clips the request has.
        hint: A further remedy.
    """
    first = faults[0]
    which = f"Clip {first.index}" + (f" (label {first.label!r})" if first.label else "")
    others = f"; {len(faults) - 1} more of {of} cannot be used either" if len(faults) > 1 else ""
    return ClipsRefusedError(f"{which}: {str(first.error).rstrip('.')}{others}{hint}.", faults)


def digest(source: ClipRequest) -> str:
    """Return the SHA-256 of an upload, to find duplicates by."""
    parts = source.pictures if source.video is None else (source.video,)
    sha = hashlib.sha256()
    for part in parts:
        sha.update(len(part).to_bytes(8, "big") + part if source.video is None else part)
    return sha.hexdigest()
