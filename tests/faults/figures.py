"""What the long form of a test measured, beside what the promise asks for.

`make soak` runs the long form: it lasts longer, asks for rates, and prints figures. Neither form
asserts a time: a bar that is missed is shown as missed.
"""

import json
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from tests.bench.bars import Bar, table
from tests.bench.schedule import percentile
from tests.faults.load import Outcome

LONG = bool(os.environ.get("KSHOT_TEST_SOAK"))
LONG_S = 10.0  # of each phase of a long form


def tell(promise: str, bars: Sequence[Bar], **details: object) -> None:
    """Print the figures of a promise: a table, and a line of JSON."""
    rows = [bar.row() for bar in bars]
    told = {
        "promise": promise,
        "at": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cores": len(os.sched_getaffinity(0)),
        "load_1min": round(os.getloadavg()[0], 1),
        "bars": rows,
        **details,
    }
    print(f"\n{promise}\n{table(rows)}\n{json.dumps(told)}", flush=True)  # noqa: T201


def linger() -> None:
    """Let a phase of a long form last; a short one goes on at once."""
    if LONG:
        time.sleep(LONG_S)


def p99_ms(outcomes: Sequence[Outcome]) -> float:
    return round(1e3 * percentile([one.took_s for one in outcomes], 99), 1)
