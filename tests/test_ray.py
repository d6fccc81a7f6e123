"""The service on Ray Serve: what engines and ingresses say to each other.

CI does not install Ray, which takes 237 MB: what needs it is skipped there.
"""

import asyncio
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.ray.hosting import EngineHost
from deploy.ray.remote import RemoteEngine
from model.errors import KshotError
from model.text import template_stages
from service.engine.window_work import Reel
from service.errors import DeadlineError
from service.settings import Settings
from tests.model.tiny import clips
from tests.serving import tiny_checkpoint


class Straight:
    """Asks a host of this process, and notes which methods were asked for."""

    def __init__(self, host: EngineHost) -> None:
        self.host = host
        self.loop = asyncio.get_running_loop()
        self.methods: list[str] = []

    async def __call__(self, method: str, *arguments: object) -> Any:  # noqa: ANN401
        self.methods.append(method)
        return await getattr(self.host, method)(*arguments)

    def now(self, method: str, *arguments: object) -> Any:  # noqa: ANN401
        return asyncio.run_coroutine_threadsafe(self(method, *arguments), self.loop).result(20)


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

    pictures = frames[:2].reshape(-1, *frames.shape[2:])
    windows = [range(8), range(4, 12)]
    scored = await away.score_windows(Reel(support), range(16), pictures, windows, 16)
    alone = await here.classify([pictures[:8], pictures[4:12]], direct)
    for one, other in zip(scored, alone, strict=True):
        assert one.logits_N == pytest.approx(other.scores.logits_N, abs=1e-5)
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


def test_a_store_of_one_process_is_refused() -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'kshot[ray]'")
    from deploy.ray.app import Sizes, application
    from service.errors import SettingsError

    with pytest.raises(SettingsError, match="redis://"):
        application({"KSHOT_STORE": "sqlite:here.db"}, Sizes())


def test_without_ray_the_command_says_what_to_install(capsys: pytest.CaptureFixture[str]) -> None:
    if importlib.util.find_spec("ray") is not None:
        pytest.skip("Ray is installed")
    from deploy.ray.__main__ import main

    assert main([]) == 2
    assert "kshot[ray]" in capsys.readouterr().err
