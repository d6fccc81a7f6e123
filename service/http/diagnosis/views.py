"""What is wrong with a task, as the API shows it."""

from pydantic import BaseModel, Field

from model.diagnosis.verdicts import Accuracy
from service.tasks.diagnosis.diagnose import Diagnosis


class AccuracyView(BaseModel):
    """A share of held-out clips that were recognised, with its interval of 95 % (Wilson)."""

    value: float
    low: float
    high: float
    clips: int = Field(description="That could be held out: of labels with two clips or more.")


class ConfusionView(BaseModel):
    """Clips of one label that are taken for another."""

    label: str
    taken_for: str
    share: float = Field(description="Of the held-out clips of `label`.")


class FindingView(BaseModel):
    """One thing that may be wrong."""

    code: str = Field(examples=["clip-not-claimed"])
    label: str | None
    clip_id: str | None
    others: list[str] = Field(description="Labels or clips that it has to do with.")
    sentence: str
    remedy: str


class EnoughView(BaseModel):
    """Whether there are enough examples."""

    measured: dict[str, float] = Field(
        description="Accuracy by clips of a label, from 1 to one less than there are."
    )
    now: float = Field(description="Expected with all clips.")
    one_more: float = Field(description="Expected with one clip more of each label.")
    label: str | None = Field(description="The label that would profit most.")


class DiagnosisShort(BaseModel):
    """A diagnosis in short."""

    leave_one_out: AccuracyView | None
    findings: dict[str, int] = Field(description="How many there are of each code.")


class DiagnosisView(BaseModel):
    """What the clips of a task, held out in turn, say of it."""

    task_id: str
    task_revision: int
    model_revision: str
    leave_one_out: AccuracyView | None = Field(description="Null where no label has two clips.")
    labels: dict[str, AccuracyView | None]
    confusions: list[ConfusionView] = Field(description="The most frequent first.")
    enough: EnoughView | None
    findings: list[FindingView]
    judged_by: str


def diagnosis_view(found: Diagnosis, fingerprint: str) -> DiagnosisView:
    """Show a diagnosis."""
    labels = found.record.labels
    grown = found.enough
    return DiagnosisView(
        task_id=found.record.task_id,
        task_revision=found.record.revision,
        model_revision=fingerprint,
        leave_one_out=_accuracy(found.overall),
        labels={label: _accuracy(value) for label, value in found.labels.items()},
        confusions=[
            ConfusionView(label=label, taken_for=other, share=share)
            for label, other, share in found.confusions
        ],
        enough=None
        if grown is None
        else EnoughView(
            measured={str(shots): value for shots, value in grown.measured.items()},
            now=grown.now,
            one_more=grown.one_more,
            label=None if grown.needy is None else labels[grown.needy].label,
        ),
        findings=[
            FindingView(
                code=each.code,
                label=each.label,
                clip_id=each.clip_id,
                others=list(each.others),
                sentence=each.sentence,
                remedy=each.remedy,
            )
            for each in found.findings
        ],
        judged_by=found.judged_by,
    )


def diagnosis_short(found: Diagnosis) -> DiagnosisShort:
    """Show a diagnosis in short."""
    counts: dict[str, int] = {}
    for each in found.findings:
        counts[each.code] = counts.get(each.code, 0) + 1
    return DiagnosisShort(leave_one_out=_accuracy(found.overall), findings=counts)


def _accuracy(found: Accuracy | None) -> AccuracyView | None:
    if found is None:
        return None
    return AccuracyView(value=found.value, low=found.low, high=found.high, clips=found.clips)
