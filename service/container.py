"""Puts the running service together, takes it apart, and knows how it does."""

import asyncio
import importlib.metadata
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import torch

from model.checkpoint import load_recognizer
from model.errors import KshotError
from model.recognizer import Recognizer
from model.text import MAX_STAGE_CHARS, STAGES
from service.decoding.pool import DecodePool, usable_cores
from service.engine.engine import Engine
from service.engine.passes.choice import Choice, onnx_folder, open_runtime
from service.engine.runtimes.protocol import Runtime
from service.engine.shares import lanes_of, usual_batch_frames
from service.engine.support_cache import SupportCache
from service.errors import SettingsError
from service.http.admission import Pace
from service.http.schemas import Health, InfoView, LimitsView, ModelView
from service.http.views import runtime_view
from service.settings import Settings
from service.stores import open_store
from service.stores.protocol import TaskStore
from service.tasks.classify import Classifier
from service.tasks.describe import describer_from
from service.tasks.drafts import MIN_LABELS
from service.tasks.register import Tasks
from service.tasks.supports import Supports
from service.tasks.texts import TaskTexts

STORE_ANSWERS_S = 2.0

log = logging.getLogger("kshot.service")


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of one running service."""

    settings: Settings
    store: TaskStore
    pool: DecodePool
    choice: Choice
    engine: Engine
    texts: TaskTexts
    tasks: Tasks
    classifier: Classifier

    def pace(self) -> Pace:
        """Tell how fast work is done, for who decides what to let in."""
        return Pace(
            frames_s=self.engine.drain_rate,
            frames_clip=self.engine.model.frames,
            decoders=self.pool.workers,
            clip_bytes=self.pool.pace.clip_bytes,
            decode_s_byte=self.pool.pace.s_byte,
        )

    def alive(self) -> Health:
        """Tell whether the process works: this answer is the event loop's own proof."""
        device = self.engine.silent_s < self.settings.heartbeat_s
        return Health(ok=device, parts={"event_loop": True, "device": device})

    async def ready(self) -> Health:
        """Tell whether requests can be served."""
        device = self.engine.silent_s < self.settings.heartbeat_s
        decoders = self.pool.alive > 0
        try:
            async with asyncio.timeout(STORE_ANSWERS_S):
                await self.store.ping()
            store = True
        except (KshotError, TimeoutError):
            store = False
        whole = store and self.pool.alive == self.pool.workers
        return Health(
            ok=device and decoders,
            degraded=not whole,
            parts={"model": device, "decoders": decoders, "store": store},
        )

    async def info(self) -> InfoView:
        """Say what runs here."""
        model = self.engine.model
        return InfoView(
            version=importlib.metadata.version("kshot"),
            model=ModelView(
                name=model.name,
                fingerprint=model.fingerprint,
                trained=model.trained,
                text=model.has_text,
                frames=model.frames,
                size=model.size,
                query_context=model.query_context,
                backbone=model.backbone,
                temperature=self.settings.temperature,
            ),
            runtime=runtime_view(self.choice),
            decoder=await self.pool.versions(),
            store=self.settings.store.partition(":")[0],
            descriptions=self.texts.describer is not None,
        )

    def limits(self) -> LimitsView:
        """Say what a request may be."""
        given = self.settings
        return LimitsView(
            request_bytes=given.max_request_bytes,
            clip_bytes=given.max_clip_bytes,
            clip_base64_bytes=given.max_base64_bytes,
            clip_duration_s=(given.min_clip_s, given.max_clip_s),
            picture_pixels=given.max_pixels,
            clip_frames=given.max_frames,
            clip_streams=given.max_streams,
            containers=given.containers,
            codecs=given.codecs,
            pictures=(given.min_pictures, given.max_pictures),
            labels=(MIN_LABELS, given.max_labels),
            shots=(1, given.max_shots),
            support_clips=given.max_support_clips,
            query_clips=given.max_query_clips,
            label_chars=given.max_label_chars,
            name_chars=given.max_name_chars,
            stages=STAGES,
            stage_chars=MAX_STAGE_CHARS,
            ttl_s=given.max_ttl_s,
            wait_s=given.wait_s,
            deadline_s=given.deadline_s,
            max_deadline_s=given.max_deadline_s,
        )


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Parts]:
    """Start all parts, and stop them in the opposite order.

    Raises:
        KshotError: A part cannot start; its sentence says why.
    """
    async with AsyncExitStack() as stack:
        recognizer = await asyncio.to_thread(load_model, settings)
        choice = await asyncio.to_thread(
            open_runtime,
            recognizer,
            wanted=settings.runtime,
            folder=onnx_folder(settings.onnx, settings.checkpoint),
            threads=torch.get_num_threads(),
            batch_frames=batch_frames(recognizer.device, settings),
        )
        engine = engine_of(choice.runtime, settings)
        store = await open_store(settings.store)
        stack.push_async_callback(store.close)
        pool = await stack.enter_async_context(
            DecodePool(
                workers=settings.decode_workers or usable_cores(),
                frames=engine.model.frames,
                size=engine.model.size,
                media=settings.media,
                sandbox=settings.sandbox,
            )
        )
        stack.push_async_callback(engine.close)
        await engine.start()
        key = settings.openai_api_key
        describer = describer_from(
            api_key=key.get_secret_value() if key else None,
            base_url=settings.llm_base_url,
            model=settings.llm_model,
            store=store,
            ttl_s=settings.text_ttl_s,
        )
        if describer is not None:
            stack.push_async_callback(describer.close)
        texts = TaskTexts(engine, store, describer, ttl_s=settings.text_ttl_s)
        cache = cache_of(engine, settings)
        supports = Supports(
            store=store,
            engine=engine,
            cache=cache,
            texts=texts,
        )
        stack.push_async_callback(supports.close)
        tasks = Tasks(store=store, pool=pool, supports=supports, texts=texts)
        classifier = Classifier(
            tasks=tasks,
            pool=pool,
            engine=engine,
            temperature=settings.temperature,
        )
        log.info("Serving %s on %s", engine.model.name, engine.model.device)
        yield Parts(settings, store, pool, choice, engine, texts, tasks, classifier)


def batch_frames(device: torch.device, settings: Settings) -> int:
    """Tell the most frames of one batch."""
    return settings.batch_frames or usual_batch_frames(device)


def engine_of(runtime: Runtime, settings: Settings) -> Engine:
    """Make the engine as the settings want it."""
    return Engine(
        runtime,
        batch_frames=batch_frames(runtime.device, settings),
        slice_clips=settings.slice_clips,
        max_wait_s=settings.max_wait_ms / 1e3,
        support_bytes=settings.support_cache_bytes,
        lanes=lanes_of(runtime),
    )


def cache_of(engine: Engine, settings: Settings) -> SupportCache:
    """Make the support cache; it gives memory back when the device has none left."""
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
    recognizer = load_recognizer(settings.checkpoint, weights=settings.backbone_weights)
    return recognizer.to(device)
