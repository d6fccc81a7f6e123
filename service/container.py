"""Puts the running service together and takes it apart again."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from model.checkpoint import load_recognizer
from model.errors import KshotError
from model.recognizer import Recognizer
from service.decoding.pool import DecodePool
from service.decoding.process import usable_cores
from service.decoding.streams import VideoStreams
from service.engine.engine import Engine
from service.engine.passes.batching import lanes_of, usual_batch_frames
from service.engine.passes.choice import Choice, onnx_folder, open_runtime
from service.engine.runtimes.protocol import Runtime, supports_from
from service.engine.support_cache import SupportCache
from service.errors import SettingsError
from service.keys.locking import keys_until, locked_when_keyed
from service.keys.ring import KeyRing
from service.limits import Limits, limits_of, media_limits, stream_limits
from service.metrics.attached import observe
from service.metrics.meters import Meters
from service.settings import Settings
from service.stores.opening import open_store
from service.stores.protocol import TaskStore
from service.tasks.arrivals import Arrivals
from service.tasks.changes.change import Changer
from service.tasks.classify import Classifier
from service.tasks.describe import describer_from
from service.tasks.diagnosis.diagnose import Diagnoser
from service.tasks.events.watch import Watch
from service.tasks.inbox.inbox import Inbox
from service.tasks.kept_supports import KeptSupports
from service.tasks.once.once import Once
from service.tasks.portable.port import Porter
from service.tasks.quota.keeper import Keeper
from service.tasks.quota.starting import keeper_until
from service.tasks.register import Tasks
from service.tasks.supports import Supports
from service.tasks.texts import TaskTexts
from service.tasks.timeline.follow import Follower
from service.tasks.warming import Warming

if TYPE_CHECKING:
    from service.tracing.spans import Tracing

STORE_ANSWERS_S = 2.0

log = logging.getLogger("kshot.service")


@dataclass(slots=True)
class Service:
    """One running service; nothing in it changes but `ring`, once."""

    settings: Settings
    limits: Limits
    store: TaskStore
    pool: DecodePool
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
    once: Once
    watch: Watch
    meters: Meters
    keeper: Keeper  # of quotas
    ring: KeyRing | None  # of keys; None lets everybody in, until the first key is made

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


@asynccontextmanager
async def running(
    settings: Settings, meters: Meters, tracing: "Tracing | None" = None
) -> AsyncIterator[Service]:
    """Start the service, and stop its parts in the opposite order.

    Raises:
        KshotError: A part cannot start; its sentence says why.
    """
    async with AsyncExitStack() as stack:
        choice = await asyncio.to_thread(choose_runtime, settings)
        engine = engine_of(choice.runtime, settings)
        limits = limits_of(settings, engine.model.stages, 0 if engine.model.text_alone else 1)
        store = await open_store(settings.store)
        stack.push_async_callback(store.close)
        ring = await keys_until(stack, settings)
        pool = await stack.enter_async_context(pool_of(engine, limits, settings, meters))
        stack.push_async_callback(engine.close)
        await engine.start()
        texts = texts_until(stack, engine, store, limits, settings)
        supports = supports_of(store, engine, choice.runtime, texts, settings)
        stack.push_async_callback(supports.close)
        arrivals = Arrivals(store=store, pool=pool, supports=supports)
        stack.push_async_callback(arrivals.close)
        tasks = Tasks(
            store=store, pool=pool, arrivals=arrivals, supports=supports, texts=texts, limits=limits
        )
        stack.push_async_callback(tasks.close)
        observe(tasks, engine, meters, tracing, stack)
        stack.push_async_callback(warming_of(store, supports).close)
        arrivals.start()
        log.info("Serving %s on %s", engine.model.name, engine.model.device)
        changer, porter = changer_of(tasks), Porter(tasks, settings.inbox_s)
        parts = settings, limits, store, pool, choice, engine, texts, tasks, changer
        users = Diagnoser(tasks, engine), porter, classifier_of(tasks, engine)
        asked = follower_of(tasks, engine, settings), inbox_of(changer, settings)
        last = Once(store.once, settings.idempotency_s), Watch(supports, settings.max_watchers)
        keeper = await stack.enter_async_context(keeper_until(store, settings))
        service = Service(*parts, *users, *asked, *last, meters, keeper, ring)
        await stack.enter_async_context(locked_when_keyed(service))
        yield service


def choose_runtime(settings: Settings) -> Choice:
    """Load the checkpoint and choose what runs it; this takes seconds."""
    recognizer = load_model(settings)
    return open_runtime(
        recognizer,
        wanted=settings.runtime,
        folder=onnx_folder(settings.onnx, settings.checkpoint),
        threads=torch.get_num_threads(),
        batch_frames=batch_frames(recognizer.device, settings),
    )


def pool_of(engine: Engine, limits: Limits, settings: Settings, meters: Meters) -> DecodePool:
    """Make the pool of decoders for the frames that the model takes."""
    return DecodePool(
        workers=settings.decode_workers or usable_cores() + 1,
        frames=engine.model.frames,
        size=engine.model.size,
        squash=engine.model.squash,
        media=media_limits(limits),
        sandbox=settings.sandbox,
        watch=meters.read,
    )


def follower_of(tasks: Tasks, engine: Engine, settings: Settings) -> Follower:
    """Make what follows long videos."""
    streams = VideoStreams(
        size=engine.model.size,
        squash=engine.model.squash,
        media=stream_limits(tasks.limits),
        sandbox=settings.sandbox,
        most=settings.max_timelines,
    )
    return Follower(
        arrivals=tasks.arrivals, supports=tasks.supports, streams=streams, engine=engine
    )


def classifier_of(tasks: Tasks, engine: Engine) -> Classifier:
    """Make what classifies clips."""
    return Classifier(
        arrivals=tasks.arrivals,
        supports=tasks.supports,
        texts=tasks.texts,
        pool=tasks.pool,
        engine=engine,
    )


def texts_until(
    stack: AsyncExitStack, engine: Engine, store: TaskStore, limits: Limits, settings: Settings
) -> TaskTexts:
    """Make what words tasks, and asks a language model where there is one, until the stack ends."""
    key = settings.openai_api_key
    describer = describer_from(
        api_key=key.get_secret_value() if key else None,
        base_url=settings.llm_base_url,
        model=settings.llm_model,
        store=store,
        stages=limits.stages,
        ttl_s=settings.text_ttl_s,
    )
    if describer is not None:
        stack.push_async_callback(describer.close)
    return TaskTexts(engine, store, describer, ttl_s=settings.text_ttl_s)


def warming_of(store: TaskStore, supports: Supports) -> Warming:
    """Begin to get the tasks ready that were used last."""
    warming = Warming(store, supports)
    warming.start()
    return warming


def changer_of(tasks: Tasks) -> Changer:
    """Make what changes the tasks that are registered there."""
    return Changer(
        store=tasks.store,
        arrivals=tasks.arrivals,
        supports=tasks.supports,
        texts=tasks.texts,
        limits=tasks.limits,
    )


def inbox_of(changer: Changer, settings: Settings) -> Inbox:
    """Make what remembers queries, and has tasks learn from them."""
    engine = changer.supports.engine
    return Inbox(store=changer.store, engine=engine, changer=changer, keep_s=settings.inbox_s)


def batch_frames(device: torch.device, settings: Settings) -> int:
    """Return the most frames of one batch."""
    return settings.batch_frames or usual_batch_frames(device)


def engine_of(runtime: Runtime, settings: Settings) -> Engine:
    """Make the engine around a runtime."""
    return Engine(
        runtime,
        batch_frames=batch_frames(runtime.device, settings),
        slice_clips=settings.slice_clips,
        max_wait_s=settings.max_wait_ms / 1e3,
        support_bytes=settings.support_cache_bytes,
        lanes=lanes_of(runtime),
    )


def supports_of(
    store: TaskStore, engine: Engine, runtime: Runtime, texts: TaskTexts, settings: Settings
) -> Supports:
    """Make what gives the encoded supports of tasks, at hand or kept in the store."""
    kept = KeptSupports(
        store=store,
        engine=engine,
        texts=texts,
        made_by=supports_from(runtime),
        most_bytes=settings.kept_support_bytes,
    )
    cache = cache_of(engine, settings)
    return Supports(store=store, engine=engine, cache=cache, texts=texts, kept=kept)


def cache_of(engine: Engine, settings: Settings) -> SupportCache:
    """Make the support cache; the engine empties it when the device runs out of memory."""
    cache = SupportCache(settings.support_cache_bytes)
    engine.relieve_with(cache.free)
    return cache


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
