"""Better text for labels, from a language model: it arrives as the next revision of a task."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import replace

from model.errors import KshotError
from service.engine.support_cache import SupportCache, SupportKey
from service.errors import DescriptionUnavailableError
from service.stores.errors import RevisionConflictError, TaskExpiredError, TaskNotFoundError
from service.stores.protocol import TaskStore
from service.stores.records import TaskRecord, owner_of
from service.tasks.encoding import Encoding
from service.tasks.texts import TaskTexts

REMEMBERED = 1000  # tasks whose text failed

log = logging.getLogger("kshot.tasks")

Start = Callable[[str, Coroutine[None, None, None]], "asyncio.Task[None]"]


class Improving:
    """Asks for better text in the background, once a task at a time.

    Args:
        store: Takes the new revision.
        texts: Knows whom to ask.
        cache: Has the supports at hand, and takes those of the new revision.
        encoding: Makes them.
        start: Does work for a task in the background.
    """

    def __init__(
        self,
        *,
        store: TaskStore,
        texts: TaskTexts,
        cache: SupportCache,
        encoding: Encoding,
        start: Start,
    ) -> None:
        self.store = store
        self.texts = texts
        self.cache = cache
        self.encoding = encoding
        self.start = start
        self.undescribed: OrderedDict[str, str] = OrderedDict()  # why no text came, by task
        self._running: set[str] = set()

    def later(self, record: TaskRecord) -> None:
        """Begin to look for better text, where there may be some."""
        task_id = record.task_id
        if self.texts.may_improve(record.labels) and task_id not in self._running:
            self._running.add(task_id)
            work = self.start(task_id, self._improve(record))
            work.add_done_callback(lambda _: self._running.discard(task_id))

    async def _improve(self, record: TaskRecord) -> None:
        """Put the language model's text in the template's place, as the next revision."""
        task_id = record.task_id
        try:
            while not await self._improved(record):
                record = await self.store.get(task_id)  # somebody was faster, and that stands
        except (TaskNotFoundError, TaskExpiredError):
            return
        except DescriptionUnavailableError as error:
            log.warning("Task %s keeps its template text: %s", task_id, error)
            self.undescribed[task_id] = str(error)
            self.undescribed.move_to_end(task_id)
            if len(self.undescribed) > REMEMBERED:
                self.undescribed.popitem(last=False)
        except KshotError as error:
            log.warning("Task %s keeps its template text (%s)", task_id, error.code)

    async def _improved(self, record: TaskRecord) -> bool:
        """Store and encode better text; False where the task has changed meanwhile."""
        if (labels := await self.texts.better(record.labels, owner_of(record.task_id))) is None:
            return True
        newer = replace(record, labels=labels, revision=record.revision + 1)
        try:
            # Encoded first, so that no query waits for it; text that is part of the supports
            # means making them again of what is at hand. Without that a query encodes them.
            at_hand = self.cache.newest(record.task_id) is not None
            support = await self.encoding.again(newer) if at_hand else None
            await self.store.replace(newer, expected_revision=record.revision)
        except RevisionConflictError:
            return False
        self.undescribed.pop(record.task_id, None)
        if support is not None:
            fingerprint = self.encoding.engine.model.fingerprint
            self.cache.put(SupportKey(newer.task_id, newer.revision, fingerprint), support)
            self.encoding.kept.keep(newer, support)
        self.cache.forget(record.task_id, below_revision=newer.revision)
        return True
