"""A registration reads the headers of all clips before it decodes any."""

import pytest

from service.decoding.pool import ClipRequest
from service.errors import ClipsRefusedError
from service.limits import limits_of
from service.settings import Settings
from service.tasks.allowance import Allowance, Cost, Deadline, Ledger
from service.tasks.inputs import ClipInput, NewLabel, NewTask
from service.tasks.register import Tasks
from tests.pools import VIDEO, make_pool


def task_of(*videos: bytes, allow_partial: bool = False) -> NewTask:
    clips = [ClipInput(k, ClipRequest(video=video)) for k, video in enumerate(videos)]
    half = len(clips) // 2
    labels = (
        NewLabel("one", None, tuple(clips[:half])),
        NewLabel("two", None, tuple(clips[half:])),
    )
    return NewTask(name=None, ttl_s=None, allow_partial=allow_partial, labels=labels)


@pytest.mark.parametrize("allow_partial", [False, True])
async def test_a_clip_that_its_header_gives_away_is_refused_before_any_is_decoded(
    allow_partial: bool,
) -> None:
    async with make_pool() as pool:
        decoded: list[ClipRequest] = []
        decode = pool.decode

        async def noting(clip: ClipRequest, work: str, _: str) -> object:
            decoded.append(clip)
            return await decode(clip, work)  # type: ignore[arg-type]

        pool.decode = noting  # type: ignore[assignment,method-assign]
        tasks = Tasks(
            store=None,  # type: ignore[arg-type]
            pool=pool,
            arrivals=None,  # type: ignore[arg-type]
            supports=None,  # type: ignore[arg-type]
            texts=None,  # type: ignore[arg-type]
            limits=limits_of(Settings()),
        )
        ledger = Ledger(Cost(bytes=10**9, decode_ms=10**9, frames=10**9), share=1.0)
        with ledger.take("", Cost(bytes=1)) as credits:
            allowance = Allowance("", Deadline.after(30), credits)
            task = task_of(VIDEO, VIDEO, VIDEO, b"no video", allow_partial=False)
            if allow_partial:  # label two keeps no clip, so leaving it out does not help
                task = task_of(VIDEO, b"no video", allow_partial=True)
            with pytest.raises(ClipsRefusedError) as refused:
                await tasks.register(task, 0.0, allowance)
        assert [fault.index for fault in refused.value.clips] == [1 if allow_partial else 3]
        assert not decoded
