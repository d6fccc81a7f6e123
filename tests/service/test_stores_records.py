"""The values that stores keep, and their sealed and JSON forms."""

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from service.stores import records, sealing
from service.stores.errors import StoreCorruptError
from service.stores.sealing import join_chunks, split_chunks
from tests.service.test_stores_contract import tasks_of_any_kind
from tests.stored_tasks import a_task


@given(tasks_of_any_kind)
def test_json_gives_back_an_equal_record(record: records.TaskRecord) -> None:
    assert records.from_json(records.to_json(record)) == record


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"colour": "red"}, "colour"),
        ({"schema_version": 2}, "schema_version"),
        ({"revision": "1"}, "revision"),
        ({"created_at": None}, "created_at"),
        (
            {"labels": [{"label": "x", "stages": ["a", 2], "text_source": "llm"}]},
            "labels.0.stages.1",
        ),
        ({"task_id": "../x"}, "task_id"),
    ],
)
def test_a_document_that_does_not_fit_is_refused_by_field(
    changes: dict[str, Any], field: str
) -> None:
    document = json.loads(records.to_json(a_task())) | changes
    with pytest.raises(StoreCorruptError, match=f"at {field}"):
        records.from_json(json.dumps(document).encode())


def test_a_record_of_before_there_were_warnings_is_read() -> None:
    task = a_task()
    document = json.loads(records.to_json(task))
    for clip in document["clips"]:
        del clip["warnings"]
    assert records.from_json(json.dumps(document).encode()) == task


def test_a_missing_field_is_refused() -> None:
    document = json.loads(records.to_json(a_task()))
    del document["clips"]
    with pytest.raises(StoreCorruptError, match="at clips"):
        records.from_json(json.dumps(document).encode())


@pytest.mark.parametrize("document", [b"", b"{", b"null", b"[]", b"\xff"])
def test_what_is_no_document_is_refused(document: bytes) -> None:
    with pytest.raises(StoreCorruptError):
        records.from_json(document)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -1.0])
def test_a_record_is_checked_when_it_is_made(wrong: float) -> None:
    with pytest.raises(ValidationError):
        dataclasses.replace(a_task(), created_at=wrong)


@given(st.binary(max_size=200), st.data())
def test_a_seal_notices_every_change(payload: bytes, data: st.DataObject) -> None:
    sealed = sealing.seal("record/a", payload)
    assert sealing.unseal("record/a", sealed) == payload
    position = data.draw(st.integers(0, len(sealed) - 1))
    bit = data.draw(st.integers(0, 7))
    changed = bytearray(sealed)
    changed[position] ^= 1 << bit
    for wrong in (bytes(changed), sealed[:position], sealed + b"x"):
        with pytest.raises(StoreCorruptError):
            sealing.unseal("record/a", wrong)


def test_a_later_format_is_named() -> None:
    sealed = sealing.seal("record/a", b"x").replace(b"kshot 1", b"kshot 2")
    with pytest.raises(StoreCorruptError, match="has format"):
        sealing.unseal("record/a", sealed)


@given(st.lists(st.binary(max_size=50), max_size=5), st.integers(1, 60))
def test_chunks_join_to_the_pictures(pictures: list[bytes], size: int) -> None:
    given_pictures = {"c": tuple(pictures), "d": (b"other",)}
    chunks = split_chunks("t", given_pictures, size)
    assert max(map(len, chunks.values())) < size + 200
    own = {name: value for name, value in chunks.items() if name.startswith("c/")}
    assert join_chunks("t", "c", dict(reversed(own.items()))) == tuple(pictures)
    if len(own) > 1:
        own.popitem()
        with pytest.raises(StoreCorruptError, match="missing"):
            join_chunks("t", "c", own)


@given(st.lists(tasks_of_any_kind, max_size=8))
def test_places_sort_as_time_and_id_do(tasks: list[records.TaskRecord]) -> None:
    by_place = sorted(tasks, key=records.place_of)
    by_value = sorted(tasks, key=lambda record: (record.created_at, record.task_id))
    assert [(t.created_at, t.task_id) for t in by_place] == [
        (t.created_at, t.task_id) for t in by_value
    ]
    for task in tasks:
        place = records.place_of(task)
        assert records.from_cursor(records.to_cursor(place)) == place
