"""What a diagnosis says of drawn tasks, beside what then happens."""

from pathlib import Path

import torch

from tests.model.tiny import tiny_recognizer
from training.data.datasets import DataChoice
from training.data.episodes import Episode
from training.evaluation.diagnosing.diagnosis import DiagnoseJob, Told, _compared
from training.evaluation.diagnosing.judge import Judge

LABELS, CLIPS = 4, 9  # of a label


def test_what_is_easy_is_told_as_easy_and_wrong_labels_are_found() -> None:
    torch.manual_seed(0)
    means = torch.randn(LABELS, 1, 1, 16)
    features = means + 0.2 * torch.randn(LABELS, CLIPS, 8, 16)
    judge = Judge(tiny_recognizer("task_adapter"), features.flatten(0, 1))
    places = [[label * CLIPS + clip for clip in range(CLIPS)] for label in range(LABELS)]
    episode = Episode(
        labels=tuple("abcd"),
        support=tuple(clip for own in places for clip in own[:4]),
        support_classes=tuple(label for label in range(LABELS) for _ in range(4)),
        query=tuple(clip for own in places for clip in own[4:]),
        query_classes=tuple(label for label in range(LABELS) for _ in range(CLIPS - 4)),
    )
    job = DiagnoseJob(
        checkpoint="tiny", data=DataChoice(data=(Path("none"),)), ways=LABELS, shots=3
    )
    found = _compared(job, judge, [episode] * 2)
    assert found["wrong_label_found"] == found["wrong_label_first"] == 1.0
    for said in ("leave_one_out", "one_more"):
        summary = found[said]
        assert isinstance(summary, dict)
        assert summary["bias"] == 0
    assert found["leave_one_out"]["said"] == 1.0  # type: ignore[index]


def test_bias_and_correlation_are_of_what_was_said_and_what_happened() -> None:
    told = Told()
    for said, happened in ((0.5, 0.4), (0.7, 0.6), (0.9, 0.8)):
        told.note(said, happened)
    assert told.summary() == {
        "said": 0.7,
        "happened": 0.6,
        "bias": 0.1,
        "rmse": 0.1,
        "correlation": 1.0,
    }
