"""Ask a real service what its OpenAPI document allows, and what it forbids: schemathesis.

    make fuzz                                      # as in CI: under a minute, the same each time
    make fuzz ARGS='--examples 40 --seed 7 --seconds 600'

It fails where an answer is none that the document describes: another status, type or shape, a 5xx
beside those of overload, a body that the document forbids and the service takes. What is sent
depends on the seed and the document alone: not on time, and on no answer that came before.

schemathesis is a plugin of pytest, so it has an environment of its own, `.venv/fuzz`.

Left out, because no schema can say it or because it was asked for:

- that a body which fits the schema is done (clips must decode, labels differ, lists go in step);
  that it can be read is asked, so 400 is a failure
- 405 of two paths, whose end may be part of a label
- 503 and 504: a case may ask for a deadline of a millisecond
- `importTask`: its body is a zip, and `/tasks/import` is a path of `/tasks/{task_id}` too
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx

from service.settings import Settings
from tests.serving import moving_clip, query_files, register, serving, tiny_checkpoint

ROOT = Path(__file__).resolve().parents[1]
COMMAND = ROOT / ".venv" / "fuzz" / "bin" / "schemathesis"
CONFIG = """
[phases.stateful]
enabled = false

[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", "503", "504"]

[checks.positive_data_acceptance]
expected-statuses = [
    "2xx", "304", "404", "409", "410", "412", "413", "415", "422", "429", "503", "504",
]

[checks.negative_data_rejection]
expected-statuses = ["4xx", "503", "504"]

[generation]
no-shrink = true

[parameters]
"path.task_id" = "TASK"
"path.clip_id" = "CLIP"
"path.query_id" = "QUERY"

# A label may have slashes: PATCH .../labels/jump/clips renames the label `jump/clips`.
[[operations]]
include-operation-id = ["addClips", "describeLabel"]
checks.unsupported_method.enabled = false
checks.allow_header_conformance.enabled = false

# A clip of `support[LABEL]` without a name is text (RFC 7578), and bytes are none: 400. For a field
# whose name is a pattern, OpenAPI has no `encoding` that would say so.
[[operations]]
include-operation-id = "createTask"
checks.positive_data_acceptance.expected-statuses = ["2xx", "4xx", "503", "504"]

# They keep the task that the others ask for, and come to an end.
[[operations]]
include-operation-id = ["deleteTask", "watchTask"]
parameters = { "path.task_id" = "0d9c4d1c2f6d4c43a8a4f6f2c3d5e6f7" }
"""


def with_a_task(http: httpx.Client) -> str:
    """Make a task that has a label of each example and a remembered query; returns the config."""
    task = register(http, {label: [moving_clip(n)] for n, label in enumerate(("jump", "wave"))})
    asked = query_files(moving_clip(7))
    answer = http.post(f"/tasks/{task['id']}/classify", files=asked, data={"remember": "true"})
    names = {"TASK": task["id"], "CLIP": task["clips"][0]["clip_id"]}
    names["QUERY"] = answer.json()["results"][0]["query_id"]
    config = CONFIG
    for name, value in names.items():
        config = config.replace(f'"{name}"', f'"{value}"')
    return config


def main() -> int:
    """Run it; give the exit status of schemathesis."""
    parser = argparse.ArgumentParser(description="Fuzz a tiny service of this machine.")
    parser.add_argument("--examples", type=int, default=3, help="of each operation (default 3)")
    parser.add_argument("--seconds", type=int, default=110, help="how long at most (default 110)")
    parser.add_argument("--seed", type=int, default=1, help="of every choice (default 1)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kshot-fuzz-") as name:
        folder = Path(name)
        config = folder / "schemathesis.toml"
        settings = Settings(
            checkpoint=str(tiny_checkpoint(folder / "checkpoint")),
            store=f"sqlite:{folder / 'store'}",
            threads=1,
            decode_workers=1,
        )
        with serving(settings) as http:
            config.write_text(with_a_task(http), encoding="utf-8")
            asked = ["--config-file", config, "run", f"{http.base_url}/openapi.json"]
            asked += ["--seed", options.seed, "--max-examples", options.examples]
            asked += ["--request-timeout", 30, "--max-failures", 1]  # so a late end hides none
            asked += ["--exclude-operation-id", "importTask", "--generation-database", "none"]
            try:
                done = subprocess.run(
                    [COMMAND, *map(str, asked)], cwd=folder, timeout=options.seconds
                )
            except subprocess.TimeoutExpired:
                sys.stderr.write(f"Not at its end after {options.seconds} s; nothing failed.\n")
                return 0
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
