"""The use case of classifying clips against a task.

Dimensions: N classes.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from model.episode import EncodedSupport, MatchScores
from model.fusion import TaskCalibration
from model.media.sampling import Clip
from service.decoding.pool import DecodePool
from service.engine.engine import Engine
from service.engine.saliency_work import PASSES, Explained
from service.errors import ClipFault, NotReadyError
from service.stores.errors import RevisionConflictError
from service.stores.inboxes.policy import Threshold
from service.stores.records import TaskRecord
from service.tasks.allowance import Allowance, Deadline
from service.tasks.arrivals import Arrivals
from service.tasks.inputs import ClipInput, decode_clips, refuse_clips
from service.tasks.supports import Supports
from service.tasks.texts import TaskTexts


@dataclass(frozen=True, slots=True)
class ClipAnswer:
    """What one query clip is."""

    index: int  # in the order of the request
    name: str | None  # of the file, as it was sent
    clip: Clip
    scores: MatchScores
    probabilities_N: tuple[float, ...]  # in the order of the task's labels; they sum to 1
    unknown: bool  # none of the labels, by `scores.nearest`
    explained: Explained | None = None  # where the first label was seen, where that was asked for


@dataclass(frozen=True, slots=True)
class TaskAnswer:
    """What the clips of a request are, among the labels of a task."""

    record: TaskRecord
    with_text: bool
    text_reason: str | None  # why no text took part, or not the language model's
    threshold: Threshold  # of `nearest`, below which a clip is unknown
    clips: tuple[ClipAnswer, ...]
    faults: tuple[ClipFault, ...]  # clips that could not be read
    decode_ms: float
    queue_ms: float
    compute_ms: float


class Classifier:
    """Tells what clips are, among the labels of a task.

    Args:
        arrivals: Knows tasks whose clips are not decoded yet.
        supports: Gives the task and its encoded supports.
        texts: Says why no text takes part.
        pool: Reads untrusted clips.
        engine: Scores them.
    """

    def __init__(
        self,
        *,
        arrivals: Arrivals,
        supports: Supports,
        texts: TaskTexts,
        pool: DecodePool,
        engine: Engine,
    ) -> None:
        self.arrivals = arrivals
        self.supports = supports
        self.texts = texts
        self.pool = pool
        self.engine = engine

    async def classify(
        self,
        task_id: str,
        inputs: Sequence[ClipInput],
        wait_s: float,
        allowance: Allowance,
        *,
        explain: bool = False,
    ) -> TaskAnswer:
        """Classify clips; one that cannot be read does not affect the others.

        Args:
            task_id: The task.
            inputs: The clips.
            wait_s: How long to wait for a task that is getting ready.
            allowance: Its deadline bounds all of this.
            explain: Whether to say where each answer was seen; the scores stay the same.

        Raises:
            ClipsRefusedError: None of the clips can be read.
            NotReadyError: The task is still getting ready.
            TaskFailedError: The task will never be ready.
            DeadlineError: It took too long; DeadlineUnmetError: it would.
        """
        purse, deadline = allowance.purse, allowance.deadline
        record = await self._settled(task_id, wait_s, deadline)
        if purse is not None:  # before the supports: to rebuild them is costly
            passes = PASSES if explain else 1
            async with deadline.bounding("decoding"):
                await purse.charge_clips(self.pool, inputs, "classify", grows=False, passes=passes)
        try:
            while True:
                with suppress(RevisionConflictError):  # what this revision needs is gone
                    return await self._classify(record, inputs, wait_s, allowance, explain=explain)
                deadline.check("looking up the task")
                record = await self._settled(task_id, wait_s, deadline)
        except NotReadyError:
            if purse is not None:
                purse.give_back()
            raise

    async def _settled(self, task_id: str, wait_s: float, deadline: Deadline) -> TaskRecord:
        """Return the revision that stands now, whose clips are decoded."""
        async with deadline.bounding("looking up the task"):
            record = await self.supports.record(task_id)
        if record.state != "decoded":
            async with deadline.bounding("waiting for the task"):
                record = await self.arrivals.settled(record, wait_s)
        return record

    async def _classify(
        self,
        record: TaskRecord,
        inputs: Sequence[ClipInput],
        wait_s: float,
        allowance: Allowance,
        *,
        explain: bool,
    ) -> TaskAnswer:
        """Classify by one revision, to the end."""
        with self.supports.pinned(record):
            async with allowance.deadline.bounding("waiting for the task"):
                support = await self.supports.get(record, wait_s, allowance.deadline)
            passes = PASSES if explain else 1
            answer = await self._answer(record, support, inputs, allowance, passes)
            return await self._explained(answer, support, allowance) if explain else answer

    async def _explained(
        self, answer: TaskAnswer, support: EncodedSupport, allowance: Allowance
    ) -> TaskAnswer:
        """Say of each clip, one after another, where the label that came first was seen."""
        clips = []
        for clip in answer.clips:
            probabilities_N = clip.probabilities_N
            async with allowance.deadline.bounding("explaining"):
                explained = await self.engine.explain(
                    clip.clip.frames_THWC,
                    support,
                    max(range(len(probabilities_N)), key=probabilities_N.__getitem__),
                    tenant=allowance.tenant,
                    deadline=allowance.deadline.at,
                )
            clips.append(replace(clip, explained=explained))
        spent_ms = sum(clip.explained.compute_ms for clip in clips if clip.explained is not None)
        return replace(answer, clips=tuple(clips), compute_ms=answer.compute_ms + spent_ms)

    async def _answer(
        self,
        record: TaskRecord,
        support: EncodedSupport,
        inputs: Sequence[ClipInput],
        allowance: Allowance,
        passes: int,
    ) -> TaskAnswer:
        start_s, calibration, tenant = time.monotonic(), support.calibration, allowance.tenant
        threshold = record.threshold(calibration.threshold, self.engine.model.fingerprint)
        calibration = replace(calibration, threshold=threshold.value)
        async with allowance.deadline.bounding("decoding"):
            clips, faults = await decode_clips(self.pool, inputs, "classify", tenant=tenant)
        frames = passes * len(clips) * self.engine.model.frames
        allowance.credits.correct(decode_ms=0, frames=frames)
        if not clips:
            raise refuse_clips(faults, len(inputs))
        decoded_s = time.monotonic()
        order = [clip for clip in inputs if clip.index in clips]
        async with allowance.deadline.bounding("computing"):
            found = await self.engine.classify(
                [clips[clip.index].frames_THWC for clip in order],
                support,
                tenant=tenant,
                deadline=allowance.deadline.at,
            )
        return TaskAnswer(
            record=record,
            with_text=support.text_NAE is not None,
            text_reason=await self._text_reason(record, support),
            threshold=threshold,
            clips=tuple(
                _clip_answer(given, clips[given.index], each.scores, calibration)
                for given, each in zip(order, found, strict=True)
            ),
            faults=tuple(faults),
            decode_ms=1e3 * (decoded_s - start_s),
            queue_ms=max(each.queue_ms for each in found),
            compute_ms=max(each.compute_ms for each in found),
        )

    async def _text_reason(self, record: TaskRecord, support: EncodedSupport) -> str | None:
        if support.text_NAE is None:
            return await self.texts.reason(record.labels)
        return self.supports.undescribed(record.task_id)


def _clip_answer(
    given: ClipInput, clip: Clip, scores: MatchScores, calibration: TaskCalibration
) -> ClipAnswer:
    probabilities_N = calibration.probabilities(scores.logits_N)
    unknown = scores.nearest < calibration.threshold
    return ClipAnswer(given.index, given.name, clip, scores, probabilities_N, unknown)
