"""The page of results: figures by hand, its own file alone, and what it says of wrong input."""

import json
import re
import xml.etree.ElementTree as ET
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.reported import ARABIC, LABELS, MARKUP, cell, comparison, evaluation
from training.report.__main__ import main
from training.report.charts import MOST_LABELS, Bar, LinePlot, Matrix, Series
from training.report.page import page
from training.report.results import Cell, read_document


class Tags(HTMLParser):
    """What a page holds: its tags with their attributes, and its text without styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.said: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.said.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.said).split())


def page_of(document: dict[str, Any]) -> str:
    return page(read_document(document, "document"))


@pytest.fixture(scope="module", params=[evaluation, comparison])
def made(request: pytest.FixtureRequest) -> str:
    return page_of(request.param())


def test_a_page_needs_no_script_and_nothing_but_itself(made: str) -> None:
    found = Tags(made)
    tags = {tag for tag, _ in found.tags}
    assert not tags & {"script", "link", "img", "iframe", "object", "base", "use", "image"}
    names = {name for _, attributes in found.tags for name in attributes}
    assert not names & {"src", "href", "srcset", "xlink:href"}
    assert not [name for name in names if name.startswith("on")]
    assert "http://" not in made
    assert "https://" not in made
    assert "url(" not in made
    assert "@import" not in made
    assert "default-src 'none'" in made


def test_every_chart_says_what_it_is_and_every_id_is_one(made: str) -> None:
    found = Tags(made)
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert [name for name, count in Counter(ids).items() if count > 1] == []
    charts = [attributes for tag, attributes in found.tags if tag == "svg"]
    shown = [chart for chart in charts if chart.get("aria-hidden") != "true"]
    assert len(shown) >= 4
    for chart in shown:
        assert chart["role"] == "img"
        assert {chart["aria-labelledby"], chart["aria-describedby"]} <= set(ids)


def test_every_chart_is_well_formed(made: str) -> None:
    for svg in re.findall(r"<svg.*?</svg>", made, flags=re.DOTALL):
        ET.fromstring(svg)


def test_names_stay_text(made: str) -> None:
    assert "<img" not in made
    text = Tags(made).text
    assert MARKUP in text
    assert ARABIC in text


def test_the_counts_of_a_confusion_matrix_are_in_the_page() -> None:
    text = Tags(page_of(evaluation())).text
    for count in ("1,407", "201", "402", "804"):
        assert count in text
    assert f"{MARKUP} wave 25.0 402" in text  # of the most confused pairs
    assert f"{LABELS[1]} 25% 402 50% 804 25% 402" in text  # a row of the table
    assert f"{ARABIC} – – –" in text  # never asked


def test_an_evaluation_says_what_was_measured() -> None:
    text = Tags(page_of(evaluation())).text
    assert (
        "mine (weights 068c763828e2), asked 400 drawn episodes each of 2-way 1-shot, 3-way 1-shot, "
        "5 queries a label, seed 7, on the 3 test labels of drawn."
    ) in text
    assert "Measured on 2026-11-29: torch 2.14.1, python 3.11.7." in text
    assert "--data '<b>.csv'" in text
    assert "68.8 ± 1.2" in text
    assert "wave 87.5 ± 4.2" in text
    assert "Accuracy over ways" in text
    assert "wave 0.310 0.420 0.530 0.110 0.100 0.120" in text
    assert "not recorded" not in text


def test_differences_are_paired_where_they_were_recorded_and_else_marked() -> None:
    text = Tags(page_of(comparison())).text
    assert f"paired {MARKUP} +1.5 ± 0.2 +1.5 ± 0.2" in text
    assert "earlier −3.0 ± 0.5* −3.0 ± 0.5*" in text  # of 0.3 and 0.4
    assert "base frozen frozen" in text
    assert "61.5 ± 2.5" in text  # over seeds, where there are several


def test_rows_that_are_not_finished_are_shown_as_such() -> None:
    text = Tags(page_of(comparison())).text
    assert "3 rows finished, 2 not finished." in text
    assert "half : 1 of 3 seeds trained (0)" in text
    assert "ridge : not evaluated yet" in text
    nothing_yet = comparison() | {"rows": []}
    assert "half : 1 of 3 seeds trained (0)" in Tags(page_of(nothing_yet)).text


def test_what_earlier_versions_did_not_record_is_said() -> None:
    old = evaluation()
    del old["measured"]
    for row in old["rows"]:
        for field in ("answered", "asked", "class_intervals"):
            del row[field]
    text = Tags(page_of(old)).text
    assert "The command was not recorded." in text
    assert "Date, versions and hardware were not recorded." in text
    assert "Counts were not recorded." in text


def test_seeds_are_shown_beside_their_mean_which_alone_has_its_labels() -> None:
    document = evaluation()
    rows = [cell(70.0, interval=1.0, checkpoint=name) for name in ("a", "b", "other")]
    mean = cell(70.0, seeds=2, interval_seeds=3.0, interval_episodes=0.7, checkpoints=["a", "b"])
    text = Tags(page_of(document | {"rows": rows, "over_seeds": [mean]})).text
    assert "mean of 2 seeds 70.0 2 3.0 0.7" in text
    assert "Confusion of mean of 2 seeds: test, 3-way 1-shot" in text
    assert "Confusion of other" in text
    assert "Confusion of a:" not in text


def test_more_labels_than_one_can_read_are_listed_by_what_is_confused() -> None:
    labels = [f"label {number}" for number in range(MOST_LABELS + 1)]
    share = [[50.0 if abs(row - n) < 2 else 0.0 for n in range(41)] for row in range(41)]
    many = cell(50.0, interval=1.0, by_class=dict.fromkeys(labels, 50.0), confusion=share)
    text = Tags(page_of(evaluation() | {"rows": [many | {"answered": None}]})).text
    assert "41 labels are too many for a matrix" in text
    assert "label 0 label 1 50.0 –" in text


def test_places_in_charts_by_hand() -> None:
    bar = Bar("a", 98.0, 3.0)
    assert (bar.low, bar.high, bar.text) == (95.0, 100.0, "98.0 ± 3.0")
    plot = LinePlot("ways", [Series("a", ((2, 71.0, 2.0), (5, 55.0, None)))])
    assert (plot.floor, plot.ceiling) == (50, 80)
    assert (plot.y(50), plot.y(80)) == (plot.BOTTOM, plot.TOP)
    [(x1, y1, x2, y2)] = plot.strokes(plot.series[0])
    assert x1 < x2
    assert y1 < y2  # from the top
    flat = LinePlot("shots", [Series("a", ((1, 100.0, None), (5, 100.0, None)))])
    assert flat.y(100.0) == pytest.approx(flat.TOP)
    matrix = Matrix(Cell.model_validate(cell(50.0)))
    assert len(matrix.fields) == 6
    last = matrix.fields[-1]
    assert (last.text, last.below, last.share, last.own) == ("25%", "402", 0.25, False)
    assert last.x + matrix.width == pytest.approx(100, abs=0.01)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read (No such file or directory)"),
        ("accuracy: 50", "is not JSON"),
        ("[]", "holds no JSON object"),
        ("{}", "has no results at split"),
        (json.dumps(evaluation() | {"rows": []}), "has no results at rows"),
        (json.dumps({"budget": "b", "rows": [{"name": "a"}]}), "has no results at rows.0.seeds"),
        (
            json.dumps(evaluation() | {"rows": [cell(1.0) | {"accuracy": None}]}),
            "has no results at rows.0.accuracy",
        ),
        (
            json.dumps(evaluation() | {"rows": [cell(1.0) | {"confusion": [[1.0]]}]}),
            "has no results at rows.0",
        ),
    ],
)
def test_wrong_input_is_one_sentence_with_the_remedy(
    content: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "results.json", tmp_path / "report.html"
    if content is not None:
        file.write_text(content)
    assert main([str(file), "--out", str(out)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert said in line
    assert "give the JSON that training.evaluate prints last" in line
    assert not out.exists()


def test_kept_results_become_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "table.json", tmp_path / "pages" / "report.html"
    file.write_text(json.dumps(comparison()))
    assert main([str(file), "--out", str(out)]) == 0
    assert out.read_text(encoding="utf-8") == page_of(comparison())
    assert json.loads(capsys.readouterr().out) == {"out": str(out), "bytes": out.stat().st_size}
