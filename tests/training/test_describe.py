"""Descriptions of a data set's classes, asked of a real HTTP endpoint; files of descriptions."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from model import files
from model.text import instruction, spoken
from tests.language_model import STAGES, Endpoint, language_model
from tests.training.conftest import SHARED
from training import describe
from training.data.descriptions_file import read_descriptions, stages_of, write_descriptions
from training.data.listed import read_labels
from training.errors import InputError

LABELS = ["brush_hair", "Sit Down", "wave"]
WANTED = tuple(STAGES)
OWN = ("It begins.", "It goes on.", "It ends.")


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    with language_model() as running:
        monkeypatch.setenv("KSHOT_LLM_BASE_URL", running.url)
        monkeypatch.setenv("KSHOT_LLM_MODEL", "tiny")
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        yield running


@pytest.fixture
def data(tmp_path: Path) -> Path:
    splits = ("train", "val", "test")
    rows = [f"{n}.mp4,{label},{splits[n]},{n}" for n, label in enumerate(LABELS)]
    (tmp_path / "index.csv").write_text("\n".join(["path,label,split,source_group", *rows]))
    return tmp_path / "index.csv"


def run(data: Path, out: Path, *more: str) -> int:
    return describe.main(["--data", str(data), "--out", str(out), *more])


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_every_label_is_asked_once_and_the_file_is_read_again(
    endpoint: Endpoint, data: Path, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / f"words/stages.{suffix}"
    assert run(data, out) == 0
    assert stages_of(read_descriptions(out), LABELS, out) == dict.fromkeys(LABELS, WANTED)
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last == {"out": str(out), "labels": 3, "kept": 0, "added": 3, "failed": {}}
    asked = {call["messages"][-1]["content"] for call in endpoint.calls}
    assert asked == {instruction(spoken(label)) for label in LABELS}
    assert {call["model"] for call in endpoint.calls} == {"tiny"}
    assert all(call["response_format"]["json_schema"]["strict"] for call in endpoint.calls)
    assert run(data, out) == 0
    assert len(endpoint.calls) == 3
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_what_a_file_holds_is_kept(endpoint: Endpoint, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "stages.yaml"
    write_descriptions(out, {"Brush hair": OWN, "fly": OWN})
    assert run(data, out, "--splits", "train", "test") == 0
    assert read_descriptions(out) == {"brush hair": OWN, "fly": OWN, "wave": WANTED}
    assert len(endpoint.calls) == 1


def test_a_run_that_stops_keeps_its_answers_and_goes_on(
    endpoint: Endpoint, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "stages.yaml"
    assert run(data, out, "--splits", "train") == 0
    endpoint.mode = "401"
    assert run(data, out, "--concurrency", "1") == 2
    assert "gives no answer (status 401); check KSHOT_LLM_BASE_URL" in capsys.readouterr().err
    assert read_descriptions(out) == {"brush hair": WANTED}
    endpoint.mode = "good"
    assert run(data, out) == 0
    assert len(read_descriptions(out)) == 3


def test_passing_failures_are_asked_again(endpoint: Endpoint, data: Path, tmp_path: Path) -> None:
    endpoint.failures_first = 1
    assert run(data, tmp_path / "stages.yaml", "--concurrency", "1") == 0
    assert len(endpoint.calls) == 4


def test_an_endpoint_without_structured_output_is_asked_plainly(
    endpoint: Endpoint, data: Path, tmp_path: Path
) -> None:
    endpoint.mode = "plain only"
    assert run(data, tmp_path / "stages.yaml", "--concurrency", "1") == 0
    structured = ["response_format" in call for call in endpoint.calls]
    assert structured == [True, False, False, False]


@pytest.mark.parametrize("mode", ["refusal", "not json", "broken json", "no choices", "good"])
def test_labels_that_get_no_sentences_are_told_and_left_out(
    endpoint: Endpoint,
    data: Path,
    tmp_path: Path,
    mode: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    endpoint.mode, endpoint.content = mode, '{"stages": ["one", "two"]}'
    assert run(data, tmp_path / "stages.yaml") == 2
    said = capsys.readouterr()
    assert "3 of 3 labels got no description" in said.err
    assert set(json.loads(said.out.splitlines()[-1])["failed"]) == set(LABELS)
    assert len(endpoint.calls) == 9
    assert not (tmp_path / "stages.yaml").exists()


def test_a_full_disk_ends_in_one_sentence_and_leaves_nothing_half(
    endpoint: Endpoint,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "stages.yaml"
    write_descriptions(out, {"fly": OWN})
    before = out.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    assert run(data, out) == 2
    assert "cannot be written (No space left on device); free" in capsys.readouterr().err
    assert out.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.csv", "stages.yaml"]
    assert endpoint.calls


@pytest.mark.parametrize(
    ("more", "said"),
    [(["--out", "a.txt"], "ends in none of"), (["--concurrency", "0"], "asks nothing")],
)
def test_arguments_that_do_not_fit_are_told(
    endpoint: Endpoint,
    data: Path,
    tmp_path: Path,
    more: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(data, tmp_path / "a.yaml", *more) == 2
    assert said in capsys.readouterr().err
    assert endpoint.calls == []


def test_no_endpoint_or_no_names_are_told(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("KSHOT_LLM_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert run(data, tmp_path / "a.yaml") == 2
    assert "set OPENAI_API_KEY or KSHOT_LLM_BASE_URL" in capsys.readouterr().err
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    (tmp_path / "numbers").mkdir()
    (tmp_path / "numbers/test.txt").write_text("test0//511\n")
    assert run(tmp_path / "numbers", tmp_path / "a.yaml") == 2
    assert "only numbers its classes; give their names" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        "brush hair: {label: brush hair, sub_act_en_li: [It begins., It goes on., It ends.]}",
        "Brush Hair: [It begins., It goes on., It ends.]",
        "brush_hair: {stages: [It begins., It goes on., It ends.]}",
        "x: {label: BrushHair, sub_act_en_li: [It begins., It goes on., It ends.]}",
    ],
)
def test_entries_are_joined_by_their_words(tmp_path: Path, text: str) -> None:
    file = tmp_path / "a.yml"
    file.write_text(f"walk: [a, b, c]\n{text}\n")
    assert stages_of(read_descriptions(file), ["brush_hair"], file) == {"brush_hair": OWN}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[", "cannot be read"),
        ("- a", "is no table of labels"),
        ("a: [x, y]", "'a': A description has exactly 3 stages, not 2"),
        ("on: [x, y, z]", "label True, no text; put it in quotes"),
        ("sit_down: [x, y, z]\nSit Down: [x, y, a]", "twice, as 'sit_down' and 'Sit Down'"),
    ],
)
def test_files_that_do_not_fit_are_told(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.yml").write_text(text)
    with pytest.raises(InputError, match=said):
        read_descriptions(tmp_path / "a.yml")


def test_labels_without_description_are_listed(tmp_path: Path) -> None:
    held = {"wave": OWN}
    with pytest.raises(InputError, match=r"1 of 8 labels, not 'a', 'b', 'c', 'd', 'e' and 2 more"):
        stages_of(held, ["wave", *"abcdefg"], tmp_path / "a.yml")


def test_yaml_is_in_the_form_of_the_corpora(tmp_path: Path) -> None:
    write_descriptions(tmp_path / "a.yml", {"Brush_hair": OWN})
    loaded = yaml.safe_load((tmp_path / "a.yml").read_text())
    assert loaded == {"brush hair": {"label": "Brush_hair", "sub_act_en_li": list(OWN)}}


def test_the_corpus_of_hmdb51_describes_every_class_of_its_split_files() -> None:
    corpus, splits = SHARED / "text/sub_actions/classes_hmdb51.yml", SHARED / "text/splits/hmdb51"
    if not corpus.is_file() or not splits.is_dir():
        pytest.skip(f"{corpus} is not here; it is not part of the project")
    labels = [label for of_split in read_labels(splits)[0].values() for label in of_split]
    assert len(stages_of(read_descriptions(corpus), labels, corpus)) == 51
    something = corpus.with_name("classes_somethingcmn.yml")
    assert "holding something in front of something" in read_descriptions(something)
