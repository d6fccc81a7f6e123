"""Students: what they learn, that a killed run ends alike, and that a finished one can go on."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model.backbones.packaged.causal import CausalTower
from model.checkpoint import load_recognizer
from model.config.towers import CausalBlockConfig, CausalConfig
from training.distil.beginning import begin
from training.distil.distilling import distil
from training.distil.fit import main
from training.distil.imitation import apart, whole
from training.distil.recipe import StudentJob, VideoRecipe
from training.distil.run import BEFORE_FALL, STATE, VideoRun, going_on, rate
from training.distil.sources import clips_of, pictures_of
from training.distil.space import fit_space
from training.distil.teacher import HIDDEN, LAYERS, open_video_teacher
from training.distil.views import Views
from training.errors import InputError

WIDTHS = (8, 8, 8, 56, 16)  # of the narrow teacher's stages
BLOCKS = tuple(
    CausalBlockConfig(
        inner=8, width=WIDTHS[stage], stride=1 if layer or stage == 3 else 2, span=2 if stage else 1
    )
    for stage, layers in LAYERS
    for layer in range(layers)
)
TOWER = CausalConfig(size=32, blocks=BLOCKS, hidden=16, features=8)
RECIPE = VideoRecipe(pictures=2, clips=1, synthetic=1, frames=3, apart=2)
LEFT_OUT = ("train action 0", "val action 2")
Job = Callable[..., StudentJob]


@pytest.fixture(scope="module")
def job(video_teacher: Path, indexed: Path, pictures: Path) -> Job:
    def job_of(out: Path, **changes: object) -> StudentJob:
        whole_job = StudentJob(
            teacher=video_teacher,
            clips=(indexed / "index.csv",),
            pictures=(pictures,),
            leave_out=LEFT_OUT,
            steps=4,
            check_every=50,
            max_seconds=float("inf"),
            tower=TOWER,
            served=64,
            recipe=RECIPE,
            out=out,
        )
        return replace(whole_job, **changes)

    return job_of


@pytest.fixture(scope="module")
def told(job: Job, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    out = tmp_path_factory.mktemp("undisturbed")
    return out, distil(job(out))


@pytest.fixture(scope="module")
def undisturbed(told: tuple[Path, dict[str, object]]) -> Path:
    return told[0]


def assert_same_weights(one: Path, two: Path) -> None:
    first, second = (load_file(folder / "weights.safetensors") for folder in (one, two))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def views_of(indexed: Path, pictures: Path, recipe: VideoRecipe = RECIPE) -> Views:
    clips = clips_of([indexed / "index.csv"], LEFT_OUT)
    return Views(clips, pictures_of([pictures]), 32, recipe)


def test_the_folder_is_a_checkpoint(undisturbed: Path) -> None:
    recognizer = load_recognizer(str(undisturbed))
    assert recognizer.video.token_shape() == (8, 1, 8)
    assert recognizer.config.backbone.size == 64
    assert "train action 0" in (undisturbed / "card.md").read_text()


def test_a_run_that_was_stopped_ends_with_the_same_weights(
    job: Job, undisturbed: Path, tmp_path: Path
) -> None:
    for _ in range(2):
        stopped = distil(job(tmp_path, max_seconds=0))
    assert (stopped["finished"], stopped["steps"]) == (False, 2)
    distil(job(tmp_path))
    assert_same_weights(tmp_path, undisturbed)


def test_a_finished_run_goes_on_from_before_its_fall(
    job: Job, undisturbed: Path, tmp_path: Path
) -> None:
    longer, full = tmp_path / "longer", tmp_path / "full"
    shutil.copytree(undisturbed, longer)
    assert going_on(longer, 6, RECIPE) == longer / BEFORE_FALL
    assert going_on(longer, 4, RECIPE) == longer / STATE
    for out in (longer, full):
        distil(job(out, steps=6))
    assert_same_weights(longer, full)


def test_the_rate_is_level_until_it_falls_to_zero() -> None:
    recipe = VideoRecipe(warmup=4, fall=0.25)
    rates = [rate(step, 16, recipe) for step in range(17)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1, 1]
    assert rates[11:] == [1, 1, 0.75, 0.5, 0.25, 0]


def test_a_finished_run_tells_of_unseen_classes(
    told: tuple[Path, dict[str, object]], indexed: Path
) -> None:
    assert (told[1]["finished"], told[1]["steps"]) == (True, 4)
    assert 0 <= float(str(told[1][f"{indexed.name} 1-shot"])) <= 100


@torch.no_grad()
def test_a_student_that_has_the_teachers_cells_makes_no_error(
    video_teacher: Path, indexed: Path, pictures: Path
) -> None:
    views, teacher = views_of(indexed, pictures), open_video_teacher(video_teacher)
    network = CausalTower(TOWER).model
    with torch.enable_grad():
        lesson = begin(network, teacher, views, 4)
    pixels = views.draw(0)
    own = [state.detach() for state in network.states(pixels)]
    errors = dict(apart(network, pixels, own, lesson))
    assert len(errors) == len(BLOCKS) + 2
    assert max(float(error) for error in errors.values()) < 1e-8
    assert float(whole(network, pixels, own, lesson)["states"]) < 1e-8
    other = dict(apart(network, pixels, teacher(pixels), lesson))
    assert min(float(error) for error in other.values()) > 1e-4


@pytest.mark.parametrize("first", [0, 1000])
def test_blocks_alone_and_the_whole_come_nearer_to_the_teacher(
    first: int, video_teacher: Path, indexed: Path, pictures: Path
) -> None:
    torch.manual_seed(0)
    recipe = replace(RECIPE, warmup=1, apart=1000 - first, lr=1e-2, whole_lr=1e-2)
    views, teacher = views_of(indexed, pictures, recipe), open_video_teacher(video_teacher)
    network = CausalTower(TOWER).model
    run = VideoRun(network, begin(network, teacher, views, 4), views, recipe)
    errors = [sum(run.advance(100_000).values()) for _ in range(60)]
    assert sum(errors[-5:]) < 0.8 * sum(errors[:5])


def test_a_batch_follows_from_its_number_and_has_every_kind(indexed: Path, pictures: Path) -> None:
    views = views_of(indexed, pictures)
    assert views.draw(3).shape == (4, 3, 3, 32, 32)
    assert torch.equal(views.draw(3), views.draw(3))
    assert not torch.equal(views.draw(3), views.draw(4))
    alone = Views([], pictures_of([pictures]), 32, RECIPE)
    assert len(alone.draw(0)) == RECIPE.pictures + RECIPE.synthetic
    with pytest.raises(InputError, match="There is nothing to learn from"):
        Views([], [], 32, RECIPE)


def test_the_space_keeps_angles() -> None:
    hidden = torch.randn(12, HIDDEN, generator=torch.Generator().manual_seed(0))
    space = fit_space(hidden, len(hidden) - 1)  # all that so few clips differ in
    features = space.features(hidden)
    centred = hidden - hidden.mean(0)
    torch.testing.assert_close(features @ features.T, centred @ centred.T, atol=1e-1, rtol=1e-3)
    assert space.variance == pytest.approx(float(centred.square().sum(1).mean()), rel=1e-4)
    narrow = fit_space(hidden, 2)
    torch.testing.assert_close(narrow.features(hidden), features[:, :2], atol=1e-2, rtol=1e-3)


def test_features_wider_than_the_views_that_find_their_space_are_refused(
    video_teacher: Path, indexed: Path, pictures: Path
) -> None:
    network = CausalTower(replace(TOWER, features=12)).model
    with pytest.raises(InputError, match="Features of width 12 need more views than 12"):
        begin(network, open_video_teacher(video_teacher), views_of(indexed, pictures), 1)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ([], "give the student blocks of the teacher's widths and strides"),
        (["--leave-out", "flying"], "No list has the label 'flying'"),
        (["--frames", "0"], "frames"),
        (["--size", "40"], "multiple of 32"),
        (["--steps", "0"], "give such numbers"),
        (["--pictures", "/nowhere"], "/nowhere holds no JPEG or PNG picture"),
    ],
)
def test_wrong_input_is_one_sentence(
    changes: list[str],
    sentence: str,
    video_teacher: Path,
    indexed: Path,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ["--video-teacher", str(video_teacher), "--clips", str(indexed / "index.csv")]
    given += ["--pictures", str(pictures), "--out", str(tmp_path), "--size", "64"]
    assert main([*given, "--pictures-a-step", "1", *changes]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert "Traceback" not in error
