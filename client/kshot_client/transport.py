"""What both clients share: settings, requests of httpx, and how far a flow has come."""

import os
from collections.abc import Generator, Mapping
from typing import Any, Generic, TypeVar

import httpx

from kshot_client.calls import Call, Step
from kshot_client.problems import SettingError
from kshot_client.retries import Retries, persistent
from kshot_client.uploads import WholeFile

T = TypeVar("T")
URL, KEY = "KSHOT_URL", "KSHOT_API_KEY"
DEFAULT_URL = "http://127.0.0.1:8000"
TIMEOUT_S = 120.0  # for each part of a request; the service may decode for 60 s and wait for 20


def settings_of(url: str | None, key: str | None) -> tuple[str, dict[str, str]]:
    """Return the address of the service and the headers of every request.

    Args:
        url: As it was given; None is that of KSHOT_URL, or this machine's.
        key: As it was given; None is that of KSHOT_API_KEY, or none.

    Raises:
        SettingError: One of them cannot be used.
    """
    address = (url or os.environ.get(URL) or DEFAULT_URL).rstrip("/")
    try:
        parsed = httpx.URL(address)
    except httpx.InvalidURL as error:
        raise SettingError(f"{address!r} is no address ({error}); write {DEFAULT_URL}.") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise SettingError(f"{address!r} is no address; write it like {DEFAULT_URL}.")
    token = key or os.environ.get(KEY)
    if not token:
        return address, {}
    if not token.isascii() or not token.isprintable() or " " in token:
        raise SettingError(f"The key has characters that no key has; see {KEY}.")
    return address, {"Authorization": f"Bearer {token}"}


def request_of(http: httpx.Client | httpx.AsyncClient, call: Call) -> httpx.Request:
    """Write a request; files are opened when they are sent."""
    given: dict[str, Any] = {}
    if call.json is not None:
        given["json"] = call.json
    if call.form is not None:
        given["data"] = dict(call.form.fields)
        given["files"] = [
            ("clip", (name, upload, "application/octet-stream")) for name, upload in call.form.clips
        ]
    request = http.build_request(
        call.method, call.path, params=dict(call.params), headers=dict(call.headers), **given
    )
    if call.file is not None:
        request.headers.pop("content-length", None)
        request.headers["Content-Length"] = str(call.file.length)
        request.stream = WholeFile(call.file)
    return request


class Course(Generic[T]):
    """How far a flow has come.

    Args:
        flow: Which.
        retries: When its requests are sent again.
    """

    def __init__(self, flow: Generator[Any, Any, T], retries: Retries) -> None:
        self._steps = persistent(flow, retries)
        self._results: list[T] = []
        self.step: Step | Any | None = None  # what is to be done next; None at the end
        self.reply(None)

    @property
    def result(self) -> T:
        """What the flow came to, at its end."""
        return self._results[0]

    def reply(self, value: object) -> None:
        """Say what became of the step."""
        try:
            self.step = self._steps.send(value)
        except StopIteration as end:
            self._ended(end.value)

    def fail(self, error: httpx.TransportError) -> None:
        """Say that the step got no answer."""
        try:
            self.step = self._steps.throw(error)
        except StopIteration as end:
            self._ended(end.value)

    def _ended(self, value: T) -> None:
        self.step = None
        self._results.append(value)


def options_of(
    url: str | None, key: str | None, timeout_s: float, headers: Mapping[str, str] | None
) -> dict[str, Any]:
    """Return the options of httpx's clients."""
    address, own = settings_of(url, key)
    return {
        "base_url": address,
        "headers": {"User-Agent": "kshot-client", **own, **(headers or {})},
        "timeout": timeout_s,
    }
