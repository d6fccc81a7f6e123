"""The page as it is served: what a browser gets, and what our files keep to."""

import re
from pathlib import Path

import httpx
import pytest

from tests.serving import problem

PAGE = Path(__file__).resolve().parents[2] / "service" / "page"
FILES = sorted(PAGE.iterdir())
FIRST_LOAD_BYTES = 150_000
MOST_LINES = 3_000
MOST_MODULE_LINES = 300
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_each_file_is_given_by_its_type_and_nothing_else_may_run(
    client: httpx.Client, path: Path
) -> None:
    answer = client.get("/" if path.name == "index.html" else f"/page/{path.name}")
    assert answer.status_code == 200
    assert answer.content == path.read_bytes()
    assert answer.headers["content-type"].startswith(TYPES[path.suffix])
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_file_that_is_at_hand_is_not_sent_again(client: httpx.Client) -> None:
    tag = client.get("/page/app.js").headers["etag"]
    assert client.get("/page/app.js", headers={"if-none-match": "*"}).status_code == 304
    again = client.get("/page/app.js", headers={"if-none-match": tag})
    assert again.status_code == 304
    assert again.headers["etag"] == tag
    assert not again.content


def test_a_client_that_reads_no_gzip_gets_plain_files(client: httpx.Client) -> None:
    answer = client.get("/", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in answer.headers
    assert answer.content == (PAGE / "index.html").read_bytes()


def test_head_is_answered_without_a_body(client: httpx.Client) -> None:
    answer = client.head("/")
    assert answer.status_code == 200
    assert not answer.content


@pytest.mark.parametrize(
    "path", ["/page/nothing.js", "/page/index.html", "/page/..%2Fapp.py", "/page/../app.py"]
)
def test_only_files_of_the_page_are_given(client: httpx.Client, path: str) -> None:
    problem(client.get(path), 404, "route-not-found")


def test_all_of_the_page_is_less_than_a_first_load_may_be(client: httpx.Client) -> None:
    sent = 0
    for path in FILES:
        with client.stream("GET", "/" if path.suffix == ".html" else f"/page/{path.name}") as got:
            sent += sum(map(len, got.iter_raw()))
    assert sent <= FIRST_LOAD_BYTES


def test_the_page_is_small() -> None:
    lines = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert sum(lines.values()) <= MOST_LINES
    assert not {name: n for name, n in lines.items() if n > MOST_MODULE_LINES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_text_becomes_markup_and_no_address_is_foreign(path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert not re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text)
    assert not re.findall(r"(?:https?:)?//[a-z0-9-]+\.[a-z]", text)
    assert not re.findall(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon\w+=\"", text)
