"""Tenants with quotas, each of its own, at one running service."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
from fastapi import FastAPI

from service.app import create_app
from service.keys.opening import make_sure_of, open_grants
from service.settings import Settings
from service.stores.quotas.kept import Kind
from service.tasks.quota.keeper import Keeper
from tests.service.test_keys import bearer, make
from tests.serving import Files, moving_clip, query_files, serving_app, support_files

A, B = moving_clip(10), moving_clip(20)
CLIPS = {"jump": [A], "wave": [B]}
CLIP_S, T = 1.2, 8  # of each clip


class Limited:
    """A running service with keys, each tenant of its own."""

    def __init__(self, store: str, app: FastAPI, http: httpx.Client) -> None:
        self.store, self.app, self.http = store, app, http
        self.count = 0

    def tenant(self, **limits: int | None) -> "Tenant":
        """Make a tenant with these limits."""
        self.count += 1
        name = f"t{self.count}"
        made = Tenant(self, name, bearer(make(self.store, name)))
        made.limit(**limits)
        return made

    @property
    def keeper(self) -> Keeper:
        keeper = self.app.state.service.keeper
        assert isinstance(keeper, Keeper)
        return keeper


class Tenant:
    """One tenant and its key."""

    def __init__(self, served: Limited, name: str, headers: dict[str, str]) -> None:
        self.served, self.name, self.headers = served, name, headers
        self.http = served.http

    def limit(self, **limits: int | None) -> None:
        async def put() -> None:
            grants = open_grants(self.served.store)
            own: dict[Kind, int | None] = {**limits}  # type: ignore[dict-item]
            await grants.put(self.name, own)
            await grants.close()

        if limits:
            asyncio.run(put())

    def register(self, files: Files | None = None, **headers: str) -> httpx.Response:
        return self.http.post(
            "/tasks", files=files or support_files(CLIPS), headers={**self.headers, **headers}
        )

    def registered(self) -> str:
        answer = self.register()
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def classify(
        self, task: str, *clips: bytes, data: Mapping[str, str] | None = None, **headers: str
    ) -> httpx.Response:
        return self.http.post(
            f"/tasks/{task}/classify",
            files=query_files(*clips),
            data=data,
            headers={**self.headers, **headers},
        )

    def usage(self) -> dict[str, dict[str, float | None]]:
        answer = self.http.get("/v1/usage", headers=self.headers)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def used(self, *names: str) -> list[float | None]:
        shown = self.usage()
        return [shown[name]["used"] for name in names]


@contextmanager
def locked_app(store: str, checkpoint: Path, **more: int) -> Iterator[tuple[FastAPI, httpx.Client]]:
    """Serve a store that has a key, with further settings."""
    asyncio.run(make_sure_of(store))
    make(store)
    settings = Settings(
        checkpoint=str(checkpoint), store=store, threads=1, decode_workers=1, **more
    )
    app = create_app(settings)
    with serving_app(app) as http:
        yield app, http


def until(reached: Callable[[], bool]) -> None:
    """Wait for a state, with patience."""
    late = time.monotonic() + 20
    while not reached():
        assert time.monotonic() < late
        time.sleep(0.02)


def fields(answer: httpx.Response, name: str) -> dict[str, dict[str, int | str]]:
    """Read a list of strings with parameters, as RFC 9651 writes them."""
    found = {}
    for item in answer.headers[name].split(", "):
        named, *parameters = item.split(";")
        pairs = [one.split("=") for one in parameters]
        found[named.strip('"')] = {
            key: value.strip('"') if '"' in value else int(value) for key, value in pairs
        }
    return found
