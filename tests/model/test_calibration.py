"""Calibration: scores become probabilities and `unknown` by what was fitted for these weights."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from model.calibration.defaults import default_calibration
from model.calibration.fitted import (
    CALIBRATION,
    Calibration,
    CalibrationFacts,
    ShotRow,
    read_calibration,
    write_calibration,
)
from model.checkpoint import load_recognizer, save_checkpoint
from model.config.fusion import Mixing
from model.config.matching import BiMhmMatcher, MatcherConfig, OtamMatcher, ScoreSize
from model.config.root import Config, Scales
from model.config.towers import VideoConfig, VideoMaeConfig, VJepa2Config
from model.episode import ClassSet, plain
from model.errors import CheckpointError
from model.fusion import TaskCalibration
from model.matching.cosine import Centring, CosineOfMeans, nearness
from model.methods import METHODS, bare_method
from model.recognizer import Recognizer
from tests.model.tiny import class_set, clips, tiny_method, tiny_recognizer

CLASSES = [0, 0, 1, 1, 1, 2]
ROWS = (ShotRow(shots=1, scale=0.1, threshold=0.2), ShotRow(shots=4, scale=0.3, threshold=0.4))


def calibration(**changes: object) -> Calibration:
    given: dict[str, object] = {"source": "a test", "video": ROWS, "text": ROWS[:1]}
    return Calibration.model_validate({**given, **changes})


def some_mean(recognizer: Recognizer) -> tuple[float, ...]:
    features = recognizer.video.tower.features
    return tuple((torch.randn(features, generator=torch.Generator().manual_seed(5)) / 3).tolist())


def nearest_of(recognizer: Recognizer, tasks: Sequence[Sequence[int]]) -> list[float]:
    """Score six queries, those of a task each in turn, in one batch."""
    tokens = recognizer.trunk(clips(12, seed=1))
    supports = [recognizer.encode_support(tokens[:6], classes, None) for classes in tasks]
    many = [supports[place % len(supports)] for place in range(6)]
    features = recognizer.encode_query(tokens[6:], many)
    return [score.nearest for score in plain(recognizer.score(features, many))]


@pytest.mark.parametrize(
    ("counts", "scale", "threshold"),
    [
        ([1, 1], 0.1, 0.2),
        ([4, 4, 4], 0.3, 0.4),
        ([2, 2], 0.2, 0.3),  # half of the way in log 2
        ([9, 50], 0.3, 0.4),  # beyond the last row: the last row
        ([1, 4], 0.2, 0.3),  # the mean over labels
    ],
)
def test_a_task_gets_the_row_of_its_shots(
    counts: list[int], scale: float, threshold: float
) -> None:
    found = calibration().at(counts, with_text=False)
    assert found.scale == pytest.approx(scale)
    assert found.threshold == pytest.approx(threshold)
    assert calibration().at(counts, with_text=True).scale == pytest.approx(0.1)


def test_probabilities_are_a_softmax_of_scaled_logits() -> None:
    found = TaskCalibration(scale=0.5, threshold=0).probabilities([2 * math.log(3), 0.0])
    assert found == pytest.approx((0.75, 0.25))
    huge = TaskCalibration(scale=1, threshold=0).probabilities([5000.0, 4000.0, -5000.0])
    assert huge == (1.0, 0.0, 0.0)


def test_a_calibration_reads_back_as_it_was_written(tmp_path: Path) -> None:
    written = calibration(fingerprint="f" * 64, mean=(0.25, -1.5))
    write_calibration(tmp_path, written)
    assert read_calibration(tmp_path, "f" * 64, 2) == written
    assert [path.name for path in tmp_path.iterdir()] == [CALIBRATION]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"colour": "red"}, "colour"),
        ({"video": []}, "video"),
        ({"format": "kshot-calibration-9"}, "format"),
        ({"video": [{"shots": 1, "scale": 0, "threshold": 0}]}, "video.0.scale"),
        ({"text": [{"shots": 1, "scale": 1, "threshold": 7}]}, "text.0.threshold"),
        ({"video": [ROWS[1].model_dump(), ROWS[0].model_dump()]}, "in order"),
        ({"centres_scores": True}, "mean"),
        ({"fingerprint": "e" * 64}, "fitted for weights eeeeeeeeeeee"),
        ({"fingerprint": None}, "fitted for weights"),
        ({"mean": [1.0]}, "mean feature of 1"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    tmp_path: Path, change: dict[str, object], words: str
) -> None:
    content = calibration(fingerprint="f" * 64).model_dump() | change
    (tmp_path / CALIBRATION).write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=words):
        read_calibration(tmp_path, "f" * 64, 2)


def test_a_torn_file_is_refused(tmp_path: Path) -> None:
    write_calibration(tmp_path, calibration(fingerprint="f"))
    file = tmp_path / CALIBRATION
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(CheckpointError, match=r"calibration\.json is no calibration"):
        read_calibration(tmp_path, "f", 2)


def test_a_checkpoint_folder_is_loaded_with_its_calibration(tmp_path: Path) -> None:
    save_checkpoint(tiny_recognizer(), tmp_path, "# test\n")
    bare = load_recognizer(str(tmp_path))
    assert "default" in bare.calibration.source
    fitted = calibration(fingerprint=bare.fingerprint, mean=some_mean(bare))
    write_calibration(tmp_path, fitted)
    loaded = load_recognizer(str(tmp_path))
    assert loaded.calibration == fitted
    assert loaded.fingerprint == bare.fingerprint  # it is of the weights
    assert loaded.with_encoders(loaded.video, None).calibration == fitted
    assert loaded.state_dict().keys() == bare.state_dict().keys()


def test_a_calibration_of_other_weights_stops_the_start(tmp_path: Path) -> None:
    save_checkpoint(tiny_recognizer(seed=1), tmp_path, "# test\n")
    write_calibration(tmp_path, calibration(fingerprint="of another checkpoint"))
    with pytest.raises(CheckpointError, match=r"training\.calibrate"):
        load_recognizer(str(tmp_path))


def test_nearness_is_the_cosine_after_each_class_s_own_centre() -> None:
    torch.manual_seed(0)
    query, prototypes, centres = torch.randn(5, 4, 6), torch.randn(3, 4, 6), torch.randn(3, 6)
    found = nearness(query, ClassSet(prototypes, (1, 1, 1), (), centres))
    for place in range(3):
        want = nn.functional.cosine_similarity(
            query.mean(dim=1) - centres[place], prototypes[place].mean(dim=0) - centres[place]
        )
        torch.testing.assert_close(found[:, place], want)


def test_nearness_is_exact_for_features_far_from_zero() -> None:
    """As of many networks: all clips lie in one direction, and differ by little."""
    torch.manual_seed(0)
    far = 300 * torch.ones(6)
    query, prototypes = far + torch.randn(5, 4, 6), far + torch.randn(3, 4, 6)
    found = nearness(query, ClassSet(prototypes, (1, 1, 1), (), far.expand(3, 6)))
    want = CosineOfMeans()(query.double() - 300, class_set(prototypes.double() - 300))
    torch.testing.assert_close(found, want.float(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("preset", METHODS)
def test_a_mixed_batch_finds_the_same_nearest_as_each_task_alone(preset: str) -> None:
    recognizer = tiny_recognizer(preset)
    tasks = [CLASSES, [0, 1, 0, 1, 0, 1], [0, 1, 2, 3, 4, 5]]
    mean = some_mean(recognizer)
    for fitted in (recognizer.calibration, calibration(mean=mean)):
        recognizer.calibrate(fitted)
        together = nearest_of(recognizer, tasks)
        for place, task in enumerate(tasks):
            alone = nearest_of(recognizer, [task])
            assert together[place::3] == pytest.approx(alone[place::3], abs=1e-5)
        assert len({round(near, 3) for near in together}) > 1


@pytest.mark.parametrize("preset", ["task_adapter", "ted", "clip_fsar"])
def test_a_subtracted_mean_moves_scores_of_supports_and_queries_alike(preset: str) -> None:
    recognizer = tiny_recognizer(preset)
    tokens = recognizer.trunk(clips(9, seed=1))

    def scored() -> torch.Tensor:
        support = recognizer.encode_support(tokens[:6], CLASSES, None)
        features = recognizer.encode_query(tokens[6:], [support] * 3)
        (group,) = recognizer.score(features, [support] * 3)
        return group.scores.video_QN

    before = scored()
    mean = some_mean(recognizer)
    recognizer.calibrate(calibration(mean=mean))
    torch.testing.assert_close(scored(), before)  # the evidence alone
    recognizer.calibrate(calibration(mean=mean, centres_scores=True))
    support = recognizer.encode_support(tokens[:6], CLASSES, None)
    features = recognizer.encode_query(tokens[6:], [support] * 3)
    asked = recognizer.prototypes.query(features) - torch.tensor(mean)
    assert not torch.allclose(scored(), before, atol=1e-3)
    torch.testing.assert_close(scored(), recognizer.matcher(asked, support.classes))


def test_the_mean_reaches_the_shots_of_a_matcher_that_reads_them() -> None:
    classes = class_set(torch.ones(3, 4, 2))
    moved = Centring((0.25, 1.0), of_scores=True).classes(classes)
    assert all((shots == torch.tensor([0.75, 0.0])).all() for shots in moved.shots)


@pytest.mark.parametrize("preset", METHODS)
def test_every_preset_has_a_default(preset: str) -> None:
    found = tiny_recognizer(preset).calibration
    assert "default" in found.source
    assert found.fingerprint is None
    assert found.mean is None


@pytest.mark.parametrize(
    ("matcher", "terms"),
    [(BiMhmMatcher(), 16), (OtamMatcher(), 16), (OtamMatcher(one_direction=True), 8)],
)
def test_the_default_of_a_sum_of_distances_is_that_of_cosines_over_its_terms(
    matcher: MatcherConfig, terms: int
) -> None:
    cosine = default_calibration(tiny_method("frozen", scale=1.0)).at([3, 3], with_text=False)
    method = tiny_method("frozen", fusion="video", matcher=matcher)
    found = default_calibration(method).at([3, 3], with_text=False)
    assert found.scale == pytest.approx(cosine.scale / terms)
    assert found.threshold == cosine.threshold


@pytest.mark.parametrize(
    ("preset", "video", "text"),
    [
        ("frozen", 8 / 64, 20 / 64),
        ("tip_adapter", 8 / 64 / 5.5, 1.0),
        ("ridge", 4 / 8, 4 / 8),
        ("d2st", 8 / 16, 8 / 16),
        ("sloshnet", 1 / 6, 1 / 6),
        ("clip_fsar", 8 / 16, 1.0),
        ("actionclip", 8 / 100, 1.0),
        ("m2clip", 8 / 16, 1.0),
        ("ma_clip", 8 / 16, 1.0),
        ("gghm", 8 / 2, 8 / 2),
    ],
)
def test_the_default_scales_of_presets_stay(preset: str, video: float, text: float) -> None:
    found = default_calibration(METHODS[preset])
    assert found.video[0].scale == pytest.approx(video)
    assert found.text[0].scale == pytest.approx(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignMatcher(Config):
    kind: str = "foreign"

    @property
    def size(self) -> ScoreSize:
        return ScoreSize(scales=(3.0, 5.0), unit=0.5, summed=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignFusion(Mixing):
    scales: ClassVar[Scales] = (7.0, 9.0)


def test_a_part_that_calibration_does_not_know_says_its_own_scales() -> None:
    parts: dict[str, Any] = {"matcher": ForeignMatcher(), "fusion": ForeignFusion()}
    found = default_calibration(tiny_method("frozen", frames=8, **parts))
    assert [row.scale for row in found.video] == [3 / 4, 5 / 4]
    assert [row.scale for row in found.text] == [7.0, 9.0]


@pytest.mark.parametrize("backbone", [VideoMaeConfig(), VJepa2Config()])
def test_the_default_counts_the_features_of_a_clip_where_one_stands_for_two_frames(
    backbone: VideoConfig,
) -> None:
    bare = bare_method(backbone)
    assert bare.frames == 16
    found = default_calibration(replace(bare, matcher=BiMhmMatcher()))
    cosine = default_calibration(replace(bare, scale=1.0))
    assert found.video[0].scale == pytest.approx(cosine.video[0].scale / 16)


def test_a_default_says_the_same_whatever_the_method_multiplies_cosines_with() -> None:
    for scale in (1.0, 64.0):
        recognizer = tiny_recognizer("frozen", scale=scale)
        found = recognizer.calibration.at([1, 1], with_text=False).probabilities(
            [scale * 0.9, scale * 0.8]
        )
        assert found[0] == pytest.approx(1 / (1 + math.exp(-0.8)), abs=1e-6)


def test_what_is_shown_has_no_long_vector() -> None:
    assert "mean" not in CalibrationFacts.model_fields


def test_the_packaged_checkpoint_has_one_of_its_own() -> None:
    recognizer = load_recognizer("compact")
    found = recognizer.calibration
    assert found.fingerprint == recognizer.fingerprint
    assert [row.shots for row in found.video] == [1, 2, 3, 4, 5]
    assert all(row.fit is not None and row.fit.ece < row.fit.ece_before for row in found.video)
