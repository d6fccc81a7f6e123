"""The use case of classifying clips against a task."""

import asyncio
import time
from collections.abc import Mapping, Sequence

import numpy as np

from model.media import Clip
from service.clips import decode_clips, refuse_clips
from service.decoding.pool import DecodePool
from service.drafts import ClipDraft
from service.engine.device_thread import Classified
from service.engine.engine import Engine
from service.errors import problem_of
from service.refusals import ClipFault, DeadlineError
from service.schemas import Classification, ClipResult, Timing
from service.tasks import Tasks
from service.views import clip_result


class Classifier:
    """Tells what clips are, among the labels of a task.

    Args:
        tasks: Gives the task and its supports.
        pool: Reads untrusted clips.
        engine: Scores them.
        temperature: Scores are softmax(logits / temperature).
        deadline_s: Longest one request may take.
    """

    def __init__(
        self,
        *,
        tasks: Tasks,
        pool: DecodePool,
        engine: Engine,
        temperature: float,
        deadline_s: float,
    ) -> None:
        self.tasks = tasks
        self.pool = pool
        self.engine = engine
        self.temperature = temperature
        self.deadline_s = deadline_s

    async def classify(
        self, task_id: str, drafts: Sequence[ClipDraft], wait_s: float, instance: str
    ) -> Classification:
        """Classify clips; one that cannot be read leaves the others alone.

        Args:
            task_id: The task.
            drafts: The clips.
            wait_s: How long to wait for a task that is getting ready.
            instance: Id of the request, for problems of single clips.

        Raises:
            ClipsRefusedError: None of the clips can be read.
            NotReadyError: The task is still getting ready.
            DeadlineError: It took too long.
        """
        try:
            async with asyncio.timeout(self.deadline_s):
                return await self._classify(task_id, drafts, wait_s, instance)
        except TimeoutError:
            raise DeadlineError(
                f"The request took longer than {self.deadline_s:g} s; send fewer clips, or later."
            ) from None

    async def _classify(
        self, task_id: str, drafts: Sequence[ClipDraft], wait_s: float, instance: str
    ) -> Classification:
        record = await self.tasks.get_for_queries(task_id)
        support = await self.tasks.supports.get(record, wait_s)
        begun = time.monotonic()
        clips, faults = await decode_clips(self.pool, drafts)
        if not clips:
            raise refuse_clips(faults, len(drafts))
        decoded = time.monotonic()
        order = sorted(clips)
        answers = await self.engine.classify(
            np.stack([clips[index].frames_THWC for index in order]), support
        )
        reason = self.tasks.texts.reason(record.labels)
        labels = [label.label for label in record.labels]
        return Classification(
            task_id=record.task_id,
            task_revision=record.revision,
            model_revision=self.engine.facts.fingerprint,
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
