"""`kshot-admin model`: asks running services which model they serve, and to serve another one."""

import argparse
import os
import sys
import time
from typing import Any

import httpx

from service.errors import SettingsError

DONE, REFUSED = 0, 1
PROBLEM = "application/problem+json"
DEFAULT_URL = "http://127.0.0.1:8000"
PLACE = "/v1/admin/model"
ANSWER_S = 120.0  # a checkpoint is read before the answer
LOOK_S, TELL_S = 0.5, 10.0  # between two looks, and between two lines of the same state


def run(arguments: argparse.Namespace) -> int:
    """Ask one service after the other; returns the exit status.

    Args:
        arguments: `url`, `key`, `verb`; of `serve` also `checkpoint` and `no_wait`.

    Raises:
        SettingsError: No service answers at an address.
    """
    key = arguments.key or os.environ.get("KSHOT_API_KEY")
    headers = {"authorization": f"Bearer {key}"} if key else {}
    for url in arguments.url or [os.environ.get("KSHOT_URL") or DEFAULT_URL]:
        try:
            with httpx.Client(base_url=url, headers=headers, timeout=ANSWER_S) as http:
                asked = _serve if arguments.verb == "serve" else _show
                status = asked(http, url, arguments)
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeEncodeError) as error:
            raise SettingsError(
                f"{url} does not answer ({error or type(error).__name__}); check --url, and that "
                "the service runs."
            ) from None
        if status != DONE:  # whoever comes next keeps what it has
            return status
    return DONE


def _show(http: httpx.Client, url: str, _: argparse.Namespace) -> int:
    found = _read(http.get(PLACE))
    if found is None:
        return REFUSED
    allowed = ", ".join(found["allowed"])
    print("\t".join([url, found["model"], found["model_revision"], f"may serve {allowed}"]))
    if found["swap"]:
        print(_line(url, found["swap"]))
    return DONE


def _serve(http: httpx.Client, url: str, arguments: argparse.Namespace) -> int:
    """Ask for a checkpoint, and wait until it answers for all tasks."""
    found = _read(http.post(PLACE, json={"checkpoint": arguments.checkpoint}))
    state, told, line = "", 0.0, ""
    while found is not None:
        swap = found["swap"]
        if swap is None:
            print(f"{url}\tbegan anew, with {found['model']} as its settings say")
            return REFUSED
        ended = swap["state"] in ("done", "failed")
        new, late = _line(url, swap), time.monotonic() - told >= TELL_S
        if swap["state"] != state or (new != line and (late or ended)):
            print(new, flush=True)
            state, told, line = swap["state"], time.monotonic(), new
        if ended or arguments.no_wait:
            return REFUSED if swap["state"] == "failed" else DONE
        time.sleep(LOOK_S)
        found = _read(http.get(PLACE))
    return REFUSED


def _read(answer: httpx.Response) -> dict[str, Any] | None:
    """Return what was answered; None, and say so, where it was refused."""
    if answer.is_success:
        return dict(answer.json())
    said = f"{answer.request.url} answered {answer.status_code}"
    if answer.headers.get("content-type") == PROBLEM:
        problem = answer.json()
        said = f"[{problem['code']}] {problem['detail']}"
    print(said, file=sys.stderr)
    return None


def _line(url: str, swap: dict[str, Any]) -> str:
    parts = [url, swap["checkpoint"], swap["state"]]
    if swap["tasks"]:
        parts.append(f"{swap['encoded']} of {swap['tasks']} tasks")
    if swap["left"]:
        parts.append(f"{swap['left']} left to the older one")
    return "\t".join([*parts, *([swap["failure"]] if swap["failure"] else [])])
