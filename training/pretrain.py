"""Make a compact checkpoint: distil a small image tower, then teach motions and words.

python -m training.pretrain --teacher-weights FILE.npz --frames DIR --synthetic 300 --out DIR

Goes on by itself when killed and started again. The last line of stdout is JSON.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from model.backbones.compact import compact_image_tower
from model.backbones.timm import TimmImageTower
from model.checkpoint import load_recognizer, save_checkpoint
from model.config import CompactConfig
from model.errors import BackboneError, CheckpointError
from training.compact.image_tower import ImageRecipe, ImageRun, train_image_tower
from training.compact.motion_stage import MotionRecipe
from training.compact.run_folder import claim_folder
from training.compact.text_stage import Taught, add_recipe_options, recipes, teach
from training.compact.text_tower import TextRecipe
from training.compact.towers import open_teacher, start_from
from training.data.frame_folders import read_pools
from training.errors import InputError
from training.meta.precision import half_precision


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


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m training.pretrain", description=__doc__)
    recipe = ImageRecipe()
    parser.add_argument("--teacher", default="timm:vit_tiny_patch16_224", help="timm:NAME")
    parser.add_argument("--teacher-weights", type=Path, help="npz or safetensors; default: the hub")
    parser.add_argument("--frames", type=Path, nargs="+", default=[], help="pictures or videos")
    parser.add_argument("--synthetic", type=int, default=300, help="synthetic clips to render")
    parser.add_argument("--per-clip", type=int, default=8, help="frames of each video")
    parser.add_argument("--side", type=int, default=256, help="pixels of a held picture")
    parser.add_argument("--start", type=Path, help="compact checkpoint to train on; default: none")
    parser.add_argument("--out", type=Path, required=True, help="state and checkpoint folder")
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--heads", type=int, default=3)
    for name in ("steps", "batch", "views", "reuse", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(recipe, name))
    for name in ("lr", "keep", "full_from", "inner"):
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, type=float, default=getattr(recipe, name))
    add_recipe_options(parser)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto")
    parser.add_argument("--max-seconds", type=float, default=float("inf"), help="stop, to go on")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 when done or stopped in time, 2 for input that does not fit."""
    options = parse(arguments)
    try:
        result = pretrain(options)
    except (InputError, BackboneError, CheckpointError) as error:
        print(f"pretrain: {error}", file=sys.stderr)
        return 2
    print(json.dumps(result))
    return 0


def pretrain(options: argparse.Namespace) -> dict[str, object]:
    """Run both stages; return what the last line tells."""
    start = time.monotonic()
    teacher, fingerprint = open_teacher(options.teacher, options.teacher_weights)
    recipe = _recipe(options, teacher, fingerprint)
    torch.manual_seed(options.seed)
    student = compact_image_tower(recipe.tower)
    if options.start is not None:
        start_from(student, options.start)
    claim_folder(options.out, asdict(recipe))
    pools = read_pools(
        options.frames, options.synthetic, side=options.side, per_clip=options.per_clip
    )
    pools = replace(pools, pictures_NHWC=pools.pictures_NHWC.to(options.device))
    print(f"{sum(pools.counts)} pictures of {len(pools.counts)} origins", file=sys.stderr)
    run = ImageRun(
        student,
        _to(teacher, options.device),
        pools,
        recipe.image,
        half=half_precision(options.precision, options.device),
    )
    done = train_image_tower(
        run,
        options.out,
        max_seconds=options.max_seconds,
        tell=lambda line: print(line, file=sys.stderr),
    )
    text_loss = finish(run, recipe, options) if done else None
    return {
        "finished": done,
        "steps": run.step,
        "loss": round(run.loss, 5),
        "text_loss": None if text_loss is None else round(text_loss, 5),
        "pictures": sum(pools.counts),
        "seconds": round(time.monotonic() - start, 1),
        "out": options.out.name,
    }


def finish(run: ImageRun, recipe: PretrainRecipe, options: argparse.Namespace) -> float:
    """Teach motions and words, and write the checkpoint; return the text loss."""
    torch.manual_seed(recipe.text.seed)
    image = compact_image_tower(recipe.tower)
    image.model.load_state_dict({name: value.cpu() for name, value in run.average.items()})
    taught = teach(image, recipe.tower, options.frames, recipe.motions, recipe.text, run.device)
    card_text = card(recipe, run.loss, taught)
    save_checkpoint(taught.recognizer, options.out, card_text, half=True)
    return taught.text_loss


def card(recipe: PretrainRecipe, image_loss: float, taught: Taught) -> str:
    """Say what the checkpoint was made of; accuracy is for whoever measures it."""
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


def _recipe(
    options: argparse.Namespace, teacher: TimmImageTower, fingerprint: str
) -> PretrainRecipe:
    motions, text = recipes(options)
    patch = int(teacher.model.patch_embed.patch_size[0])
    return PretrainRecipe(
        teacher=options.teacher,
        teacher_fingerprint=fingerprint,
        frames=tuple(folder.name for folder in options.frames),
        start=None if options.start is None else load_recognizer(str(options.start)).fingerprint,
        synthetic=options.synthetic,
        per_clip=options.per_clip,
        side=options.side,
        tower=CompactConfig(
            size=teacher.size,
            patch=patch,
            width=options.width,
            depth=options.depth,
            heads=options.heads,
            mean=teacher.mean,
            std=teacher.std,
        ),
        image=ImageRecipe(
            steps=options.steps,
            batch=options.batch,
            views=options.views,
            reuse=options.reuse,
            seed=options.seed,
            lr=options.lr,
            keep=options.keep,
            full_from=options.full_from,
            inner=options.inner,
        ),
        motions=motions,
        text=text,
    )


def _to(tower: TimmImageTower, device: str) -> TimmImageTower:
    tower.model.to(device)
    return tower


if __name__ == "__main__":
    sys.exit(main())
