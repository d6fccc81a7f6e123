"""Puts the running service together and takes it apart again."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from model.checkpoint import load_recognizer
from model.errors import KshotError
from model.recognizer import Recognizer
from service import assembly
from service.decoding.pool import DecodePool
from service.engine.engine import Engine
from service.engine.passes.choice import Choice, onnx_folder, open_runtime
from service.errors import SettingsError
from service.keys.locking import keys_until, locked_when_keyed
from service.keys.ring import KeyRing
from service.limits import Limits, limits_of
from service.metrics.attached import observe, observe_model
from service.metrics.meters import Meters
from service.settings import Settings
from service.stores.opening import open_store
from service.stores.protocol import TaskStore
from service.tasks.arrivals import Arrivals
from service.tasks.changes.change import Changer
from service.tasks.classify import Classifier
from service.tasks.diagnosis.diagnose import Diagnoser
from service.tasks.events.watch import Watch
from service.tasks.inbox.inbox import Inbox
from service.tasks.once.once import Once
from service.tasks.portable.port import Porter
from service.tasks.quota.keeper import Keeper
from service.tasks.quota.starting import keeper_until
from service.tasks.register import Tasks
from service.tasks.swapping.allowed import Allowed
from service.tasks.swapping.swap import Loaded, Models
from service.tasks.texts import TaskTexts
from service.tasks.timeline.follow import Follower

if TYPE_CHECKING:
    from service.tracing.spans import Tracing

STORE_ANSWERS_S = 2.0
Load = Callable[[Settings], Awaitable[tuple[Choice, Engine]]]

log = logging.getLogger("kshot.service")


@dataclass(slots=True)
class Ground:
    """What stands under every model; nothing in it changes but `ring`, once."""

    settings: Settings
    store: TaskStore
    pool: DecodePool
    once: Once
    meters: Meters
    keeper: Keeper  # of quotas
    tracing: "Tracing | None"
    ring: KeyRing | None  # of keys; None lets everybody in, until the first key is made


@dataclass(slots=True)
class Service:
    """All that answers with one model; nothing in it changes but the number of requests."""

    ground: Ground
    settings: Settings  # this, and what follows up to the keeper, as the ground has it
    store: TaskStore
    pool: DecodePool
    once: Once
    meters: Meters
    keeper: Keeper  # of quotas
    limits: Limits
    choice: Choice
    engine: Engine
    texts: TaskTexts
    tasks: Tasks
    changer: Changer
    diagnoser: Diagnoser
    porter: Porter
    classifier: Classifier
    follower: Follower
    inbox: Inbox
    watch: Watch
    stack: AsyncExitStack  # closes its parts
    requests: int = 0  # that are being answered

    @property
    def device_works(self) -> bool:
        """Whether the device thread showed lately that it works."""
        return self.engine.silent_s < self.settings.heartbeat_s

    async def store_fault(self) -> str | None:
        """Say why tasks cannot be registered or read; None where the store does its work."""
        try:
            async with asyncio.timeout(STORE_ANSWERS_S):
                await self.store.ping()
        except KshotError as error:
            return str(error)
        except TimeoutError:
            return f"The store did not answer within {STORE_ANSWERS_S:g} s."
        return None

    async def close(self) -> None:
        """Stop its parts, in the opposite order of their start."""
        await self.stack.aclose()


async def loaded_here(settings: Settings) -> tuple[Choice, Engine]:
    """Load a checkpoint into this process."""
    choice = await asyncio.to_thread(choose_runtime, settings)
    return choice, assembly.engine_of(choice.runtime, settings)


@asynccontextmanager
async def running(
    settings: Settings,
    meters: Meters,
    tracing: "Tracing | None" = None,
    load: Load = loaded_here,
) -> AsyncIterator[Models[Service]]:
    """Start the service, and stop its parts in the opposite order.

    Args:
        settings: Of the process.
        meters: Count.
        tracing: Traces; None where nobody wants that.
        load: Loads the checkpoint of settings, here or elsewhere.

    Raises:
        KshotError: A part cannot start; its sentence says why.
    """
    async with AsyncExitStack() as stack:
        choice, engine = await load(settings)
        store = await open_store(settings.store)
        stack.push_async_callback(store.close)
        ring = await keys_until(stack, settings)
        pool = assembly.pool_of(engine, limits_of(settings), settings, meters)
        await stack.enter_async_context(pool)
        observe(store, pool, meters, tracing, stack)
        once = Once(store.once, settings.idempotency_s)
        keeper = await stack.enter_async_context(keeper_until(store, settings))
        ground = Ground(settings, store, pool, once, meters, keeper, tracing, ring)
        first = await service_of(ground, choice, engine)
        models = Models(first, store, allowed_by(settings), opening_on(ground, load))
        stack.push_async_callback(models.close)
        first.tasks.arrivals.start()
        del choice, engine, first  # so that nothing here holds a model that is let go
        await stack.enter_async_context(locked_when_keyed(ground))
        yield models


def allowed_by(settings: Settings) -> Allowed:
    """Return which checkpoints may take the place of that of the settings."""
    return Allowed(settings.models_dir, settings.checkpoint, settings.backbone_weights)


def opening_on(ground: Ground, load: Load) -> Callable[[str, Loaded], Awaitable[Service]]:
    """Return what starts another checkpoint beside the one that is served."""

    async def opening(source: str, loaded: Loaded) -> Service:
        settings = ground.settings.model_copy(update={"checkpoint": source, "onnx": None})
        choice, engine = await load(settings)
        loaded(engine.model)
        return await service_of(ground, choice, engine, ahead=False)

    return opening


async def service_of(
    ground: Ground, choice: Choice, engine: Engine, *, ahead: bool = True
) -> Service:
    """Start all that answers with one model.

    Args:
        ground: What stands under it.
        choice: What runs the model.
        engine: Around it.
        ahead: Whether tasks get ready unasked.
    """
    settings, store, pool = ground.settings, ground.store, ground.pool
    limits = limits_of(settings, engine.model.stages, 0 if engine.model.text_alone else 1)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(engine.close)
        await engine.start()
        describer = assembly.describer_until(stack, store, limits, settings)
        texts = TaskTexts(engine, store, describer, ttl_s=settings.text_ttl_s)
        supports = assembly.supports_of(store, engine, choice.runtime, texts, settings)
        stack.push_async_callback(supports.close)
        arrivals = Arrivals(store=store, pool=pool, supports=supports)
        stack.push_async_callback(arrivals.close)
        tasks = Tasks(
            store=store, pool=pool, arrivals=arrivals, supports=supports, texts=texts, limits=limits
        )
        stack.push_async_callback(tasks.close)
        observe_model(tasks, engine, ground.meters, ground.tracing)
        stack.push_async_callback(assembly.warming_of(store, supports, ahead=ahead).close)
        log.info("Serving %s on %s", engine.model.name, engine.model.device)
        service = _service(ground, choice, engine, tasks, stack)
    return service  # noqa: RET504 (mypy thinks that a stack may swallow an error)


def _service(
    ground: Ground, choice: Choice, engine: Engine, tasks: Tasks, stack: AsyncExitStack
) -> Service:
    """Put the use cases beside what has started; the stack is the service's from then on."""
    settings, changer = ground.settings, assembly.changer_of(tasks)
    return Service(
        ground=ground,
        settings=settings,
        store=ground.store,
        pool=ground.pool,
        once=ground.once,
        meters=ground.meters,
        keeper=ground.keeper,
        limits=tasks.limits,
        choice=choice,
        engine=engine,
        texts=tasks.texts,
        tasks=tasks,
        changer=changer,
        diagnoser=Diagnoser(tasks, engine),
        porter=Porter(tasks, settings.inbox_s),
        classifier=assembly.classifier_of(tasks, engine),
        follower=assembly.follower_of(tasks, engine, settings),
        inbox=assembly.inbox_of(changer, settings),
        watch=Watch(tasks.supports, settings.max_watchers),
        stack=stack.pop_all(),
    )


def choose_runtime(settings: Settings) -> Choice:
    """Load the checkpoint and choose what runs it; this takes seconds."""
    recognizer = load_model(settings)
    return open_runtime(
        recognizer,
        wanted=settings.runtime,
        folder=onnx_folder(settings.onnx, settings.checkpoint),
        threads=torch.get_num_threads(),
        batch_frames=assembly.batch_frames(recognizer.device, settings),
    )


def load_model(settings: Settings) -> Recognizer:
    """Load the checkpoint onto its device.

    Raises:
        KshotError: It cannot be loaded, or the device is not there.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    name = settings.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SettingsError(
            f"KSHOT_DEVICE is {name!r}, which this machine does not have; use auto or cpu."
        ) from error
    recognizer = load_recognizer(
        settings.checkpoint, weights=settings.backbone_weights, cache=settings.model_cache
    )
    return recognizer.to(device)
