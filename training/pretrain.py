"""Make a compact checkpoint: distil a small image tower, then teach motions and words.

    python -m training.pretrain --teacher-weights FILE.npz --frames DIR --synthetic 300 --out DIR

A killed run goes on when it is started again. The last line of stdout is JSON.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from training import cli
from training.compact.recipes import ImageRecipe
from training.compact.text_stage import add_recipe_options, recipes
from training.errors import refusal

# fields of the image recipe, as options
COUNTS = {
    "steps": "Steps of the optimiser.",
    "batch": "Pictures of one step.",
    "views": "Fresh views of pictures in a round.",
    "reuse": "Visits to each view of a round.",
    "seed": "Seed of all that is drawn by chance.",
}
RATES = {
    "lr": "Rate of learning, after the warm-up.",
    "keep": "Share of the patch tokens that the first steps look at.",
    "full_from": "Share of the steps after which all patches are looked at.",
    "inner": "Weight of the teacher's inner depths at the end.",
}


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    _declare_data(parser)
    recipe = ImageRecipe()
    parser.add_argument("--width", type=int, default=192, help="Token width of the tower.")
    parser.add_argument("--depth", type=int, default=6, help="Blocks of the tower.")
    parser.add_argument("--heads", type=int, default=3, help="Attention heads of a block.")
    for kind, names in ((int, COUNTS), (float, RATES)):
        for name, text in names.items():
            flag = "--" + name.replace("_", "-")
            parser.add_argument(flag, type=kind, default=getattr(recipe, name), help=text)
    add_recipe_options(parser)
    cli.add_device_options(parser)
    parser.add_argument(
        "--max-seconds",
        type=float,
        default=float("inf"),
        help="Stop after so many seconds; the same command goes on.",
    )


def _declare_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--teacher",
        default="timm:vit_tiny_patch16_224",
        help="Backbone to learn from, as timm:NAME.",
    )
    parser.add_argument(
        "--teacher-weights",
        type=Path,
        help="File of its weights (npz or safetensors); without it, the hub's.",
    )
    parser.add_argument(
        "--frames",
        type=Path,
        nargs="+",
        default=[],
        help="Folders of pictures or videos to learn on.",
    )
    parser.add_argument(
        "--synthetic", type=int, default=300, help="Synthetic clips to render besides."
    )
    parser.add_argument("--per-clip", type=int, default=8, help="Frames taken of each video.")
    parser.add_argument(
        "--side", type=int, default=256, help="Height and width of a held picture, in pixels."
    )
    parser.add_argument(
        "--start", type=Path, help="Compact checkpoint to train on; without it, new weights."
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="Folder of the state and of the checkpoint."
    )


def run(options: argparse.Namespace) -> dict[str, object]:
    """Run the command."""
    motions, text = recipes(options)
    try:
        image = ImageRecipe(**{name: getattr(options, name) for name in (*COUNTS, *RATES)})
    except ValidationError as error:
        raise refusal(error) from error
    from training.compact.pretraining import PretrainJob, pretrain
    from training.meta.processes import half_precision

    job = PretrainJob(
        teacher=options.teacher,
        teacher_weights=options.teacher_weights,
        frames=tuple(options.frames),
        synthetic=options.synthetic,
        per_clip=options.per_clip,
        side=options.side,
        start=options.start,
        out=options.out,
        width=options.width,
        depth=options.depth,
        heads=options.heads,
        image=image,
        motions=motions,
        text=text,
        device=options.device,
        half=half_precision(options.precision, options.device),
        max_seconds=options.max_seconds,
    )
    return pretrain(job)


COMMAND = cli.Command("pretrain", __doc__, declare, run)
main = partial(cli.main, COMMAND)

if __name__ == "__main__":
    sys.exit(main())
