"""An example of each body in the OpenAPI document; tests read them by the models of the routes."""

import json
from dataclasses import asdict
from typing import Any

from service.http.content import JSON
from service.limits import Limits

Value = dict[str, Any]

TASK_ID = "0d9c4d1c2f6d4c43a8a4f6f2c3d5e6f7"
CLIP_ID, QUERY_ID = "c5c02f5d9a4b4e0f", "q5e0c1d2b3a4958674"
REVISION = "068c763828e2ef26937646b833e25ac282695a17dc8d01a2b9123e2fc35cd7e3"
MADE = "2026-11-29T00:10:00.000+00:00"
STAGES = ["A hand is raised.", "The hand moves from side to side.", "The hand sinks."]
JUMPING = ["The knees bend.", "The body leaves the ground.", "The feet land."]
VIDEO = {"video": "AAAAIGZ0eXBpc29tAAACAGlzb20="}
FRAMES_S = [0.1, 0.4, 0.7, 1.0, 1.3, 1.6, 1.9, 2.2]

CLIP: Value = {
    "clip_id": CLIP_ID,
    "name": "a.mp4",
    "index": 0,
    "label": "wave",
    "duration_s": 2.4,
    "codec": "h264",
    "frames_s": FRAMES_S,
    "distinct": 8,
    "warnings": [],
}
TASK: Value = {
    "id": TASK_ID,
    "name": "gestures",
    "status": "ready",
    "progress": 1.0,
    "failure": None,
    "revision": 1,
    "created_at": MADE,
    "expires_at": None,
    "unknown_below": None,
    "inbox": None,
    "threshold": 0.31,
    "threshold_by": "checkpoint",
    "none_of_these": 0,
    "labels": [
        {"label": "wave", "clips": 1, "descriptions": STAGES, "text_source": "client"},
        {"label": "jump", "clips": 1, "descriptions": JUMPING, "text_source": "client"},
    ],
    "clips": [
        CLIP,
        CLIP | {"clip_id": "c81b6f0e2d7a4c19", "name": "c.mp4", "index": 1, "label": "jump"},
    ],
    "model": "compact",
    "model_revision": REVISION,
    "trained": True,
    "context": "none",
    "text": "client",
    "text_reason": None,
    "refused_clips": [],
    "diagnosis": None,
}
CHANGE = {"added_clips": [], "refused_clips": [], "encoded_clips": 0, "encoded_why": None}
CHANGED = TASK | {"revision": 2, "change": CHANGE}
LINE = {name: TASK[name] for name in ("id", "name", "status", "revision", "model_revision")}
LINE |= {"created_at": MADE, "expires_at": None, "labels": ["wave", "jump"], "clips": 2}
RANKING: list[Value] = [
    {"label": "wave", "score": 0.91, "video": 0.74, "text": 0.31, "stages": [0.3, 0.34, 0.29]},
    {"label": "jump", "score": 0.09, "video": 0.52, "text": 0.12, "stages": [0.1, 0.15, 0.11]},
]
TOP: Value = {
    "label": "wave",
    "score": 0.91,
    "unknown": False,
    "nearest": 0.74,
    "threshold": 0.31,
    "margin": 0.82,
}
RESULT: Value = {"clip_index": 0, "name": "q.mp4", **TOP, "query_id": None, "ranking": RANKING}
RESULT |= {"frames_s": FRAMES_S, "saliency": None, "warnings": [], "error": None}
OF_TASK = {"task_id": TASK_ID, "task_revision": 1, "model_revision": REVISION}
CLASSIFICATION: Value = {
    **OF_TASK,
    "context": "none",
    "text_source": "client",
    "text_reason": None,
    "threshold_by": "checkpoint",
    "results": [RESULT],
    "timing_ms": {"decode": 31.3, "queue": 0.4, "compute": 60.2},
}
ACCURACY = {"value": 0.8, "low": 0.49, "high": 0.94, "clips": 10}
DIAGNOSIS: Value = {
    **OF_TASK,
    "leave_one_out": ACCURACY,
    "labels": {"wave": ACCURACY, "jump": None},
    "confusions": [{"label": "wave", "taken_for": "jump", "share": 0.2}],
    "enough": {"measured": {"1": 0.7}, "now": 0.8, "one_more": 0.83, "label": "jump"},
    "findings": [
        {
            "code": "label-one-clip",
            "label": "jump",
            "clip_id": None,
            "others": [],
            "sentence": "The label 'jump' has one clip.",
            "remedy": "Add one.",
        }
    ],
    "judged_by": "Each clip was held out in turn, with one of every other label.",
}
QUERY: Value = {
    **{name: value for name, value in OF_TASK.items() if name != "task_id"},
    **TOP,
    "query_id": QUERY_ID,
    "name": "q.mp4",
    "answered_at": MADE,
    "kept_until": "2026-12-06T00:10:00.000+00:00",
    "ranking": [{"label": "wave", "score": 0.91}, {"label": "jump", "score": 0.09}],
    "duration_s": 2.4,
    "frames_s": FRAMES_S,
    "warnings": [],
}
INBOX: Value = {"task_id": TASK_ID, "task_revision": 1, "none_of_these": 2, "queries": [QUERY]}
TIMELINE: Value = {
    **OF_TASK,
    "context": "none",
    "name": "day.mp4",
    "codec": "h264",
    "duration_s": 61.2,
    "window_s": 1.2,
    "stride_s": 0.3,
    "windows": 201,
    "parameters": {
        "smooth_s": 0.0,
        "enter": 0.5,
        "leave": 0.5,
        "min_span_s": 0.9,
        "unknown_below": 0.1,
        "unknown_slack": 0.0,
    },
    "spans": [{"start_s": 3.45, "end_s": 5.85, "label": "wave", "score": 0.81, "peak_s": 4.8}],
    "scores": None,
    "warnings": [],
    "took_s": 5.1,
}
LIVE = {"ok": True, "degraded": False, "parts": {"event_loop": True, "device": True}, "reasons": {}}
ROW = {"shots": 5, "scale": 9.1, "threshold": 0.31, "fit": None}
INFO: Value = {
    "version": "0.1.0",
    "model": {
        "name": "compact",
        "fingerprint": REVISION,
        "trained": True,
        "text": True,
        "frames": 8,
        "size": 112,
        "squash": None,
        "query_context": "none",
        "backbone": "compact",
        "calibration": {
            "source": "the default of its family",
            "centres_scores": False,
            "video": [ROW],
            "text": [ROW],
        },
    },
    "runtime": {
        "kind": "torch",
        "precision": "fp32",
        "provider": "cpu",
        "device": "cpu",
        "threads": 2,
        "buckets": [],
        "why": "the only one there is",
        "measured_clips_s": {},
        "refused": {},
        "versions": {"torch": "2.14.1"},
    },
    "decoder": {"av": "18.1.0", "ffmpeg": "8.1.2"},
    "store": "sqlite",
    "descriptions": False,
}
INFERENCE: Value = {
    "name": "compact",
    "versions": [REVISION],
    "platform": "torch",
    "inputs": [{"name": "clips", "datatype": "UINT8", "shape": [-1, 8, 112, 112, 3]}],
    "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, -1]}],
}
NO_RESET: Value = {"reset_s": None}
USAGE: Value = {
    "tasks": {"limit": 100, "used": 12, "left": 88} | NO_RESET,
    "bytes": {"limit": None, "used": 48_000_000, "left": None} | NO_RESET,
    "clip_seconds": {"limit": 600.0, "used": 37.2, "left": 562.8, "reset_s": 21.5},
    "frames": {"limit": 6000, "used": 600, "left": 5400, "reset_s": 21.5},
    "window_s": 60.0,
}
SERVED: Value = {
    "model": "compact",
    "model_revision": REVISION,
    "allowed": ["gym-2", "compact"],
    "swap": {
        "checkpoint": "gym-2",
        "state": "encoding",
        "failure": None,
        "model_revision": "5a0e" + REVISION[4:],
        "tasks": 120,
        "encoded": 17,
        "left": 0,
        "begun_at": MADE,
        "ended_at": None,
    },
}
READY = LIVE | {"parts": {"model": True, "decoders": True, "store": True}}

# Of JSON bodies, by the operation's id.
REQUESTS: dict[str, Value] = {
    "createTask": {
        "name": "gestures",
        "inbox": {"keep": 50, "below": 0.6},
        "labels": [
            {"label": "wave", "descriptions": STAGES, "clips": [{**VIDEO, "name": "a.mp4"}]},
            {"label": "jump", "descriptions": JUMPING, "clips": [{**VIDEO, "name": "c.mp4"}]},
        ],
    },
    "changeTask": {"name": "gestures", "unknown_below": 0.4},
    "describeLabel": {"descriptions": STAGES},
    "addClips": {"clips": [VIDEO]},
    "putLabel": {"descriptions": STAGES, "clips": [VIDEO]},
    "renameLabel": {"label": "wave slowly"},
    "answerQuery": {"label": "wave"},
    "swapModel": {"checkpoint": "gym-2"},
    "classify": {"clips": [{**VIDEO, "name": "q.mp4"}], "remember": False, "explain": False},
    "timeline": {"clip": {**VIDEO, "name": "day.mp4"}, "window_s": 1.2},
}
ANSWERS: dict[str, Value] = {
    "createTask": TASK,
    "importTask": TASK,
    "getTask": TASK,
    "listTasks": {"tasks": [LINE], "next_cursor": None},
    **dict.fromkeys(("changeTask", "describeLabel", "renameLabel"), CHANGED),
    **dict.fromkeys(("removeLabel", "removeClip"), CHANGED),
    **dict.fromkeys(
        ("addClips", "putLabel", "answerQuery"),
        CHANGED | {"change": CHANGE | {"added_clips": [CLIP_ID], "encoded_clips": 1}},
    ),
    "classify": CLASSIFICATION,
    "timeline": TIMELINE,
    "diagnoseTask": DIAGNOSIS,
    "info": INFO,
    "usage": USAGE,
    "inferenceModel": INFERENCE,
    "listInbox": INBOX,
    **dict.fromkeys(("servedModel", "swapModel"), SERVED),
    **dict.fromkeys(("livez", "inferenceLive"), LIVE),
    **dict.fromkeys(("readyz", "inferenceReady"), READY),
}
# Of bodies that are text, by their media type.
TEXTS = {
    "text/event-stream": 'event: span\ndata: {"start_s": 3.45, "end_s": 5.85, "label": "wave", '
    '"score": 0.81, "peak_s": 4.8}\n\n',
    "text/csv": "Observation id,...,Behavior,...,Start (s),Stop (s),...\r\n"
    "day.mp4,...,wave,...,3.450,5.850,...\r\n",
    "text/vtt": "WEBVTT\n\n1\n00:00:03.450 --> 00:00:05.850\nwave (81%)\n",
    "text/plain": 'kshot_decode_total{outcome="ok",codec="h264"} 3.0\n',
}
PARAMETERS: dict[str, object] = {
    "task_id": TASK_ID,
    "clip_id": CLIP_ID,
    "query_id": QUERY_ID,
    "label": "wave",
    "name": "compact",
    "limit": 20,
    "cursor": f"{'0' * 16}-{TASK_ID}",
    "diagnosis": True,
    "remembered": True,
    "width": 96,
}


def illustrate(operation: Value, limits: Limits) -> None:
    """Add the examples of an operation's bodies and parameters; limits are their own example."""
    name = operation["operationId"]
    answers = ANSWERS | {"limits": json.loads(json.dumps(asdict(limits)))}
    if name in REQUESTS:
        operation["requestBody"]["content"][JSON]["example"] = REQUESTS[name]
    for parameter in operation.get("parameters", ()):
        if parameter["name"] in PARAMETERS:
            parameter.setdefault("example", PARAMETERS[parameter["name"]])
    for status, answer in operation["responses"].items():
        for kind, content in answer.get("content", {}).items() if status < "300" else ():
            if kind == JSON and name in answers:
                content["example"] = answers[name]
            elif kind in TEXTS:
                content["example"] = TEXTS[kind]
