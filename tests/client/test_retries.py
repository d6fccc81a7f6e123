"""What is sent again, and when; a proxy before the real service makes the faults."""

from collections.abc import Generator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpx
import pytest

from kshot_client import AsyncClient, Client, NoAnswerError, ProblemError, Retries
from kshot_client.calls import Call, Pause, Send
from kshot_client.events import Events
from kshot_client.problems import reset_s, retry_after_s
from kshot_client.retries import persistent
from tests.client.faulty import ANSWERED, CUT, LOST, PROBLEM, faulty

SOON = Retries(most=3, first_s=0.01)
Support = dict[str, list[Path]]


def test_a_registration_outlives_a_busy_service_and_a_broken_connection(
    url: str, support: Support
) -> None:
    with faulty(url, ANSWERED, CUT) as proxy, Client(proxy.url, retries=SOON) as client:
        made = client.register(support, name="patient")
    assert made.status == "ready"
    assert len(proxy.requests) == 3
    keys = proxy.heads("idempotency-key")
    assert keys[0]
    assert len(set(keys)) == 1, "it is the same request to the service"
    bodies = [request.partition(b"\r\n\r\n")[2] for request in proxy.requests]
    assert len({len(body) for body in bodies}) == 1
    assert support["jump"][0].read_bytes() in bodies[-1]


async def test_the_client_for_asyncio_does_so_too(url: str, support: Support) -> None:
    with faulty(url, ANSWERED, LOST) as proxy:
        async with AsyncClient(proxy.url, retries=SOON) as client:
            made = await client.register(support)
    assert made.status == "ready"
    assert len(proxy.requests) == 3


def test_a_change_whose_answer_is_lost_is_not_made_twice(url: str, support: Support) -> None:
    with Client(url) as direct:
        made = direct.register(support)
        with (
            faulty(url, LOST) as proxy,
            Client(proxy.url, retries=SOON) as client,
            pytest.raises(NoAnswerError, match="got no answer"),
        ):
            client.rename_label(made.id, "jump", "leap")
        assert len(proxy.requests) == 1
        assert direct.task(made.id).labels[0].label == "leap"


def test_tries_have_an_end(url: str) -> None:
    with faulty(url, *[ANSWERED] * 9) as proxy, Client(proxy.url, retries=SOON) as client:
        with pytest.raises(ProblemError) as caught:
            client.info()
        assert caught.value.code == "server-full"
        assert len(proxy.requests) == 1 + SOON.most
    with (
        Client("http://127.0.0.1:9", retries=SOON) as client,  # nobody listens there
        pytest.raises(NoAnswerError, match="check the address"),
    ):
        client.health()


def test_events_are_read_however_their_bytes_are_parted() -> None:
    read = Events()
    assert list(read.feed("event: begun\r\ndata: {")) == []
    assert list(read.feed('"a": 1}\n\nevent: span\ndata: "\u2028"\n\n: nothing\n\nevent: e')) == [
        ("begun", '{"a": 1}'),
        ("span", '"\u2028"'),
    ]


def asked(call: Call, answers: list[httpx.Response | Exception], retries: Retries) -> list[object]:
    """Carry out a request against given answers; gives its steps and what it came to."""

    def flow() -> Generator[Any, Any, object]:
        return (yield Send(call))

    steps, found = persistent(flow(), retries), list[object]()
    try:
        step = next(steps)
        while True:
            found.append(step)
            if isinstance(step, Pause):
                step = steps.send(None)
            elif isinstance(answer := answers.pop(0), Exception):
                step = steps.throw(answer)
            else:
                step = steps.send(answer)
    except StopIteration as end:
        return [*found, end.value]
    except (ProblemError, NoAnswerError) as error:
        return [*found, error]


def answer(status: int, content: bytes = b"{}", **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = httpx.Request("GET", "http://here/v1/info")
    return httpx.Response(status, content=content, headers=named, request=request)


READ, CHANGE = Call("GET", "/v1/info", repeatable=True), Call("PATCH", "/v1/tasks/t")
FULL = {"content_type": "application/problem+json"}


def test_a_pause_is_as_long_as_the_service_asks() -> None:
    full = answer(503, PROBLEM, retry_after="7", **FULL)
    steps = asked(READ, [full, answer(200)], Retries())
    assert steps[1] == Pause(7.0)
    late = answer(503, PROBLEM, retry_after="700", **FULL)
    assert isinstance(asked(READ, [late], Retries())[-1], ProblemError)


def test_pauses_grow_and_differ() -> None:
    retries = Retries(first_s=1.0, longest_s=6.0)
    pauses = [[retries.pause_s(tried, None) or 0.0 for _ in range(50)] for tried in range(4)]
    for tried, found in enumerate(pauses):
        longest = min(6.0, 2.0**tried)
        assert longest / 2 <= min(found) < max(found) <= longest
    assert retries.pause_s(4, None) is None


def test_only_what_may_help_is_sent_again() -> None:
    refused = answer(404, PROBLEM.replace(b"true", b"false"), **FULL)
    assert len(asked(READ, [refused], Retries())) == 2
    proxys = answer(502, b"<html>bad gateway</html>")
    assert isinstance(asked(READ, [proxys, answer(200)], Retries())[1], Pause)
    lost, unsent = httpx.ReadError("lost"), httpx.ConnectError("refused")
    assert isinstance(asked(READ, [lost, answer(200)], Retries())[1], Pause)
    assert isinstance(asked(CHANGE, [lost], Retries())[-1], NoAnswerError)
    assert isinstance(asked(CHANGE, [unsent, answer(200)], Retries())[1], Pause)


def test_an_answer_of_something_else_is_told_as_such() -> None:
    found = asked(READ, [answer(418, b"<h1>I am\n a teapot</h1>")], Retries())[-1]
    assert isinstance(found, ProblemError)
    assert (found.code, found.retryable) == ("http-418", False)
    assert "'<h1>I am a teapot</h1>', which is no answer of kshot" in found.detail


def test_retry_after_is_seconds_or_a_date() -> None:
    assert retry_after_s("3") == 3.0
    assert retry_after_s("") is None
    assert retry_after_s("soon") is None
    assert retry_after_s(formatdate(0, usegmt=True)) == 0.0


def test_a_quota_without_retry_after_is_waited_for_by_its_own_field() -> None:
    spent = {"ratelimit": '"tasks";r=3, "frames";r=0;t=12, "day;t=99";r=0;t=7'}
    limited = httpx.Response(
        429,
        content=PROBLEM,
        headers={"content-type": FULL["content_type"], **spent},
        request=httpx.Request("GET", "http://here/v1/info"),
    )
    assert asked(READ, [limited, answer(200)], Retries())[1] == Pause(12.0)
    both = answer(429, PROBLEM, retry_after="3", **FULL)
    assert asked(READ, [both, answer(200)], Retries())[1] == Pause(3.0)
    assert [reset_s(header) for header in ("", '"a";r=1', "default;r=5;t=30", "a;t=x")] == [
        None,
        None,
        30.0,
        None,
    ]
