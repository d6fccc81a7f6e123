"""A device that is slow holds up nobody but those who wait for it."""

import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from service.app import create_app
from service.settings import Settings
from tests.devices import Device, slow
from tests.serving import moving_clip, query_files, register, serving_app, tiny_checkpoint

BATCH_S = 5.0
ALIVE_S = 0.05


def test_livez_answers_at_once_while_a_batch_runs_for_five_seconds(tmp_path: Path) -> None:
    settings = Settings(
        checkpoint=str(tiny_checkpoint(tmp_path / "checkpoint")),
        store=f"sqlite:{tmp_path / 'kshot.db'}",
        threads=1,
        decode_workers=1,
    )
    app = create_app(settings)
    clip = moving_clip(1)
    with serving_app(app) as client, ThreadPoolExecutor(1) as threads:
        task = register(client, {"jump": [clip], "wave": [moving_clip(2)]})
        thread = app.state.service.engine._thread
        begun = threading.Event()
        wait = slow(BATCH_S)
        thread.runtime = Device(thread.runtime, lambda clips: (begun.set(), wait(clips)))

        def asked() -> float:
            time.sleep(0.02)
            start = time.monotonic()
            assert client.get("/livez").status_code == 200
            return time.monotonic() - start

        calm = statistics.median(asked() for _ in range(11))
        answer = threads.submit(
            client.post,
            f"/tasks/{task['id']}/classify",
            files=query_files(clip),
            headers={"x-request-timeout-ms": "30000"},
        )
        assert begun.wait(30)
        until = time.monotonic() + BATCH_S - 0.5
        times = []
        while time.monotonic() < until:
            times.append(asked())
        assert not answer.done()
        assert answer.result(timeout=30).status_code == 200
    assert len(times) > 10
    # one in many may meet a busy machine, and a machine may be busy before
    assert statistics.median(times) < 2 * calm + ALIVE_S
