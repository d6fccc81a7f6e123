"""Records of tasks as they last stood, for when the store is away or does not answer."""

import asyncio
import time
from collections import OrderedDict

from service.stores.errors import StoreUnavailableError
from service.stores.protocol import TaskStore
from service.stores.records import TaskRecord

REMEMBERED = 1000  # tasks
PATIENCE_S = 1.0  # with a store that hangs, where the record is known
PAUSE_S = 5.0  # in which a store that hung is not waited for again


class RecordsAtHand:
    """Asks the store, and remembers what it said.

    A record that is remembered stands in while the store is away, however long. Once the store
    answers again, a task that another replica deleted is gone within `PAUSE_S`.

    Args:
        store: Has the records.
    """

    def __init__(self, store: TaskStore) -> None:
        self.store = store
        self._known: OrderedDict[str, TaskRecord] = OrderedDict()
        self._hung_until = 0.0

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._known

    async def get(self, task_id: str) -> TaskRecord:
        """Return a task as it stands in the store, or as it last stood while the store is away.

        Raises:
            StoreError: What the store raises; that it is away, only where nothing is remembered.
        """
        known = self._known.get(task_id)
        if known is not None and known.expired(time.time()):
            known = None
        if known is not None and time.monotonic() < self._hung_until:
            return known
        try:
            async with asyncio.timeout(None if known is None else PATIENCE_S):
                record = await self.store.get(task_id)
        except TimeoutError:
            assert known is not None
            self._hung_until = time.monotonic() + PAUSE_S
            return known
        except StoreUnavailableError:
            if known is None:
                raise
            return known
        self.note(record)
        return record

    def note(self, record: TaskRecord) -> None:
        """Remember how a task stands, unless a newer revision of it is known."""
        known = self._known.get(record.task_id)
        if known is None or known.revision <= record.revision:
            self._known[record.task_id] = record
        self._known.move_to_end(record.task_id)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def forget(self, task_id: str) -> None:
        """Remember a task no more."""
        self._known.pop(task_id, None)
