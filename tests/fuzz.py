"""Ask a real service what its OpenAPI document allows, and what it forbids: schemathesis.

    make fuzz                                      # as in CI: about a minute, the same each time
    make fuzz ARGS='--examples 40 --seed 7 --seconds 600'

It fails where an answer is none that the document describes: another status, type or shape, a 5xx
beside those of overload, a body that the document forbids and the service takes. What is sent
depends on the seed and the document alone: not on time, and on no answer that came before.

schemathesis is a plugin of pytest, so it has an environment of its own, `.venv/fuzz`.

Left out, because no schema can say it or because it was asked for:

- that a body which fits the schema is taken: clips must decode, labels differ, lists go in step
- 503 and 504: a case may ask for a deadline of a millisecond
- `importTask`: its body is a zip, and `/tasks/import` is a path of `/tasks/{task_id}` too
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from service.settings import Settings
from tests.serving import serving, tiny_checkpoint

ROOT = Path(__file__).resolve().parents[1]
COMMAND = ROOT / ".venv" / "fuzz" / "bin" / "schemathesis"
CONFIG = """
[phases.stateful]
enabled = false

[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", "503", "504"]

[checks.positive_data_acceptance]
enabled = false
"""


def main() -> int:
    """Run it; give the exit status of schemathesis."""
    parser = argparse.ArgumentParser(description="Fuzz a tiny service of this machine.")
    parser.add_argument("--examples", type=int, default=10, help="of each operation (default 10)")
    parser.add_argument("--seconds", type=int, default=110, help="how long at most (default 110)")
    parser.add_argument("--seed", type=int, default=1, help="of every choice (default 1)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kshot-fuzz-") as name:
        folder = Path(name)
        config = folder / "schemathesis.toml"
        config.write_text(CONFIG, encoding="utf-8")
        settings = Settings(
            checkpoint=str(tiny_checkpoint(folder / "checkpoint")),
            store=f"sqlite:{folder / 'store'}",
            threads=1,
            decode_workers=1,
        )
        with serving(settings) as http:
            asked = ["--config-file", config, "run", f"{http.base_url}/openapi.json"]
            asked += ["--seed", options.seed, "--max-examples", options.examples]
            asked += ["--max-time", options.seconds, "--request-timeout", 30]
            asked += ["--exclude-operation-id", "importTask", "--generation-database", "none"]
            done = subprocess.run([COMMAND, *map(str, asked)], cwd=folder)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
