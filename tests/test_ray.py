"""The service on Ray Serve: what engines and ingresses say to each other.

CI does not install Ray, which takes 237 MB: what needs it is skipped there.
"""

import asyncio
import contextlib
import gc
import importlib.util
import inspect
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import CodeType
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from deploy.local_service import ROOT, free_port
from deploy.ray import hosting
from deploy.ray.hosting import EngineHost
from deploy.ray.listening import listen_while_it_lives, shared_socket
from deploy.ray.remote import RemoteEngine
from model.diagnosis.splits import Split
from model.episode import Memory
from model.errors import KshotError
from model.text import template_stages
from service.app import create_app
from service.background import until
from service.container import choose_runtime
from service.engine.engine import Engine
from service.engine.passes.choice import Choice
from service.engine.window_work import Reel
from service.errors import DeadlineError, EngineError, SettingsError
from service.settings import Settings
from tests.frozen import freeze_again
from tests.model.tiny import clips
from tests.redis_server import redis_server
from tests.serving import classify, moving_clip, register, tiny_checkpoint


class Straight:
    """Asks a host of this process, and notes which methods were asked for."""

    def __init__(self, host: EngineHost) -> None:
        self.host = host
        self.loop = asyncio.get_running_loop()
        self.methods: list[str] = []
        self.slow_s = 0.0  # that an answer takes

    async def __call__(self, method: str, *arguments: object) -> Any:  # noqa: ANN401
        self.methods.append(method)
        await asyncio.sleep(self.slow_s)
        return await getattr(self.host, method)(*arguments)

    def now(self, method: str, *arguments: object) -> Any:  # noqa: ANN401
        return asyncio.run_coroutine_threadsafe(self(method, *arguments), self.loop).result(20)

    async def engines(self) -> int:
        return 3


async def opened(host: EngineHost, source: str) -> tuple[RemoteEngine, Straight]:
    ask = Straight(host)
    return RemoteEngine(ask, source, await ask("facts", source), host.settings), ask


async def test_an_engine_elsewhere_answers_as_one_here_and_is_sent_supports_once(
    tmp_path: Path,
) -> None:
    source = str(tiny_checkpoint(tmp_path / "one"))
    host = EngineHost(Settings(checkpoint=source, threads=1))
    away, ask = await opened(host, source)
    here = (await host._of(source)).engine
    frames = clips(4, seed=3).numpy()
    labels = ("jump", "wave")
    stages = [template_stages(label, here.model.stages) for label in labels]
    text = await away.encode_text(labels, stages)
    support = await away.encode_support(frames[:3], [0, 0, 1], text)
    direct = await here.encode_support(frames[:3], [0, 0, 1], text)
    assert support.bytes == direct.bytes
    assert away.support_bytes([0, 0, 1]) == here.support_bytes([0, 0, 1])
    ask.methods.clear()
    (found,), (wanted,) = (
        await away.classify(frames[3:], support),
        await here.classify(frames[3:], direct),
    )
    assert found.scores.logits_N == pytest.approx(wanted.scores.logits_N, abs=1e-5)
    await away.classify(frames[3:], support)
    assert ask.methods == ["classify"] * 3  # the first of which did not have the supports
    again = await away.read_support(await away.write_support(support))
    await away.classify(frames[3:], again)
    assert ask.methods == ["classify"] * 4
    assert await asyncio.to_thread(away.text_fault, "jump", stages[0]) is None
    with pytest.raises(DeadlineError):
        await away.classify(frames[3:], support, deadline=0.0)

    seen, shown = (
        await away.explain(frames[3], support, 1),
        await here.explain(frames[3], direct, 1),
    )
    assert (seen.grid_TSS is None, seen.reason) == (shown.grid_TSS is None, shown.reason)
    if seen.grid_TSS is not None and shown.grid_TSS is not None:
        assert seen.grid_TSS == pytest.approx(shown.grid_TSS, abs=1e-4)
    (held,), (wished,) = (
        await away.score_splits(support, [Split((0, 2), (1,), 1)]),
        await here.score_splits(direct, [Split((0, 2), (1,), 1)]),
    )
    assert held == pytest.approx(wished, abs=1e-5)

    pictures = frames[:2].reshape(-1, *frames.shape[2:])
    windows = [range(8), range(4, 12)]
    scored = await away.score_windows(Reel(support), range(16), pictures, windows, 16)
    alone = await here.classify([pictures[:8], pictures[4:12]], direct)
    for one, other in zip(scored, alone, strict=True):
        assert one.logits_N == pytest.approx(other.scores.logits_N, abs=1e-5)
    await host.close()


async def test_a_host_reads_supports_of_one_that_computes_in_another_precision(
    tmp_path: Path,
) -> None:
    source = str(tiny_checkpoint(tmp_path / "one"))
    host = EngineHost(Settings(checkpoint=source, threads=1))
    away, _ = await opened(host, source)
    frames = clips(3, seed=3).numpy()
    support = await away.encode_support(frames[:2], [0, 1], None)
    assert any(support.memories)
    for dtype in (torch.float32, torch.bfloat16):
        memories = [
            memory and Memory(memory.keys_PHMW.to(dtype), memory.values_PHMW.to(dtype))
            for memory in support.memories
        ]
        other = replace(support, memories=tuple(memories))
        (found,), (wanted,) = [await away.classify(frames[2:], each) for each in (other, support)]
        assert found.scores.nearest == pytest.approx(wanted.scores.nearest, abs=5e-3)
    await host.close()


async def test_clips_of_no_task_are_encoded_elsewhere_as_here(tmp_path: Path) -> None:
    source = str(tiny_checkpoint(tmp_path / "one", "frozen"))
    host = EngineHost(Settings(checkpoint=source, threads=1))
    away, _ = await opened(host, source)
    here = (await host._of(source)).engine
    assert away.supports_apart
    assert here.supports_apart
    frames = clips(2, seed=3).numpy()
    found, wanted = await away.encode_features(frames), await here.encode_features(frames)
    assert found.numpy() == pytest.approx(wanted.numpy(), abs=1e-5)
    known = dict(enumerate(found))
    support = await away.encode_support(frames[:0], [0, 1], None, known=known)
    direct = await away.encode_support(frames, [0, 1], None)
    (one,), (other,) = [await away.classify(frames[:1], each) for each in (support, direct)]
    assert one.scores.logits_N == pytest.approx(other.scores.logits_N, abs=1e-5)
    await host.close()


async def test_a_host_loads_the_model_that_it_is_asked_for_beside_the_one_it_has(
    tmp_path: Path,
) -> None:
    one, two = (str(tiny_checkpoint(tmp_path / n, seed=k)) for k, n in enumerate(("one", "two")))
    host = EngineHost(Settings(checkpoint=one, threads=1))
    first, _ = await opened(host, one)
    second, _ = await opened(host, two)
    assert first.model.fingerprint != second.model.fingerprint
    frames = clips(3, seed=3).numpy()
    for engine in (first, second):
        support = await engine.encode_support(frames[:2], [0, 1], None)
        assert support.fingerprint == engine.model.fingerprint
        assert np.isfinite((await engine.classify(frames[2:], support))[0].scores.nearest)
    with pytest.raises(KshotError):
        await opened(host, str(tmp_path / "three"))
    await host.close()


OWN = {"_recognizer", "_thread", "_loop", "_relief", "_queued", "_on_device"}


def test_an_ingress_inherits_nothing_that_touches_a_device() -> None:
    def names(code: CodeType) -> set[str]:
        inner = (one for one in code.co_consts if isinstance(one, CodeType))
        return set(code.co_names).union(*map(names, inner))

    touching = []
    for name, member in inspect.getmembers_static(Engine):
        function = member.fget if isinstance(member, property) else member
        if name.startswith("_") or not inspect.isfunction(function):
            continue
        if OWN & names(function.__code__):
            touching.append(name)
            assert inspect.getattr_static(RemoteEngine, name) is not member, name
    assert {"classify", "explain", "silent_s"} <= {*touching}


async def test_admission_is_told_the_pace_of_all_hosts_and_not_how_long_calls_take(
    tmp_path: Path,
) -> None:
    source = str(tiny_checkpoint(tmp_path / "one"))
    host = EngineHost(Settings(checkpoint=source, threads=1))
    away, ask = await opened(host, source)
    here = (await host._of(source)).engine
    frames = clips(3, seed=3).numpy()
    support = await away.encode_support(frames[:2], [0, 1], None)
    ask.slow_s = 0.2
    await away.classify(frames[2:], support)
    assert away.query_rate == 0.0  # nothing is told before it is known
    ask.slow_s = 0.0
    await away.start()

    async def told() -> bool:
        return bool(away.query_rate)

    async with asyncio.timeout(20):
        await until(told, 0.01)
    assert away.query_rate == pytest.approx(3 * here.query_rate)
    assert away.drain_rate == pytest.approx(3 * here.drain_rate)
    await away.close()
    await host.close()


async def test_what_nobody_asks_for_is_let_go_by_the_look_at_health_but_never_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = (str(tiny_checkpoint(tmp_path / n, seed=k)) for k, n in enumerate(("one", "two")))
    host = EngineHost(Settings(checkpoint=one, threads=1))
    await host.check()
    await opened(host, two)
    await host.check()
    assert [*host._hosted] == [one, two]
    monkeypatch.setattr(hosting, "IDLE_S", 0.0)
    await host.check()
    await host.check()
    assert [*host._hosted] == [two]
    first, _ = await opened(host, one)  # and it comes back where somebody asks
    assert np.isfinite(first.support_bytes([0, 1]))
    await host.close()


async def test_a_host_whose_device_hangs_says_so(tmp_path: Path) -> None:
    source = str(tiny_checkpoint(tmp_path / "one"))
    host = EngineHost(Settings(checkpoint=source, threads=1))
    await host.check()
    host.settings = host.settings.model_copy(update={"heartbeat_s": 0.0})  # so any pause is one
    with pytest.raises(EngineError, match="device"):
        await host.check()
    await host.close()


async def test_the_time_that_a_model_takes_to_load_is_part_of_the_deadline(tmp_path: Path) -> None:
    one, two = (str(tiny_checkpoint(tmp_path / n)) for n in ("one", "two"))
    held = asyncio.Event()
    loop = asyncio.get_running_loop()

    def choose(settings: Settings) -> Choice:
        if settings.checkpoint == two:
            asyncio.run_coroutine_threadsafe(held.wait(), loop).result(20)
        return choose_runtime(settings)

    host = EngineHost(Settings(checkpoint=one, threads=1), choose)
    away, ask = await opened(host, one)
    frames = clips(3, seed=3).numpy()
    support = await away.encode_support(frames[:2], [0, 1], None)
    digest, content = await away._digest(support), await away.write_support(support)
    asked = ask("classify", two, [frames[2]], digest, content, "", 0.05)
    waiting = asyncio.create_task(asked)
    await asyncio.sleep(0.1)  # longer than the deadline
    held.set()
    with pytest.raises(DeadlineError):
        await waiting
    await host.close()


async def test_the_time_until_a_host_asks_for_supports_is_part_of_the_deadline(
    tmp_path: Path,
) -> None:
    source = str(tiny_checkpoint(tmp_path / "one"))
    host = EngineHost(Settings(checkpoint=source, threads=1))
    away, ask = await opened(host, source)
    frames = clips(3, seed=3).numpy()
    support = await away.encode_support(frames[:2], [0, 1], None)
    ask.slow_s = 0.3  # each of the two calls
    with pytest.raises(DeadlineError):
        await away.classify(frames[2:], support, deadline=time.monotonic() + 0.2)
    assert ask.methods[-2:] == ["classify"] * 2
    await host.close()


async def test_an_ingress_keeps_no_supports_alive(tmp_path: Path) -> None:
    source = str(tiny_checkpoint(tmp_path / "one"))
    host = EngineHost(Settings(checkpoint=source, threads=1))
    away, _ = await opened(host, source)
    frames = clips(3, seed=3).numpy()
    support = await away.encode_support(frames[:2], [0, 1], None)
    await away.classify(frames[2:], support)
    assert len(away._digests) == 1
    del support
    gc.collect()
    assert not away._digests
    await host.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what Ray imports
def test_a_store_of_one_process_is_refused() -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'kshot[ray]'")
    from deploy.ray.app import Sizes, application

    with pytest.raises(SettingsError, match="redis://"):
        application({"KSHOT_STORE": "sqlite:here.db"}, Sizes())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_engine_has_the_gpus_that_it_is_told_also_before_ray_is_there() -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'kshot[ray]'")
    from deploy.ray.app import Sizes, application

    app = application({"KSHOT_STORE": "redis://127.0.0.1/0"}, Sizes(engine_gpus=0.5))
    engine = app._bound_deployment.init_args[1]
    assert engine._bound_deployment.ray_actor_options["num_gpus"] == 0.5


async def test_an_ingress_listens_for_as_long_as_it_lives_and_shares_its_address(
    tmp_path: Path,
) -> None:
    settings = Settings(
        checkpoint=str(tiny_checkpoint(tmp_path / "one")),
        store=f"sqlite:{tmp_path / 'store'}",
        port=free_port(),
        threads=1,
        decode_workers=1,
    )
    app = create_app(settings)
    listen_while_it_lives(app, settings)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{settings.port}") as http:
        async with app.router.lifespan_context(app):
            assert (await http.get("/livez", timeout=20)).status_code == 200
            shared_socket(settings).close()  # the one that takes its place
        with pytest.raises(httpx.ConnectError):
            await http.get("/livez")
    of_another = socket.create_server(("127.0.0.1", settings.port))
    with of_another, pytest.raises(SettingsError, match="KSHOT_PORT"):
        shared_socket(settings)
    freeze_again()


MODULE = ("-m", "deploy.ray", "--ingress-cpus", "0.1", "--engine-cpus", "0.1")
SERVE = (
    "-m",
    "ray.serve.scripts",
    "run",
    "deploy.ray.app:app",
    "ingress_cpus=0.1",
    "engine_cpus=0.1",
)
OF_SERVE = 8000  # `serve run` cannot be told another


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("arguments", [MODULE, SERVE], ids=["python -m deploy.ray", "serve run"])
def test_a_command_serves_until_it_is_interrupted(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install 'kshot[ray]'")
    port, log = free_port() if arguments is MODULE else OF_SERVE, tmp_path / "log"
    if arguments is SERVE and listens(port):
        pytest.skip(f"`serve run` listens on port {port}, and something else does here")
    with redis_server(tmp_path / "redis") as server, log.open("w") as written:
        settings = {"checkpoint": str(tiny_checkpoint(tmp_path / "tiny")), "store": server.url}
        settings |= {"threads": "1", "decode_workers": "1", "port": str(port)}
        env = {f"KSHOT_{name.upper()}": value for name, value in settings.items()}
        env["RAY_enable_worker_prestart"] = "0"
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=os.environ | env,
            stdout=written,
            stderr=subprocess.STDOUT,
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
                wait_until_ready(http, process)
                support = {"jump": [moving_clip(1)], "wave": [moving_clip(2)]}
                task = register(http, support)["id"]
                found = classify(http, task, moving_clip(1))
            assert found["results"][0]["label"] == "jump"
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0, log.read_text()[-3000:]
        finally:
            process.kill()
            process.wait()


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
        return True
    return False


def wait_until_ready(http: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    late = time.monotonic() + 240
    while True:
        with contextlib.suppress(httpx.TransportError):
            if http.get("/readyz").status_code == 200:
                return
        assert process.poll() is None, "the command has ended"
        assert time.monotonic() < late, "the command does not get ready"
        time.sleep(0.2)


def test_without_ray_the_command_says_what_to_install(capsys: pytest.CaptureFixture[str]) -> None:
    if importlib.util.find_spec("ray") is not None:
        pytest.skip("Ray is installed")
    from deploy.ray.__main__ import main

    assert main([]) == 2
    assert "kshot[ray]" in capsys.readouterr().err
