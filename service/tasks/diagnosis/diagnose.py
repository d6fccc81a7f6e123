"""The use case of diagnosing a task: what its clips, held out in turn, say of it."""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from model.diagnosis.curve import Curve, curve
from model.diagnosis.likeness import likeness
from model.diagnosis.splits import fewer_shots, leave_one_out
from model.diagnosis.verdicts import Accuracy, verdicts
from model.episode import EncodedSupport
from service.engine.engine import Engine
from service.stores.errors import RevisionConflictError
from service.stores.records import TaskRecord
from service.tasks.allowance import Deadline
from service.tasks.diagnosis.findings import Finding, findings
from service.tasks.register import Tasks

REMEMBERED = 1000  # diagnoses
TOGETHER = (
    " In this method a clip is encoded with the other clips of its task, or with the text of its "
    "label, so the figures are too good."
)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found.

    Args:
        record: The revision that was looked at.
        overall: Accuracy of all clips that could be held out; None where none could.
        labels: Of each label.
        confusions: (label, taken for, share), the most frequent first.
        enough: Accuracy by number of clips; None where no label has two.
        findings: In sentences.
        judged_by: How.
    """

    record: TaskRecord
    overall: Accuracy | None
    labels: Mapping[str, Accuracy | None]
    confusions: tuple[tuple[str, str, float], ...]
    enough: Curve | None
    findings: tuple[Finding, ...]
    judged_by: str


class Diagnoser:
    """Diagnoses tasks, once a revision.

    Args:
        tasks: Gives records and encoded supports.
        engine: Scores clips by other clips.
    """

    def __init__(self, tasks: Tasks, engine: Engine) -> None:
        self.tasks = tasks
        self.engine = engine
        self._known: OrderedDict[tuple[str, int], Diagnosis] = OrderedDict()

    async def diagnose(self, task_id: str, wait_s: float, deadline: Deadline) -> Diagnosis:
        """Say what is wrong with a task.

        Raises:
            NotReadyError: It is still getting ready; TaskFailedError: it never will be.
            DeadlineError: It took too long.
        """
        supports = self.tasks.supports
        while True:
            async with deadline.bounding("looking up the task"):
                record = await self.tasks.get_decoded(task_id)
            key = task_id, record.revision
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
            try:
                async with deadline.bounding("waiting for the task"):
                    support = await supports.get(record, wait_s, deadline)
            except RevisionConflictError:
                continue  # changed meanwhile
            async with deadline.bounding("diagnosing"):
                found = await self._of(record, support)
            self._known[key] = found
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
            return found

    async def _of(self, record: TaskRecord, support: EncodedSupport) -> Diagnosis:
        assert support.clips is not None
        classes = support.clips.classes
        if not classes:
            return _of_no_clips(record)
        held_out, fewer = leave_one_out(classes), fewer_shots(classes)
        logits = await self.engine.score_splits(support, [*held_out, *fewer])
        features_STE = support.clips.features_STE.float().cpu().numpy()

        def judge() -> Diagnosis:
            said = verdicts(held_out, logits[: len(held_out)], classes)
            grown = curve(fewer, logits[len(held_out) :], classes)
            alike = likeness(features_STE, classes)
            labels = [label.label for label in record.labels]
            return Diagnosis(
                record=record,
                overall=said.accuracy(),
                labels={name: said.accuracy(place) for place, name in enumerate(labels)},
                confusions=tuple(
                    (labels[label], labels[other], share)
                    for label, other, share in said.confusions()
                ),
                enough=grown,
                findings=tuple(findings(record, said, grown, alike)),
                judged_by=self._judged_by(),
            )

        return await asyncio.to_thread(judge)

    def _judged_by(self) -> str:
        said = (
            "Each clip was held out in turn, with one of every other label, and scored by the "
            "clips that were left; clips are not encoded again for that."
        )
        return said if self.engine.supports_apart else said + TOGETHER


def _of_no_clips(record: TaskRecord) -> Diagnosis:
    """Say of a task of labels alone that nothing could be held out."""
    labels = {label.label: None for label in record.labels}
    said = "The task has no clips; its labels are told by their text alone."
    return Diagnosis(record, None, labels, (), None, (), said)
