"""A user's own folder of clips: meta-trained, then served."""

import json
from pathlib import Path

import pytest
from safetensors import safe_open

from kshot_client import Client
from model.checkpoint import load_recognizer
from tests.forked import ForkedService
from training.fit import main
from training.synthetic.order_set import draw_families
from training.synthetic.rendering import write_clip

CLIPS = 2
RECIPE = (
    "episodes=4", "per_step=1", "ways=[2,2]", "shots=[1,1]", "queries=1", "draws=0", "val_every=4",
    "val_episodes=2", "val_shots=[1]", "val_queries=1", "lr=0.01",
)  # fmt: skip


@pytest.mark.slow
def test_a_folder_of_clips_is_trained_on_and_serves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    families = draw_families({"train": 4}, (5, 5), 0, carried=True)
    actions = [action for family in families for action in family.actions]
    for number, action in enumerate(actions):
        folder = tmp_path / "my_clips" / action.label
        folder.mkdir(parents=True)
        for take in range(CLIPS):
            clip = folder / f"{take}.mp4"
            write_clip(clip, action, 10 * number + take, fps=8, seconds=1.0, size=64)
    out = tmp_path / "runs" / "mine"
    given = ["--method", "task_adapter", "--blocks", "1", "--frames", "4", "--no-text", "--half"]
    given += ["--data", str(tmp_path / "my_clips"), "--out", str(out), "--set", *RECIPE]
    assert main(given) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["trained_parameters"] > 0
    with safe_open(out / "weights.safetensors", "pt") as stored:
        assert {stored.get_tensor(name).dtype.itemsize for name in stored.keys()} == {2}  # noqa: SIM118
    labels = sorted((tmp_path / "my_clips").iterdir())[:2]
    support = {label.name: sorted(label.iterdir())[:1] for label in labels}
    asked = [sorted(label.iterdir())[1] for label in labels]
    settings = {"checkpoint": str(out), "store": f"sqlite:{tmp_path / 'kshot.db'}"}
    settings |= {"threads": "1", "decode_workers": "1"}
    service = ForkedService(settings, tmp_path / "log")
    try:
        with Client(service.url) as client:
            model = client.info().model
            task = client.register(support, name="mine")
            results = client.classify(task.id, asked).results
    finally:
        service.kill()
    assert model.fingerprint == load_recognizer(str(out)).fingerprint
    assert [len(result.ranking) for result in results] == [2, 2]
