"""Ask a Prometheus all that the dashboard shows, and tell what it knows nothing of.

    python -m deploy.dashboard http://127.0.0.1:9090

The exit status is 0 where every query is answered; an answer without a series is one, as of a GPU
where there is none. A replica that Prometheus does not reach is a fault.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

BOARD = Path(__file__).resolve().parent / "grafana" / "kshot.json"
VARIABLES = {"$instance": ".*", "$__rate_interval": "1m"}  # as Grafana puts them in


def main(arguments: Sequence[str] | None = None) -> int:
    """Ask, and print a line a panel."""
    parser = argparse.ArgumentParser(
        description="Ask a Prometheus every query of the dashboard; tells how many series each has."
    )
    parser.add_argument("url", help="Address of Prometheus, such as http://127.0.0.1:9090.")
    options = parser.parse_args(arguments)
    try:
        with httpx.Client(base_url=options.url, timeout=30) as http:
            down = [row["metric"]["instance"] for row in asked(http, 'up{job="kshot"} == 0')]
            up = [row["metric"]["instance"] for row in asked(http, 'up{job="kshot"} == 1')]
            empty = sum(not told(http, panel) for panel in panels())
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        sys.stderr.write(f"{options.url} gives no answer of Prometheus: {error}\n")
        return 2
    print(json.dumps({"up": up, "down": down, "panels": len(panels()), "without_series": empty}))
    return 1 if down or not up else 0


def panels() -> list[dict[str, Any]]:
    """Return the panels of the dashboard."""
    read: list[dict[str, Any]] = json.loads(BOARD.read_text(encoding="utf-8"))["panels"]
    return read


def told(http: httpx.Client, panel: dict[str, Any]) -> int:
    """Print how many series a panel shows; returns it."""
    series = sum(len(asked(http, target["expr"])) for target in panel["targets"])
    print(f"{series:4d}  {panel['title']}")
    return series


def asked(http: httpx.Client, query: str) -> list[dict[str, Any]]:
    """Ask one query now; returns its series.

    Raises:
        httpx.HTTPError: It is refused, or there is no answer.
    """
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    answer = http.get("/api/v1/query", params={"query": query})
    answer.raise_for_status()
    found: list[dict[str, Any]] = answer.json()["data"]["result"]
    return found


if __name__ == "__main__":
    sys.exit(main())
