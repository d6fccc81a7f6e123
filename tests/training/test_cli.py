"""What all commands share: one sentence and exit code 2, JSON last, progress in plain lines."""

import argparse
import dataclasses
import json
import re
from collections.abc import Callable, Mapping

import pytest

from model.errors import CheckpointError
from training import cli, progress
from training.errors import IncompleteError, InputError
from training.fit import COMMAND as FIT
from training.meta.recipe import FitRecipe
from training.meta.recipes.reading import read_recipe


def command(run: Callable[[argparse.Namespace], Mapping[str, object] | None]) -> cli.Command:
    def declare(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--count", type=int, required=True, help="of things")
        cli.add_device_options(parser)

    return cli.Command("room.count", "Count things.\n\npython -m training.room.count", declare, run)


def failing(error: Exception) -> cli.Command:
    def run(_: argparse.Namespace) -> None:
        raise error

    return command(run)


def test_the_last_line_is_the_result_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    counted = command(lambda options: {"count": options.count, "precision": options.precision})
    assert cli.main(counted, ["--count", "3"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told == {"count": 3, "precision": "auto"}


def test_a_process_that_does_not_lead_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(command(lambda _: None), ["--count", "3"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (InputError("The thing is 3; give 4."), "count: The thing is 3; give 4."),
        (CheckpointError("There is no checkpoint."), "count: There is no checkpoint."),
        (OSError(28, "No space left on device"), "count: A file cannot be read or written"),
    ],
)
def test_what_does_not_fit_is_one_sentence_and_exit_code_2(
    error: Exception, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(failing(error), ["--count", "3"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    (line,) = told.err.splitlines()
    assert line.startswith(said)


def test_a_mistake_of_the_program_is_no_sentence() -> None:
    with pytest.raises(ZeroDivisionError):
        cli.main(failing(ZeroDivisionError()), ["--count", "3"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "the following arguments are required: --count"),
        (["--count", "few"], "invalid int value: 'few'"),
        (["--count", "1", "--colour", "red"], "unrecognized arguments: --colour red"),
        (["--count", "1", "--precision", "fp8"], "invalid choice: 'fp8'"),
    ],
)
def test_a_command_line_that_does_not_fit_is_one_sentence(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(command(lambda _: {}), arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert line.endswith("`python -m training.room.count --help` lists the options.")


def test_help_shows_the_module_s_words_and_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(command(lambda _: {}), ["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "Count things.\n\npython -m training.room.count" in said
    assert "of things" in said


def test_work_of_which_a_part_failed_tells_both(capsys: pytest.CaptureFixture[str]) -> None:
    error = IncompleteError("1 of 2 failed; run the command again.", {"done": 1})
    assert cli.main(failing(error), ["--count", "3"]) == 2
    told = capsys.readouterr()
    assert told.err == "count: 1 of 2 failed; run the command again.\n"
    assert json.loads(told.out) == {"done": 1}


def test_pairs_are_read_or_refused_with_their_form() -> None:
    assert cli.pairs("--set", ["a=1", "b=c=d", "e="], "FIELD=VALUE") == {
        "a": "1",
        "b": "c=d",
        "e": "",
    }
    with pytest.raises(InputError, match=r"--set 'a' has no '='; write FIELD=VALUE\."):
        cli.pairs("--set", ["a"], "FIELD=VALUE")


def test_progress_without_a_terminal_is_a_line_at_most_every_ten_seconds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(progress.progress(range(50), desc="fast")) == list(range(50))
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "LINE_S", 0.0)
    assert list(progress.progress(range(2), desc="slow")) == [0, 1]
    lines = capsys.readouterr().err.splitlines()
    assert lines
    assert all(line.startswith("slow") for line in lines)


def test_two_thousand_steps_in_a_log_are_a_line_every_ten_seconds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    for _ in progress.progress(range(2000), desc="steps"):
        now[0] += 0.02
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("%")[0].split()[-1] for line in lines] == ["25", "50", "75", "100"]


def test_a_recipe_s_fields_are_explained_with_their_defaults(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(FIT, ["--recipe", "help"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    for field in dataclasses.fields(FitRecipe):
        value = json.dumps(getattr(FitRecipe(), field.name))
        assert re.search(rf"^  {field.name}={re.escape(value)}\n      [A-Z].*\.$", told, re.M), (
            field
        )


def test_a_recipe_says_how_many_steps_its_episodes_are() -> None:
    assert "40 episodes, 4 a step, are 10 steps" in str(read_recipe("adamw", {"episodes": "40"}))


@pytest.mark.parametrize("value", ["3", "[3]", "[3,4,5]", "three"])
def test_a_field_of_several_values_says_how_it_is_written(value: str) -> None:
    with pytest.raises(InputError, match=r"of ways is .*; write a list, such as ways=\[5,5\]\."):
        read_recipe("adamw", {"ways": value})
