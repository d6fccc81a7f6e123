"""Has the parts of a service counted: what is timed is wrapped once, when the service starts."""

from functools import partial

from service.engine.engine import Engine
from service.metrics.meters import Meters, timed
from service.stores.protocol import TaskStore
from service.stores.records import TaskRecord
from service.tasks.register import Tasks

OPS = (
    *("create", "get", "pictures", "replace", "uploaded", "delete", "list"),
    *("get_text", "put_text", "get_supports", "put_supports", "note_uses", "recent", "ping"),
)


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
