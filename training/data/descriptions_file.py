"""Files of stage sentences, YAML or JSON: `brush hair: {label: ..., sub_act_en_li: [three]}`.

This is the form of Task-Adapter++'s corpora (model/papers/task_adapter.md, section 4). Entries are
joined to labels by their words, `spoken(label)`, never by position.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

from model.errors import DescriptionError
from model.text import STAGES, StageTexts, parse_stages, spoken, template_stages
from training.data.datasets import Dataset
from training.errors import InputError
from training.run_folder import write_aside

SUFFIXES = (".yaml", ".yml", ".json")
SHOWN = 5  # labels that an error lists


def read_descriptions(file: Path, count: int = STAGES) -> dict[str, StageTexts]:
    """Return the stages of a file by `spoken` label, `count` of each.

    An entry is the list of its sentences, or holds it as `sub_act_en_li` or `stages`. Where an
    entry's key and its `label` differ, it is found by both.

    Raises:
        InputError: The file cannot be read, an entry has another number of sentences, or two
            contradict each other.
    """
    try:
        text = file.read_text(encoding="utf-8")
        loaded = json.loads(text) if file.suffix.lower() == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        said = " ".join(str(error).split())
        raise InputError(f"{file} cannot be read ({said}); give YAML or JSON.") from error
    if not isinstance(loaded, Mapping):
        raise InputError(f"{file} is no table of labels; write 'label: {{sub_act_en_li: [...]}}'.")
    found: dict[str, StageTexts] = {}
    spellings: dict[str, str] = {}
    for key, entry in loaded.items():
        stages = _stages(file, key, entry, count)
        label = entry.get("label", key) if isinstance(entry, Mapping) else key
        for name in (key, label):
            if not isinstance(name, str):
                raise InputError(f"{file} has the label {name!r}, no text; put it in quotes.")
            first = spellings.setdefault(spoken(name), name)
            if found.setdefault(spoken(name), stages) != stages:
                raise InputError(
                    f"{file} describes one label twice, as {first!r} and {name!r}; keep one of "
                    "them."
                )
    return found


def stages_of(
    held: Mapping[str, StageTexts], labels: Iterable[str], file: Path
) -> dict[str, StageTexts]:
    """Return the stages of each label.

    Args:
        held: From `read_descriptions`.
        labels: In any spelling that `spoken` takes for the same.
        file: The file, for the error.

    Raises:
        InputError: A label has no description.
    """
    wanted = list(labels)
    lacking = [label for label in wanted if spoken(label) not in held]
    if lacking:
        more = f" and {len(lacking) - SHOWN} more" if len(lacking) > SHOWN else ""
        raise InputError(
            f"{file} describes {len(wanted) - len(lacking)} of {len(wanted)} labels, not "
            f"{', '.join(map(repr, lacking[:SHOWN]))}{more}; add them with training.describe."
        )
    return {label: held[spoken(label)] for label in wanted}


def stage_texts(
    data: Dataset, splits: Iterable[str], file: Path | None, count: int = STAGES
) -> dict[str, StageTexts] | None:
    """Return the stages of the labels of some splits; None where labels are no names.

    A data set that was joined to others and has no label in the file is left to video alone.

    Args:
        data: Whose labels.
        splits: Of the data.
        file: Of stage sentences; None takes the template's.
        count: Stages of an action.

    Raises:
        InputError: The file cannot be read, or describes a part of a data set's labels.
    """
    if not data.named:
        return None
    labels: dict[str, set[str]] = defaultdict(set)
    for split in splits:
        for clip in data.split(split):
            labels[clip.dataset].add(clip.label)
    if file is None:
        every = [label for own in labels.values() for label in sorted(own)]
        return {label: template_stages(label, count) for label in every}
    held = read_descriptions(file, count)
    described = [
        label
        for own in labels.values()
        if len(labels) == 1 or any(spoken(label) in held for label in own)
        for label in sorted(own)
    ]
    return stages_of(held, described, file)


def write_descriptions(file: Path, descriptions: Mapping[str, StageTexts]) -> None:
    """Write stages by label: JSON to a file that ends in .json, YAML to any other.

    Raises:
        InputError: The file cannot be written; it is then as it was before.
    """
    entries = {
        spoken(label): {"label": label, "sub_act_en_li": list(stages)}
        for label, stages in descriptions.items()
    }
    if file.suffix.lower() == ".json":
        text = json.dumps(entries, indent=2, ensure_ascii=False) + "\n"
    else:
        text = yaml.safe_dump(entries, sort_keys=False, allow_unicode=True, width=200)
    write_aside(file, text.encode())


def _stages(file: Path, key: object, entry: object, count: int) -> StageTexts:
    try:
        return parse_stages(entry, count)
    except DescriptionError as error:
        raise InputError(f"{file}, {key!r}: {error}") from error
