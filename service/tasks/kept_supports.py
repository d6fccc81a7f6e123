"""Encoded supports in the store, so that a restart need not encode them again.

The store has the truth in its pictures; this is a cache. What is not whole, not of this task's
revision or made by anything else than what runs now is left alone, and the supports are encoded
again, which puts them in its place. Text that stands beside the supports is not kept with them.
"""

import asyncio
import logging

from model.episode import EncodedSupport
from model.errors import KshotError
from service.background import spawn
from service.engine.engine import Engine
from service.stores.protocol import TaskStore
from service.stores.records import TaskRecord, owner_of
from service.tasks.texts import TaskTexts

CLOSING_S = 1.0  # for what is still to be written when the service stops

log = logging.getLogger("kshot.tasks")


class KeptSupports:
    """Reads encoded supports from the store, and writes them there beside the requests.

    Args:
        store: Has them.
        engine: Reads them onto the device.
        texts: Give the text that stands beside them.
        made_by: Hash of what makes them, `supports_from` of the runtime.
        most_bytes: Supports that take more are not kept; 0 keeps none.
    """

    def __init__(
        self,
        *,
        store: TaskStore,
        engine: Engine,
        texts: TaskTexts,
        made_by: str,
        most_bytes: int,
    ) -> None:
        self.store = store
        self.engine = engine
        self.texts = texts
        self.made_by = made_by
        self.most_bytes = most_bytes
        self._writing: set[asyncio.Task[None]] = set()

    async def read(self, record: TaskRecord) -> EncodedSupport | None:
        """Return a task's encoded supports if the store has them; None whatever goes wrong."""
        if not self.most_bytes:
            return None
        try:
            content = await self.store.get_supports(record.task_id, self._name(record))
            if content is None:
                return None
            return await self._with_text(record, await self.engine.read_support(content))
        except KshotError as error:
            log.warning("Kept supports of task %s are of no use: %s", record.task_id, error)
            return None

    def keep(self, record: TaskRecord, support: EncodedSupport) -> None:
        """Write a task's encoded supports to the store, in the background, if they are small."""
        if support.bytes <= self.most_bytes:
            work = spawn(self._keep(record, support))
            self._writing.add(work)
            work.add_done_callback(self._writing.discard)

    async def close(self) -> None:
        """Let what is being written come to its end, for a short while."""
        if not self._writing:
            return
        _, late = await asyncio.wait(self._writing, timeout=CLOSING_S)
        for work in late:
            work.cancel()
        if late:
            log.warning("The supports of %d tasks were not kept: the store is slow", len(late))

    async def _keep(self, record: TaskRecord, support: EncodedSupport) -> None:
        bare = support if support.text_inside else support.with_text(None)
        try:
            content = await self.engine.write_support(bare)
            await self.store.put_supports(record, self._name(record), content)
        except KshotError as error:
            log.warning("The supports of task %s were not kept: %s", record.task_id, error)

    async def _with_text(
        self, record: TaskRecord, support: EncodedSupport
    ) -> EncodedSupport | None:
        """Add the task's text; None where the supports are not those of this task and text."""
        names = tuple(clip.clip_id for clip in record.clips)
        classes = tuple(clip.label for clip in record.clips)
        clips, ours = support.clips, self.engine.model.fingerprint
        told = None if clips is None else (clips.names, clips.classes)
        if support.fingerprint != ours or told != (names, classes):
            log.warning("Kept supports of task %s are not its own", record.task_id)
            return None
        text_NAE = await self.texts.encode(record.labels, owner_of(record.task_id))
        if self.engine.model.needs_text:
            return support if support.text_inside == (text_NAE is not None) else None
        if text_NAE is None:
            return support
        return support.with_text(text_NAE.to(support.classes.prototype_NTE.device))

    def _name(self, record: TaskRecord) -> str:
        return f"{record.revision}/{self.made_by}"
