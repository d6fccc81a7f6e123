"""The use case of classifying clips against a task."""

import time
from collections.abc import Mapping, Sequence

from model.episode import EncodedSupport
from model.media.sampling import Clip
from service.decoding.pool import DecodePool
from service.engine.device import Classified
from service.engine.engine import Engine
from service.errors import ClipFault
from service.http.problems import problem_of
from service.http.schemas import Classification, ClipResult, Timing
from service.http.tickets import Ticket
from service.http.views import clip_result
from service.stores.records import TaskRecord
from service.tasks.clips import decode_clips, refuse_clips
from service.tasks.drafts import ClipDraft
from service.tasks.register import Tasks


class Classifier:
    """Tells what clips are, among the labels of a task.

    Args:
        tasks: Gives the task and its supports.
        pool: Reads untrusted clips.
        engine: Scores them.
        temperature: Scores are softmax(logits / temperature).
    """

    def __init__(
        self,
        *,
        tasks: Tasks,
        pool: DecodePool,
        engine: Engine,
        temperature: float,
    ) -> None:
        self.tasks = tasks
        self.pool = pool
        self.engine = engine
        self.temperature = temperature

    async def classify(
        self,
        task_id: str,
        drafts: Sequence[ClipDraft],
        wait_s: float,
        instance: str,
        ticket: Ticket,
    ) -> Classification:
        """Classify clips; one that cannot be read leaves the others alone.

        Args:
            task_id: The task.
            drafts: The clips.
            wait_s: How long to wait for a task that is getting ready.
            instance: Id of the request, for problems of single clips.
            ticket: What the request was let in with; its deadline bounds all of this.

        Raises:
            ClipsRefusedError: None of the clips can be read.
            NotReadyError: The task is still getting ready.
            DeadlineError: It took too long.
        """
        deadline = ticket.deadline
        async with deadline.bounding("looking up the task"):
            record = await self.tasks.get_for_queries(task_id)
        with self.tasks.supports.pinned(record):
            async with deadline.bounding("waiting for the task"):
                support = await self.tasks.supports.get(record, wait_s)
            return await self._answer(record, support, drafts, instance, ticket)

    async def _answer(
        self,
        record: TaskRecord,
        support: EncodedSupport,
        drafts: Sequence[ClipDraft],
        instance: str,
        ticket: Ticket,
    ) -> Classification:
        deadline = ticket.deadline
        begun = time.monotonic()
        async with deadline.bounding("decoding"):
            clips, faults = await decode_clips(self.pool, drafts)
        ticket.hold.correct(decode_ms=0, frames=len(clips) * self.engine.model.frames)
        if not clips:
            raise refuse_clips(faults, len(drafts))
        decoded = time.monotonic()
        order = sorted(clips)
        async with deadline.bounding("computing"):
            answers = await self.engine.classify(
                [clips[index].frames_THWC for index in order],
                support,
                tenant=ticket.tenant,
                deadline=deadline.at,
            )
        reason = self.tasks.texts.reason(record.labels)
        labels = [label.label for label in record.labels]
        return Classification(
            task_id=record.task_id,
            task_revision=record.revision,
            model_revision=self.engine.model.fingerprint,
            context=self.engine.model.query_context,
            text_source=None if reason else record.labels[0].text_source,
            text_reason=reason,
            results=self._results(
                clips, dict(zip(order, answers, strict=True)), labels, faults, instance
            ),
            timing_ms=Timing(
                decode=round(1e3 * (decoded - begun), 3),
                queue=round(max(answer.queue_ms for answer in answers), 3),
                compute=round(max(answer.compute_ms for answer in answers), 3),
            ),
        )

    def _results(
        self,
        clips: Mapping[int, Clip],
        answers: Mapping[int, Classified],
        labels: Sequence[str],
        faults: Sequence[ClipFault],
        instance: str,
    ) -> list[ClipResult]:
        read = [
            clip_result(index, clip, labels, answers[index].scores, self.temperature)
            for index, clip in clips.items()
        ]
        unread = [
            ClipResult(clip_index=fault.index, error=problem_of(fault.error, instance))
            for fault in faults
        ]
        return sorted(read + unread, key=lambda result: result.clip_index)
