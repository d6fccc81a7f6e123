"""Who gets the next decoder: a clip to classify before all clips of registrations."""

import asyncio

import pytest

from service.decoding.turns import ClosedError, Turns, WorkClass


def turns(most: int) -> Turns[int]:
    made: Turns[int] = Turns(most)
    for number in range(most):
        made.put(number)
    return made


async def soon() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_registrations_leave_a_decoder_to_classification() -> None:
    three = turns(3)
    held = [await three.take("register") for _ in range(2)]
    third = asyncio.create_task(three.take("register"))
    await soon()
    assert not third.done()
    mine = await asyncio.wait_for(three.take("classify"), 1)
    assert mine not in held
    three.done("register")
    three.put(held[0])
    assert await third == held[0]


async def test_one_decoder_is_everybodys() -> None:
    one = turns(1)
    assert await one.take("register") == 0
    one.done("register")
    one.put(0)
    assert await one.take("classify") == 0


async def test_a_clip_to_classify_goes_before_those_that_waited_longer() -> None:
    one = turns(1)
    await one.take("classify")
    order: list[WorkClass] = []

    async def use(work: WorkClass) -> None:
        free = await one.take(work)
        order.append(work)
        one.done(work)
        one.put(free)

    using = [asyncio.create_task(use(work)) for work in ("register", "register", "classify")]
    await soon()
    one.put(0)
    await asyncio.gather(*using)
    assert order == ["classify", "register", "register"]


async def test_a_registration_is_not_starved_by_clips_to_classify() -> None:
    one = turns(1)
    order: list[WorkClass] = []

    async def use(work: WorkClass) -> None:
        free = await one.take(work)
        order.append(work)
        await soon()
        one.done(work)
        one.put(free)

    using = [asyncio.create_task(use("classify")) for _ in range(8)]
    using += [asyncio.create_task(use("register")) for _ in range(2)]
    await asyncio.gather(*using)
    assert order.index("register") <= 5
    assert order[-1] == "register"


@pytest.mark.parametrize("work", ["classify", "register"])
async def test_a_turn_whose_taker_left_goes_to_the_next(work: WorkClass) -> None:
    one = turns(1)
    await one.take("classify")
    leaving = asyncio.create_task(one.take(work))
    await soon()
    one.put(0)  # its turn has come, and it has not looked yet
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    assert leaving.cancelled()
    assert (one.free, one.registering) == (1, 0)
    waiting = asyncio.create_task(one.take(work))
    await soon()
    assert waiting.done()


async def test_closing_tells_those_who_wait_and_those_who_come() -> None:
    none: Turns[int] = Turns(1)
    waiting = asyncio.create_task(none.take("register"))
    await soon()
    none.close()
    for late in (waiting, none.take("classify")):
        with pytest.raises(ClosedError):
            await late


@pytest.mark.parametrize("work", ["classify", "register"])
async def test_a_tenant_with_many_clips_does_not_stand_before_another(work: WorkClass) -> None:
    one = turns(1)
    order: list[str] = []

    async def use(name: str) -> None:
        free = await one.take(work, name[:5])
        order.append(name)
        one.done(work)
        one.put(free)

    held = await one.take("classify")
    using = [asyncio.create_task(use(f"noisy {number}")) for number in range(20)]
    await soon()
    using += [asyncio.create_task(use(f"quiet {number}")) for number in range(2)]
    using[1].cancel()  # who leaves takes nobody's turn
    await soon()
    one.put(held)
    await asyncio.gather(*using, return_exceptions=True)
    assert order[:5] == ["noisy 0", "quiet 0", "noisy 2", "quiet 1", "noisy 3"]
    assert len(order) == 21
