"""Has the parts of a service counted: what is timed is wrapped once, when the service starts."""

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

from service.decoding.pool import DecodePool
from service.engine.engine import Engine
from service.metrics.meters import Meters, timed
from service.stores.protocol import OPS, TaskStore
from service.stores.records import TaskRecord
from service.tasks.register import Tasks

if TYPE_CHECKING:
    from service.tracing.spans import Tracing


def observe(
    store: TaskStore,
    pool: DecodePool,
    meters: Meters,
    tracing: "Tracing | None",
    stack: AsyncExitStack,
) -> None:
    """Have what every model's parts share counted, and traced where somebody wants traces."""
    count_store(store, meters)
    if tracing is not None:
        tracing.attach(store, pool)
        stack.push_async_callback(asyncio.to_thread, tracing.close)


def observe_model(tasks: Tasks, engine: Engine, meters: Meters, tracing: "Tracing | None") -> None:
    """Have what one model's parts do counted and traced."""
    count_work(engine, tasks, meters)
    if tracing is not None:
        tracing.attach_model(engine, tasks)


def count_store(store: TaskStore, meters: Meters) -> None:
    """Count the operations of a store."""
    for op in OPS:
        setattr(store, op, timed(getattr(store, op), partial(meters.stored, op)))


def count_work(engine: Engine, tasks: Tasks, meters: Meters) -> None:
    """Count what the device does, and what becomes of tasks."""

    def ready(record: TaskRecord, seconds: float) -> None:
        sources = {label.text_source for label in record.labels}
        meters.prepared(sources.pop() if len(sources) == 1 else "mixed", seconds)

    engine.watch_with(meters.passed)
    supports, texts = tasks.supports, tasks.texts
    supports.ready = ready
    supports.cache.evicted = meters.evicted
    supports.encoding.again = timed(supports.encoding.again, meters.rebuilt)  # type: ignore[method-assign]
    texts.encode = timed(texts.encode, lambda _, s: meters.staged("text", s))  # type: ignore[method-assign]
    tasks.register = timed(tasks.register, meters.registered)  # type: ignore[method-assign]
    if texts.describer is not None:
        describe = timed(texts.describer.describe, lambda _, s: meters.staged("llm", s))
        texts.describer.describe = describe  # type: ignore[method-assign]
