"""What is wrong with a task, in sentences: each finding has a code, a place and a remedy."""

from collections import defaultdict
from dataclasses import dataclass

from model.diagnosis.curve import Curve
from model.diagnosis.likeness import Likeness
from model.diagnosis.splits import places_of
from model.diagnosis.verdicts import Verdicts
from service.stores.records import TaskRecord

CONFUSED = 0.34  # of a label's held-out clips, that are taken for one other label
UNCLAIMED = 0.5  # of the times it was held out, in which a clip must be taken for its own label
STILL = 1.0  # of 255, that pictures differ by from one to the next, on average
GAIN = 0.02  # of accuracy, that one clip more of each label must promise to be worth a word


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that may be wrong.

    Args:
        code: Stable.
        sentence: What was found, with its figure.
        remedy: What to do.
        label: The label at fault.
        clip_id: The clip at fault.
        others: Labels or clips that it has to do with.
    """

    code: str
    sentence: str
    remedy: str
    label: str | None = None
    clip_id: str | None = None
    others: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Names:
    """How clips and labels of a task are called."""

    record: TaskRecord

    def label(self, place: int) -> str:
        """Return the label of a class."""
        return self.record.labels[place].label

    def label_of(self, clip: int) -> str:
        """Return the label of a clip."""
        return self.label(self.record.clips[clip].label)

    def clip(self, place: int) -> str:
        """Name a clip for people: its id, and its file where that is known."""
        clip = self.record.clips[place]
        return f"{clip.clip_id} ({clip.name})" if clip.name else clip.clip_id


def findings(
    record: TaskRecord, verdicts: Verdicts, curve: Curve | None, likeness: Likeness
) -> list[Finding]:
    """Put together all that was found, the gravest kind first."""
    names = Names(record)
    return [
        *_copies(names),
        *_unclaimed(names, verdicts),
        *_twins(names, likeness),
        *_pictures(names),
        *_still(names),
        *_confused(names, verdicts),
        *_scenes(names, likeness),
        *_single(names),
        *_more(names, curve),
    ]


def _copies(names: Names) -> list[Finding]:
    by_bytes: dict[str, list[int]] = defaultdict(list)
    for place, clip in enumerate(names.record.clips):
        if clip.sha256:
            by_bytes[clip.sha256].append(place)
    found = []
    for places in by_bytes.values():
        for place in places[1:]:
            first = places[0]
            across = names.label_of(first) != names.label_of(place)
            where = (
                f"of {names.label_of(first)!r} under {names.label_of(place)!r}"
                if across
                else "twice"
            )
            found.append(
                Finding(
                    "clip-copy",
                    f"Clip {names.clip(place)} has the bytes of {names.clip(first)}: one clip is "
                    f"there {where}.",
                    "Remove it from the label that it does not show."
                    if across
                    else "Remove one of them; it is no second example.",
                    names.label_of(place),
                    names.record.clips[place].clip_id,
                    (names.record.clips[first].clip_id,),
                )
            )
    return found


def _unclaimed(names: Names, verdicts: Verdicts) -> list[Finding]:
    found = []
    for place in verdicts.suspicious():
        own = float(verdicts.claimed[place])
        if own >= UNCLAIMED or verdicts.margin_S[place] >= 0:
            continue
        other = int(verdicts.labels_SN[place].argmax())
        found.append(
            Finding(
                "clip-not-claimed",
                f"When clip {names.clip(place)} is held out, the others of "
                f"{names.label_of(place)!r} do not claim it; it is taken for "
                f"{names.label(other)!r}.",
                "Look at its pictures: if it shows something else or nothing, "
                "move or remove it; if it is right, add more clips like it.",
                names.label_of(place),
                names.record.clips[place].clip_id,
                (names.label(other),),
            )
        )
    return found


def _twins(names: Names, likeness: Likeness) -> list[Finding]:
    clips = names.record.clips
    found = []
    for one, other, cosine in likeness.twins:
        if clips[one].sha256 and clips[one].sha256 == clips[other].sha256:
            continue  # said already
        across = names.label_of(one) != names.label_of(other)
        found.append(
            Finding(
                "clip-near-duplicate",
                f"Clips {names.clip(one)} and {names.clip(other)} show nearly the same frames "
                f"(cosine {cosine:.3f}), {'under two labels' if across else 'under one label'}.",
                "Keep it under the label that it shows."
                if across
                else "Replace one by a clip of another take; it adds little.",
                names.label_of(other),
                clips[other].clip_id,
                (clips[one].clip_id,),
            )
        )
    return found


def _pictures(names: Names) -> list[Finding]:
    return [
        Finding(
            "clip-few-pictures",
            f"Clip {names.clip(place)} has {clip.distinct} different pictures at "
            f"{len(clip.frames_s)} moments.",
            "Send a longer part of the recording, or one with more frames a second.",
            names.label_of(place),
            clip.clip_id,
        )
        for place, clip in enumerate(names.record.clips)
        if clip.distinct < len(clip.frames_s)
    ]


def _still(names: Names) -> list[Finding]:
    return [
        Finding(
            "clip-still",
            f"Hardly anything moves in clip {names.clip(place)}: its pictures differ by "
            f"{clip.motion:.1f} of 255 from one to the next.",
            "Cut the clip to the action with start_s and end_s, or replace it.",
            names.label_of(place),
            clip.clip_id,
        )
        for place, clip in enumerate(names.record.clips)
        if clip.motion is not None and clip.motion < STILL
    ]


def _confused(names: Names, verdicts: Verdicts) -> list[Finding]:
    return [
        Finding(
            "labels-confused",
            f"{share:.0%} of the held-out clips of {names.label(label)!r} are taken for "
            f"{names.label(other)!r}.",
            "Add clips that show the difference, or make one label of the two.",
            names.label(label),
            others=(names.label(other),),
        )
        for label, other, share in verdicts.confusions()
        if share >= CONFUSED
    ]


def _scenes(names: Names, likeness: Likeness) -> list[Finding]:
    return [
        Finding(
            "label-one-scene",
            f"All clips of {names.label(label)!r} begin in one scene that no other label has (the "
            f"features of their first frames have cosines of {cosine:.2f} and more), so the "
            "background may be what is recognised.",
            "Add clips of it from other places, or clips of other labels from this one.",
            names.label(label),
        )
        for label, cosine in likeness.one_scene
    ]


def _single(names: Names) -> list[Finding]:
    places = places_of([clip.label for clip in names.record.clips])
    return [
        Finding(
            "label-one-clip",
            f"Label {names.label(label)!r} has one clip, so nothing can be said of it.",
            "Add a second clip.",
            names.label(label),
        )
        for label, own in enumerate(places)
        if len(own) == 1
    ]


def _more(names: Names, curve: Curve | None) -> list[Finding]:
    if curve is None or curve.needy is None or curve.one_more - curve.now < GAIN:
        return []
    return [
        Finding(
            "more-clips-help",
            f"One clip more of each label promises {curve.one_more - curve.now:+.1%} accuracy; "
            f"{names.label(curve.needy)!r} would profit most.",
            "Add clips, this label first.",
            names.label(curve.needy),
        )
    ]
