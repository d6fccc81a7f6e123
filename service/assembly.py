"""Makes the parts that a service is put together from."""

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import torch

from service.decoding.pool import DecodePool
from service.decoding.process import usable_cores
from service.decoding.streams import VideoStreams
from service.engine.engine import Engine
from service.engine.passes.batching import lanes_of, usual_batch_frames
from service.engine.runtimes.protocol import Runtime, supports_from
from service.engine.support_cache import SupportCache
from service.limits import Limits, media_limits, stream_limits
from service.metrics.meters import Meters
from service.settings import Settings
from service.stores.protocol import TaskStore
from service.tasks.changes.change import Changer
from service.tasks.classify import Classifier
from service.tasks.inbox.inbox import Inbox
from service.tasks.kept_supports import KeptSupports
from service.tasks.register import Tasks
from service.tasks.supports import Supports
from service.tasks.texts import TaskTexts
from service.tasks.timeline.follow import Follower
from service.tasks.warming import Warming

if TYPE_CHECKING:
    from service.tasks.describe import Describer


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


def describer_until(
    stack: AsyncExitStack, store: TaskStore, limits: Limits, settings: Settings
) -> "Describer | None":
    """Make what asks the language model, where one is configured, until the stack ends."""
    secret, url = settings.openai_api_key, settings.llm_base_url
    key = secret.get_secret_value() if secret else None
    if not key and not url:
        return None
    from service.tasks.describe import describer_from  # with openai, half a second

    describer = describer_from(
        api_key=key,
        base_url=url,
        model=settings.llm_model,
        store=store,
        stages=limits.stages,
        ttl_s=settings.text_ttl_s,
    )
    stack.push_async_callback(describer.close)
    return describer


def warming_of(store: TaskStore, supports: Supports, *, ahead: bool) -> Warming:
    """Note which tasks are used; `ahead` gets those ready that were used last."""
    warming = Warming(store, supports)
    warming.start(ahead=ahead)
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
