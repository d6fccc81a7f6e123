"""The examination of a data set's split: drawn episodes, or those of a published list."""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from training.data.datasets import DataChoice, Dataset
from training.data.descriptions_file import stage_texts
from training.data.episode_list import read_episode_list, write_episode_list
from training.data.episodes import EVALUATING, DrawnEpisodes, Episode, fewest_labels
from training.errors import InputError
from training.evaluation.examination import Examination, Layout, by_layout, draw_layouts
from training.features.readable import readable_splits
from training.features.tokens import TokenSources

TEST = "test"  # the split that is asked without another
USUAL_WAYS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ExaminationJob:
    """What recognisers are to be asked.

    Args:
        data: On which clips.
        split: Of the data; None takes test, or the split of a list.
        episodes: How they are drawn, or the file of a list.
        written: File to write the list of episodes to, to publish it beside the number.
        descriptions: File of stage texts; None takes the template's.
        with_text: Whether text takes part.
        cache: Where trunk caches lie; None holds tokens in memory.
        half: Whether to compute in bfloat16.
    """

    data: DataChoice
    split: str | None = None
    episodes: DrawnEpisodes | Path = EVALUATING
    written: Path | None = None
    descriptions: Path | None = None
    with_text: bool = True
    cache: Path | None = None
    half: bool = False


def open_examination(job: ExaminationJob) -> Examination:
    """Open the clips and draw the episodes.

    Raises:
        InputError: The data, the sizes of episodes or the list do not fit.
    """
    data = job.data.open(few_are_test=True)
    asked = job.split or TEST
    if isinstance(job.episodes, Path):
        asked = read_episode_list(job.episodes, data).split
    data = readable_splits(data, [asked], job.cache)
    split, layouts = _episodes(job, data)
    if job.written is not None:
        listed = [episode for episodes in layouts.values() for episode in episodes]
        write_episode_list(job.written, data, split, listed)
    name = f"{data.name}-{split}"
    return Examination(
        data=data.name,
        split=split,
        layouts=layouts,
        labels=data.labels(split),
        sources=TokenSources(name, data.split(split), cache=job.cache, half=job.half),
        stages=partial(stage_texts, data, [split], job.descriptions) if job.with_text else None,
    )


def _episodes(job: ExaminationJob, data: Dataset) -> tuple[str, dict[Layout, list[Episode]]]:
    """Return the split and its episodes."""
    if isinstance(job.episodes, Path):
        listed = read_episode_list(job.episodes, data)
        if job.split not in (None, listed.split):
            raise InputError(
                f"{job.episodes} lists episodes of {listed.split}, not of {job.split}; leave out "
                "--split."
            )
        if not listed.same_clips:
            print("The split has other clips than when the list was written.", file=sys.stderr)
        return listed.split, by_layout(listed.episodes)
    split, drawn = job.split or TEST, job.episodes
    clips = data.split(split)
    # Without a number of ways, five or as many as there are labels.
    most = (min(USUAL_WAYS, max(2, fewest_labels(clips))),)
    wanted = [Layout(ways, shots) for ways in drawn.ways or most for shots in drawn.shots]
    return split, draw_layouts(
        clips,
        wanted,
        queries=drawn.queries,
        episodes=drawn.episodes,
        seed=drawn.seed,
    )
