"""Make a compact checkpoint: distil a small image tower, then teach motions and words.

    python -m training.pretrain --teacher-weights FILE.npz --frames DIR --synthetic 300 --out DIR

A killed run goes on when it is started again. The last line of stdout is JSON.
"""

import argparse
import sys
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from pydantic import ValidationError

from model.backbones.packaged.compact import compact_image_tower
from model.backbones.timm import TimmImageTower
from model.checkpoint import load_recognizer, save_checkpoint
from model.config import CompactConfig
from training import cli
from training.compact.image_tower import ImageRecipe, ImageRun, train_image_tower
from training.compact.motion_stage import MotionRecipe
from training.compact.pictures import FramePools, read_pools
from training.compact.teacher import open_teacher
from training.compact.text_stage import Taught, add_recipe_options, recipes, teach
from training.compact.text_tower import TextRecipe
from training.errors import InputError, refusal
from training.meta.processes import half_precision
from training.run_folder import claim_folder

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """What the command line asks for."""

    teacher: str  # timm:NAME
    teacher_weights: Path | None  # a file; the hub's if None
    frames: tuple[Path, ...]  # folders of pictures or videos
    synthetic: int  # clips to render
    per_clip: int  # frames of each video
    side: int  # pixels of a held picture
    start: Path | None  # compact checkpoint whose image tower is trained on
    out: Path
    width: int  # of the student
    depth: int
    heads: int
    image: ImageRecipe
    motions: MotionRecipe
    text: TextRecipe
    device: str
    half: bool  # whether to compute in bfloat16 where that is safe
    max_seconds: float  # after which the image stage stops, to go on later


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainRecipe:
    """The whole recipe, stored beside the state; a folder belongs to one recipe."""

    teacher: str
    teacher_fingerprint: str
    frames: tuple[str, ...]  # names of the folders
    start: str | None  # fingerprint of the checkpoint whose image tower is trained on
    synthetic: int  # clips
    per_clip: int  # frames of each video
    side: int  # pixels of a held picture
    tower: CompactConfig
    image: ImageRecipe
    motions: MotionRecipe
    text: TextRecipe


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


def read_values(options: argparse.Namespace) -> Values:
    """Return the values of parsed options.

    Raises:
        InputError: A value is out of range.
    """
    motions, text = recipes(options)
    try:
        image = ImageRecipe(**{name: getattr(options, name) for name in (*COUNTS, *RATES)})
    except ValidationError as error:
        raise refusal(error) from error
    return Values(
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


def pretrain(values: Values) -> dict[str, object]:
    """Run all stages; return what the last line tells.

    Raises:
        InputError: The teacher, the pictures, the start or the folder cannot be used.
    """
    began = time.monotonic()
    teacher, fingerprint = open_teacher(values.teacher, values.teacher_weights)
    recipe = _recipe(values, teacher, fingerprint)
    torch.manual_seed(values.image.seed)
    student = compact_image_tower(recipe.tower)
    if values.start is not None:
        _start_from(student, values.start)
    claim_folder(values.out, asdict(recipe))
    pools = _read_pools(values)
    teacher.model.to(values.device)
    run = ImageRun(student, teacher, pools, recipe.image, half=values.half)
    done = train_image_tower(run, values.out, max_seconds=values.max_seconds, tell=_tell)
    text_loss = _finish(run, recipe, values) if done else None
    return {
        "finished": done,
        "steps": run.step,
        "loss": round(run.loss, 5),
        "text_loss": None if text_loss is None else round(text_loss, 5),
        "pictures": sum(pools.counts),
        "seconds": round(time.monotonic() - began, 1),
        "out": values.out.name,
    }


def _recipe(values: Values, teacher: TimmImageTower, fingerprint: str) -> PretrainRecipe:
    start = None if values.start is None else load_recognizer(str(values.start)).fingerprint
    return PretrainRecipe(
        teacher=values.teacher,
        teacher_fingerprint=fingerprint,
        frames=tuple(folder.name for folder in values.frames),
        start=start,
        synthetic=values.synthetic,
        per_clip=values.per_clip,
        side=values.side,
        tower=CompactConfig(
            size=teacher.size,
            patch=int(teacher.model.patch_embed.patch_size[0]),
            width=values.width,
            depth=values.depth,
            heads=values.heads,
            mean=teacher.mean,
            std=teacher.std,
        ),
        image=values.image,
        motions=values.motions,
        text=values.text,
    )


def _start_from(student: TimmImageTower, folder: Path) -> None:
    """Give the student the weights of an earlier compact checkpoint's image tower."""
    earlier = load_recognizer(str(folder)).video.tower.model.state_dict()
    try:
        student.model.load_state_dict(earlier)
    except RuntimeError as error:
        raise InputError(
            f"The image tower in {folder} has other sizes than the student; give its --width, "
            "--depth and --heads, or leave --start out."
        ) from error


def _read_pools(values: Values) -> FramePools:
    pools = read_pools(values.frames, values.synthetic, side=values.side, per_clip=values.per_clip)
    _tell(f"{sum(pools.counts)} pictures of {len(pools.counts)} origins")
    return replace(pools, pictures_NHWC=pools.pictures_NHWC.to(values.device))


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


def _finish(run: ImageRun, recipe: PretrainRecipe, values: Values) -> float:
    """Teach motions and words, and write the checkpoint; return the text loss."""
    torch.manual_seed(recipe.text.seed)
    image = compact_image_tower(recipe.tower)
    image.model.load_state_dict({name: value.cpu() for name, value in run.average.items()})
    taught = teach(image, recipe.tower, values.frames, recipe.motions, recipe.text, run.device)
    save_checkpoint(taught.recognizer, values.out, _card(recipe, run.loss, taught), half=True)
    return taught.text_loss


def _card(recipe: PretrainRecipe, image_loss: float, taught: Taught) -> str:
    """Describe how the checkpoint was made; accuracy is not known yet."""
    return (
        "# A compact checkpoint\n\n"
        f"Image tower distilled from {recipe.teacher} (weights {recipe.teacher_fingerprint[:12]}) "
        f"in {recipe.image.steps} steps of {recipe.image.batch} views (last loss {image_loss:.4f}) "
        f"of the folders {', '.join(recipe.frames) or 'none'} and {recipe.synthetic} synthetic "
        f"clips; adapters taught motions ({100 * taught.named:.1f} % of training stages named), "
        f"text tower taught captions and labels (loss {taught.text_loss:.4f}). "
        "Test classes of an index.csv were not read. Accuracy: not measured yet; run "
        "`python -m training.evaluate`.\n"
    )


def run(options: argparse.Namespace) -> dict[str, object]:
    """Run the command."""
    return pretrain(read_values(options))


COMMAND = cli.Command("pretrain", __doc__, declare, run)
main = partial(cli.main, COMMAND)

if __name__ == "__main__":
    sys.exit(main())
