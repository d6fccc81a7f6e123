"""The application on Ray Serve: `serve run deploy.ray.app:app engines=2`.

Two deployments, scaled apart by how much waits at each: ingresses are the HTTP service as it is,
with admission, decoders and the store; engines compute. Settings are those of the service, of the
environment in which this is called; replicas come and go, so the store is Redis.
"""

import asyncio
import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import ray
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from deploy.ray.facts import runtime_of
from deploy.ray.hosting import EngineHost
from deploy.ray.listening import listen_while_it_lives
from deploy.ray.remote import RemoteEngine
from model.errors import KshotError
from service.app import create_app
from service.container import choose_runtime
from service.engine.engine import Engine
from service.engine.passes.choice import Choice
from service.errors import EngineError, ServerStoppingError, SettingsError
from service.logs import start_logging
from service.settings import PREFIX, Settings

ENGINE_REQUESTS = 256  # at one engine: more than two full batches
INGRESS_REQUESTS = 1024  # at one ingress, whose admission refuses what is too much
DRAIN_S = 120.0  # for what a replica that goes is still doing
ENGINE = "Engine"  # name of the deployment
TRIES = 3  # of a call whose engine dies; nothing happens twice by it
SECRETS = {"OPENAI_API_KEY"}
Choose = Callable[[Settings], Choice]


class Sizes(BaseModel):
    """How large the deployments may become.

    Args:
        ingresses, engines: Most replicas.
        ingress_cpus, engine_cpus: Of one replica; decoders are part of an ingress.
        engine_gpus: Likewise; None is one where the cluster has some. `serve run` is there before
            the cluster is known, and has to say it.
        queued: Requests of each replica at which there is to be one more.
        direct: Whether ingresses listen on KSHOT_HOST and KSHOT_PORT themselves, where Ray's proxy
            costs time. Ray counts none of these requests, so there are always as many ingresses.
    """

    model_config = ConfigDict(extra="forbid")

    ingresses: int = Field(1, ge=1)
    engines: int = Field(1, ge=1)
    ingress_cpus: float = Field(1.0, ge=0)
    engine_cpus: float = Field(1.0, ge=0)
    engine_gpus: float | None = Field(None, ge=0)
    queued: int = Field(32, ge=1)
    direct: bool = False


class Asking:
    """Asks engines through a handle of Ray's.

    Args:
        handle: Of the deployment of engines.
    """

    def __init__(self, handle: DeploymentHandle) -> None:
        self.handle = handle
        self.loop = asyncio.get_running_loop()

    async def __call__(self, method: str, *arguments: object) -> Any:  # noqa: ANN401
        """Return what the method of a free engine returns."""
        for attempt in range(TRIES):
            try:
                return await self.handle.options(method_name=method).remote(*arguments)
            except RayTaskError as error:
                if isinstance(error.cause, KshotError):
                    raise error.cause from error
                raise EngineError(f"An engine failed: {error.cause!r}.") from error
            except RayActorError as error:  # it died with the call
                if attempt == TRIES - 1:
                    raise _away() from error
            except (RayError, RayServeException) as error:
                raise _away() from error
        raise _away()

    def now(self, method: str, *arguments: object) -> Any:  # noqa: ANN401
        """Return it to a thread that waits."""
        return asyncio.run_coroutine_threadsafe(self(method, *arguments), self.loop).result()

    async def engines(self) -> int:
        """Return how many run."""
        here = serve.get_replica_context().app_name
        told = (await asyncio.to_thread(serve.status)).applications.get(here)
        states = told.deployments[ENGINE].replica_states if told else {}
        return max(1, int(states.get("RUNNING", 0)))


class Ingress:
    """The HTTP service; its engine is elsewhere.

    Args:
        env: Its settings, as environment variables.
        engines: Where it is.
        direct: Whether it listens by itself, too.
    """

    def __init__(self, env: Mapping[str, str], engines: DeploymentHandle, direct: bool) -> None:
        self.settings = settings_of(env)
        self.engines = engines
        self.direct = direct

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Make what answers; Ray enters its lifespan."""

        async def load(settings: Settings) -> tuple[Choice, Engine]:
            ask = Asking(self.engines)
            facts = await ask("facts", settings.checkpoint)
            runtime: Any = runtime_of(facts)
            choice = Choice(runtime, facts.why, facts.clips_s, facts.refused)
            return choice, RemoteEngine(ask, settings.checkpoint, facts, settings)

        app = create_app(self.settings, load)
        if self.direct:
            listen_while_it_lives(app, self.settings)
        return app


class Engines(EngineHost):
    """Computes for ingresses.

    Args:
        env: Its settings, as environment variables.
        choose: Loads a checkpoint and chooses what runs it.
    """

    def __init__(self, env: Mapping[str, str], choose: Choose) -> None:
        # What Ray hands over lies in memory that is shared, and nobody here writes to it.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        super().__init__(settings_of(env), choose)

    async def check_health(self) -> None:
        """Tell Ray whether the device works; this loads the checkpoint at the start.

        Raises:
            EngineError: It does not: another replica takes its place.
        """
        await self.check()

    async def __del__(self) -> None:
        """Stop; Ray calls it at the end of a replica."""
        await self.close()


def application(
    env: Mapping[str, str], sizes: Sizes, choose: Choose = choose_runtime
) -> serve.Application:
    """Put the two deployments together.

    Args:
        env: Settings of the service, as environment variables.
        sizes: How large they may become.
        choose: Loads a checkpoint and chooses what runs it.

    Raises:
        SettingsError: The store is a file, which one process has for itself.
    """
    store = env.get(f"{PREFIX}STORE", Settings.model_fields["store"].default)
    if not store.startswith("redis"):
        raise SettingsError(
            f"KSHOT_STORE is {store!r}, which one process has for itself; on Ray replicas "
            "come and go, so set it to redis://HOST:PORT/DB."
        )
    gpus = sizes.engine_gpus
    if gpus is None:
        gpus = 1 if ray.is_initialized() and ray.cluster_resources().get("GPU") else 0
    engine = serve.deployment(
        name=ENGINE,
        max_ongoing_requests=ENGINE_REQUESTS,
        ray_actor_options={"num_cpus": sizes.engine_cpus, "num_gpus": gpus},
        **_scaled(sizes.engines, sizes.queued),
    )(Engines)
    ingress = serve.deployment(
        name="Ingress",
        max_ongoing_requests=INGRESS_REQUESTS,
        ray_actor_options={"num_cpus": sizes.ingress_cpus},
        **_scaled(sizes.ingresses, sizes.queued, grows=not sizes.direct),
    )(serve.ingress()(Ingress))
    computing = {name: value for name, value in env.items() if name not in SECRETS}
    return ingress.bind(dict(env), engine.bind(computing, choose), sizes.direct)


def app(sizes: Sizes) -> serve.Application:
    """Make the application of this process's environment, for `serve run`."""
    return application(service_env(), sizes)


def service_env() -> dict[str, str]:
    """Return the variables of this process that are settings of the service."""
    return {n: v for n, v in os.environ.items() if n.upper().startswith(PREFIX) or n in SECRETS}


def settings_of(env: Mapping[str, str]) -> Settings:
    """Read settings as if these were the variables of this process, which they are then."""
    for name in service_env().keys() - env.keys():
        del os.environ[name]
    os.environ.update(env)
    settings = Settings.from_env()
    start_logging(settings.log_format)
    return settings


def _scaled(most: int, queued: int, *, grows: bool = True) -> dict[str, Any]:
    """Say how many replicas there are, and how one takes another's place: first comes the new."""
    common: dict[str, Any] = {"graceful_shutdown_timeout_s": DRAIN_S, "max_surge_percent": 100}
    common["logging_config"] = {"enable_access_log": False}  # the service has its own
    if most == 1 or not grows:
        return {**common, "num_replicas": most}
    scaling = {"min_replicas": 1, "max_replicas": most, "target_ongoing_requests": queued}
    return {**common, "autoscaling_config": scaling}


def _away() -> ServerStoppingError:
    return ServerStoppingError("No engine answers now; ask again in a moment.")
