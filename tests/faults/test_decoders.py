"""F5: a decoder that is killed or hangs while it reads a clip."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import httpx
import pytest
from fastapi import FastAPI

from service.decoding.pool import DecodePool
from service.decoding.process import Decoder
from tests.bench.bars import Bar
from tests.faults.figures import tell
from tests.faults.load import until
from tests.faults.stage import CLIPS
from tests.serving import classify, moving_clip, problem, query_files, register

Served = tuple[httpx.Client, FastAPI]
PATIENT = {"x-request-timeout-ms": "60000"}


@contextmanager
def stopped(pool: DecodePool) -> Iterator[list[Decoder]]:
    """Stop all decoders of a pool; at the end those that are left go on."""
    until(lambda: pool.alive == pool.workers == pool.turns.free, "a pool at rest")
    decoders = [*pool._decoders]
    for decoder in decoders:
        os.kill(decoder.pid, signal.SIGSTOP)
    try:
        yield decoders
    finally:
        for decoder in decoders:
            if decoder.alive:
                os.kill(decoder.pid, signal.SIGCONT)


@pytest.fixture
def task(served: Served) -> str:
    return str(register(served[0], CLIPS)["id"])


def asked(
    threads: ThreadPoolExecutor, client: httpx.Client, task: str, decoders: list[Decoder]
) -> tuple[Future[httpx.Response], Decoder]:
    """Ask about a clip, and tell which decoder has got it."""
    clips = {decoder: decoder.clips for decoder in decoders}
    path, files = f"/tasks/{task}/classify", query_files(moving_clip(8))
    answer = threads.submit(client.post, path, files=files, headers=PATIENT)
    until(lambda: any(each.clips > clips[each] for each in decoders), "a decoder with a clip")
    (busy,) = [each for each in decoders if each.clips > clips[each]]
    return answer, busy


def test_f5_a_killed_decoder_costs_its_clip_alone_and_another_takes_its_place(
    served: Served, task: str
) -> None:
    client, app = served
    pool: DecodePool = app.state.service.pool
    with ThreadPoolExecutor(2) as threads, stopped(pool) as decoders:
        lost, killed = asked(threads, client, task, decoders)
        kept, _ = asked(threads, client, task, decoders)
        os.kill(killed.pid, signal.SIGKILL)
        begun = time.monotonic()
        problem(lost.result(60), 422, "clip-undecodable")
        refused = time.monotonic()
        until(lambda: pool.alive == pool.workers, "a decoder in its place")
        refilled = time.monotonic()
        for decoder in decoders:
            if decoder is not killed:
                os.kill(decoder.pid, signal.SIGCONT)
        assert kept.result(60).status_code == 200
    assert killed not in pool._decoders
    classify(client, task, moving_clip(8))
    tell(
        "F5 killed",
        [
            Bar("the pool is full again after", refilled - begun, "<=", 2, "s"),
            Bar("the clip is refused after", refused - begun, "<=", 2, "s"),
        ],
    )


def test_f5_a_decoder_that_hangs_is_given_up_within_its_limit_and_its_clip_may_be_sent_again(
    served: Served, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, app = served
    pool: DecodePool = app.state.service.pool
    with ThreadPoolExecutor(2) as threads, stopped(pool) as decoders:
        for decoder in decoders:
            monkeypatch.setattr(decoder, "_limits", replace(decoder._limits, wall_s=0.4))
        lost, hung = asked(threads, client, task, decoders)
        refused = lost.result(60)
        assert problem(refused, 503, "decoder-busy")["retryable"]
        assert int(refused.headers["retry-after"]) >= 1
        monkeypatch.undo()
    until(lambda: pool.alive == pool.workers and hung not in pool._decoders, "another decoder")
    classify(client, task, moving_clip(8))
