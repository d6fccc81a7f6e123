"""What Prometheus reads: the numbers are right, and no word of a client is a metric label."""

import inspect
import re
from collections.abc import Mapping

import httpx
from prometheus_client.parser import text_string_to_metric_families

from model.media.container import MediaLimits
from service.engine.queue import KINDS
from service.errors import RequestError
from service.http.statuses import ROUTE_CODES, STATUS
from service.metrics.meters import METHODS, NONE, OTHER, REFUSED
from service.stores.protocol import OPS, TaskStore
from service.stores.quotas.kept import KIND
from tests.metric_table import documented
from tests.serving import classify, moving_clip, register

SECRET = "never-in-metrics"


def samples(client: httpx.Client) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    answer = client.get("/metrics")
    assert answer.status_code == 200
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def added(
    before: Mapping[tuple[str, frozenset[tuple[str, str]]], float],
    after: Mapping[tuple[str, frozenset[tuple[str, str]]], float],
    name: str,
    **labels: str,
) -> float:
    key = (name, frozenset(labels.items()))
    return after.get(key, 0.0) - before.get(key, 0.0)


def test_a_classify_is_counted_once_at_each_stage(
    client: httpx.Client, clips: dict[str, list[bytes]]
) -> None:
    begun = samples(client)
    task = register(client, clips)["id"]
    before = samples(client)
    assert added(begun, before, "kshot_register_seconds_count", outcome="ok") == 1
    assert added(begun, before, "kshot_task_ready_seconds_count", text_source="template") == 1
    assert added(begun, before, "kshot_store_seconds_count", op="create", outcome="ok") == 1
    assert added(begun, before, "kshot_stage_duration_seconds_count", stage="text") >= 1
    classify(client, task, moving_clip(10), moving_clip(20))
    assert client.patch(f"/tasks/{task}", json={"name": "counted"}).status_code == 200
    refused = client.post(f"/tasks/{task}/classify", files=[("clip", ("x.mp4", b"none"))])
    after = samples(client)
    route = {"method": "POST", "route": "/tasks/{task_id}/classify"}
    seconds = "kshot_http_request_duration_seconds_count"
    assert added(before, after, seconds, status="200", **route) == 1
    assert added(before, after, seconds, status=str(refused.status_code), **route) == 1
    assert added(before, after, "kshot_problems_total", code=refused.json()["code"]) == 1
    assert added(before, after, "kshot_admission_total", outcome="ok") == 3
    assert added(before, after, "kshot_decode_total", outcome="ok", codec="h264") == 2
    assert added(before, after, "kshot_score_margin_count") == 2
    assert added(before, after, "kshot_batch_frames_sum", stage="classify") == 2 * 8
    assert added(before, after, "kshot_stage_queue_seconds_count", stage="classify") == 1
    batches = sum(
        added(before, after, "kshot_dispatch_total", reason=reason)
        for reason in ("full", "deadline", "delay", "idle")
    )
    assert batches == added(before, after, "kshot_batch_tasks_count") >= 1
    assert added(before, after, "kshot_batch_tasks_sum") == batches
    assert added(before, after, "kshot_batch_pad_ratio_sum", stage="classify") == 0
    assert added(before, after, "kshot_stage_duration_seconds_count", stage="receive") == 3
    assert added(before, after, "kshot_store_seconds_count", op="get", outcome="ok") >= 2
    absent = client.get(f"/tasks/{'0' * 32}").json()["code"]
    assert added(after, samples(client), "kshot_store_seconds_count", op="get", outcome=absent) == 1


def test_the_state_of_the_service_is_read_when_it_is_asked(client: httpx.Client) -> None:
    found = samples(client)
    assert found["kshot_requests_in_flight", frozenset()] == 1  # this one
    assert found["kshot_decoders", frozenset({("state", "alive")})] == 2
    waiting = {dict(labels)["class"] for name, labels in found if name == "kshot_queue_frames"}
    assert waiting == set(KINDS)
    (info,) = (labels for name, labels in found if name == "kshot_build_info")
    model = client.get("/info").json()["model"]
    assert dict(info)["model_revision"] == model["fingerprint"][:12]


def test_no_metric_label_comes_from_a_client(
    client: httpx.Client, clips: dict[str, list[bytes]]
) -> None:
    labels = {f"{SECRET} {label}": given for label, given in clips.items()}
    task = register(client, labels, name=SECRET)["id"]
    client.request(SECRET, "/tasks")
    client.get(f"/{SECRET}")
    client.get(f"/tasks/{SECRET}", headers={"x-request-id": SECRET})
    client.post("/tasks", content=b"x", headers={"content-type": f"text/{SECRET}"})
    text = client.get("/metrics").text
    assert SECRET not in text
    assert task not in text
    codes = {kind.code for kind in STATUS} | set(ROUTE_CODES.values()) | {RequestError.code}
    closed = {
        "method": METHODS | {OTHER},
        "outcome": codes | {"ok", "described", "failed", "cancelled"} | set(REFUSED.values()),
        "codec": {*MediaLimits().codecs, "pictures", NONE},
        "code": codes,
        "stage": {*KINDS, "decode", "receive", "text", "llm"},
        "op": set(OPS),
        "quota": set(KIND),
        "text_source": {"client", "llm", "template", "mixed"},
        "reason": {"full", "deadline", "delay", "idle", "disconnect", "shutdown", "failed"},
    }
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            for name, values in closed.items():
                assert sample.labels.get(name, next(iter(values))) in values, sample
            route = sample.labels.get("route", "/tasks")
            assert re.fullmatch(r"-|/|(/[a-z0-9_.:{}-]+)+", route), sample


def test_every_operation_of_a_store_is_counted() -> None:
    asked = {name for name, kind in vars(TaskStore).items() if inspect.iscoroutinefunction(kind)}
    assert set(OPS) == asked - {"close"}


def test_the_table_of_metrics_is_what_is_there(client: httpx.Client) -> None:
    told = documented()
    families = text_string_to_metric_families(client.get("/metrics").text)
    there = {
        {"counter": f"{family.name}_total", "info": f"{family.name}_info"}.get(
            family.type, family.name
        )
        for family in families
        if family.type != "gauge" or not family.name.endswith("_created")
    }
    there.discard("kshot_build")
    assert told - {"kshot_gpu_memory_bytes"} == there - {"kshot_gpu_memory_bytes"}


def test_health_and_model_have_the_names_of_the_open_inference_protocol(
    client: httpx.Client,
) -> None:
    for name in ("live", "ready"):
        answer = client.get(f"/v2/health/{name}")
        assert answer.status_code == 200
        assert answer.json()["ok"]
    model = client.get("/info").json()["model"]
    found = client.get(f"/v2/models/{model['name']}").json()
    assert found["versions"] == [model["fingerprint"]]
    assert found["inputs"][0]["shape"] == [-1, model["frames"], model["size"], model["size"], 3]
    assert client.get("/v2/models/other").json()["code"] == "model-not-found"
