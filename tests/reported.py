"""Results by hand, as `training.evaluate` and `training.compare` tell them."""

from typing import Any

MARKUP = "<img src=x onerror=alert(1)>"
ARABIC = "يلوّح بيده"
LABELS = ["wave", MARKUP, ARABIC]


def cell(accuracy: float, **more: object) -> dict[str, Any]:
    """One row's answers: 8 queries a label, 3-way, of two episodes."""
    return {
        "ways": 3,
        "shots": 1,
        "query_context": "none",
        "transductive": False,
        "accuracy": accuracy,
        "by_class": dict(zip(LABELS, [87.5, 50.0, None], strict=True)),
        "class_intervals": dict(zip(LABELS, [4.2, 9.9, None], strict=True)),
        "confusion": [[87.5, 12.5, 0.0], [25.0, 50.0, 25.0], [None, None, None]],
        "answered": [[1407, 201, 0], [402, 804, 402], [0, 0, 0]],
        "asked": [[1608] * 3, [1608] * 3, [0] * 3],
        **more,
    }


def evaluation() -> dict[str, Any]:
    """A method with text, asked on 3 and on 2 ways."""
    stages = {"own": [[0.31, 0.42, 0.53]] * 2 + [[None] * 3], "others": [[0.11, 0.1, 0.12]] * 3}
    one = {"checkpoint": "mine", "revision": "068c763828e2ef26", "episodes": 400}
    return {
        "measured": {
            "command": "python -m training.evaluate --checkpoint mine --data '<b>.csv'",
            "data": "drawn",
            "environment": {"torch": "2.14.1", "python": "3.11.7", "date": "2026-11-29"},
        },
        "split": "test",
        "queries": 5,
        "episodes": 400,
        "seed": 7,
        "list": None,
        "rows": [
            cell(68.75, interval=1.25, stages=stages, **one),
            cell(80.0, interval=2.0, **one) | {"ways": 2},
        ],
        "over_seeds": [],
    }


def comparison() -> dict[str, Any]:
    """A base, a row that is paired with it, one of an earlier version, and two not finished."""
    figures = {"interval_seeds": None, "interval_episodes": 0.3}
    seeds = {"seeds": 2, "interval_seeds": 2.5, "interval_episodes": 0.4}
    paired = {"beyond": {"base": "frozen", "mean": 1.5, "interval": 0.2, "episodes": 400}}

    def row(name: str, *cells: dict[str, Any]) -> dict[str, Any]:
        training = {"seeds": [0, 1], "trained_parameters": 12345, "seconds": [10.0, 13.0]}
        return {"name": name, **training, "best_steps": [5, 7], "val": [*cells], "test": [*cells]}

    return {
        "measured": {"data": "drawn"},
        "budget": "32 training episodes a cell",
        "rows": [
            row("frozen", cell(60.0, **figures)),
            row(f"paired {MARKUP}", cell(61.5, **seeds, **paired)),
            row("earlier", cell(57.0, **seeds)),
        ],
        "unfinished": [
            {"name": "half", "seeds": [0, 1, 2], "trained": [0]},
            {"name": "ridge", "seeds": [], "trained": []},
        ],
    }
