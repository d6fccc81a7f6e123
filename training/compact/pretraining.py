"""A compact checkpoint from nothing: a distilled image tower, then motions and words."""

import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from model.backbones.packaged.compact import compact_image_tower
from model.backbones.views.timm import TimmImageTower
from model.checkpoint import load_recognizer, save_checkpoint
from model.config.towers import CompactConfig
from training.compact.image_tower import ImageRun, train_image_tower
from training.compact.pictures import FramePools, read_pools
from training.compact.recipes import ImageRecipe, MotionRecipe, TextRecipe
from training.compact.teacher import open_teacher
from training.compact.teaching import Taught, teach
from training.errors import InputError
from training.run_folder import claim_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainJob:
    """A compact checkpoint that is to be made."""

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


def pretrain(job: PretrainJob) -> dict[str, object]:
    """Run all stages; return what the last line tells.

    Raises:
        InputError: The teacher, the pictures, the start or the folder cannot be used.
    """
    began = time.monotonic()
    teacher, fingerprint = open_teacher(job.teacher, job.teacher_weights)
    recipe = _recipe(job, teacher, fingerprint)
    torch.manual_seed(job.image.seed)
    student = compact_image_tower(recipe.tower)
    if job.start is not None:
        _start_from(student, job.start)
    claim_folder(job.out, asdict(recipe))
    pools = _read_pools(job)
    teacher.model.to(job.device)
    run = ImageRun(student, teacher, pools, recipe.image, half=job.half)
    done = train_image_tower(run, job.out, max_seconds=job.max_seconds, tell=_tell)
    text_loss = _finish(run, recipe, job) if done else None
    return {
        "finished": done,
        "steps": run.step,
        "loss": round(run.loss, 5),
        "text_loss": None if text_loss is None else round(text_loss, 5),
        "pictures": sum(pools.counts),
        "seconds": round(time.monotonic() - began, 1),
        "out": job.out.name,
    }


def _recipe(job: PretrainJob, teacher: TimmImageTower, fingerprint: str) -> PretrainRecipe:
    start = None if job.start is None else load_recognizer(str(job.start)).fingerprint
    return PretrainRecipe(
        teacher=job.teacher,
        teacher_fingerprint=fingerprint,
        frames=tuple(folder.name for folder in job.frames),
        start=start,
        synthetic=job.synthetic,
        per_clip=job.per_clip,
        side=job.side,
        tower=CompactConfig(
            size=teacher.size,
            patch=int(teacher.model.patch_embed.patch_size[0]),
            width=job.width,
            depth=job.depth,
            heads=job.heads,
            mean=teacher.mean,
            std=teacher.std,
        ),
        image=job.image,
        motions=job.motions,
        text=job.text,
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


def _read_pools(job: PretrainJob) -> FramePools:
    pools = read_pools(job.frames, job.synthetic, side=job.side, per_clip=job.per_clip)
    _tell(f"{sum(pools.counts)} pictures of {len(pools.counts)} origins")
    return replace(pools, pictures_NHWC=pools.pictures_NHWC.to(job.device))


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


def _finish(run: ImageRun, recipe: PretrainRecipe, job: PretrainJob) -> float:
    """Teach motions and words, and write the checkpoint; return the text loss."""
    torch.manual_seed(recipe.text.seed)
    image = compact_image_tower(recipe.tower)
    image.model.load_state_dict({name: value.cpu() for name, value in run.average.items()})
    taught = teach(image, recipe.tower, job.frames, recipe.motions, recipe.text, run.device)
    save_checkpoint(taught.recognizer, job.out, _card(recipe, run.loss, taught), half=True)
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
