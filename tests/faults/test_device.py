"""F7: a device that has no memory for a batch, and one that never has any again."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.bench.bars import Bar
from tests.faults.figures import tell
from tests.faults.load import asking
from tests.faults.stage import JSON, Asked, asked, query_body, scores_of
from tests.forked import ForkedService

CLIPS = 8
REFUSALS = {"503 device-out-of-memory", "503 server-stopping", "broken"}


@dataclass
class Faulty:
    """A service, and the file that says what its device can do."""

    settings: dict[str, str]
    told: Path
    service: ForkedService = field(init=False)

    def device(self, **told: float) -> None:
        self.told.with_suffix(".new").write_text(json.dumps(told))
        self.told.with_suffix(".new").replace(self.told)

    def start(self) -> None:
        env = {"FAULTY_DEVICE": str(self.told)}
        log = self.told.parent / "log"
        self.service = ForkedService(self.settings, log, "tests.faults.failing", env)


@pytest.fixture
def faulty(tiny: dict[str, str], tmp_path: Path) -> Iterator[Faulty]:
    settings = {**tiny, "store": f"sqlite:{tmp_path / 'kshot.db'}"}
    made = Faulty(settings, tmp_path / "device.json")
    made.start()
    try:
        yield made
    finally:
        made.service.kill()


def test_f7_a_device_without_memory_is_asked_for_less_and_then_replaced_and_nothing_is_lost(
    faulty: Faulty,
) -> None:
    many = json.loads(query_body(0))["clips"] * CLIPS
    with asked(faulty.service.url, tasks=1, bodies=1) as clients:
        (task_id,) = clients.tasks
        faulty.device(clips=CLIPS // 2)
        path = f"/tasks/{task_id}/classify"
        answer = clients.client().post(path, json={"clips": many}, headers=JSON)
        assert answer.status_code == 200, answer.text
        for result in answer.json()["results"]:
            assert scores_of({"results": [result]}) == pytest.approx(
                clients.expected[0, 0], abs=1e-5
            )

        faulty.device(clips=0)
        begun = time.monotonic()
        with asking(clients.classify, 3) as load:
            assert faulty.service.wait() == 2
            ended = time.monotonic()
        assert load.counts().keys() <= REFUSALS
        assert load.counts()["503 device-out-of-memory"] >= 1

        faulty.device()
        faulty.start()
        restarted = Asked(faulty.service.url, clients.tasks, clients.bodies, clients.expected)
        assert restarted.classify(0) == "right"
        restarted.close()
    tell(
        "F7",
        [Bar("the process has ended after", ended - begun, "<=", 10, "s")],
        outcomes=load.counts(),
    )
