"""Meta-train a method's adapters on base classes; validation classes choose the weights.

python -m training.fit --method task_adapter --data INDEX.csv|DIR --out DIR [--set lr=1e-4]

The folder then serves: KSHOT_CHECKPOINT=DIR. Goes on by itself when killed and started again;
`torchrun --nproc-per-node N -m training.fit ...` uses N devices. The last line is JSON.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from model.errors import BackboneError, CheckpointError, ClipError, MethodError
from model.methods import METHODS
from model.recognizer import Recognizer
from training.data.datasets import MAX_MISSING, Dataset, LabelledClip, open_datasets
from training.data.descriptions_file import stage_texts
from training.data.episodes import EpisodePlan, EpisodeSampler, fewest_labels
from training.errors import InputError
from training.evaluation.report import draw_curve
from training.features.clip_views import ClipAugmentation
from training.features.tokens import DecodedTokens, TokenSource
from training.features.trunk_cache import open_trunk_cache
from training.meta.learner import Learner, trained_parameters
from training.meta.methods import MethodChoice, open_method, start_from_adapters
from training.meta.processes import (
    Processes,
    half_precision,
    join_processes,
    leave_processes,
    own_device,
)
from training.meta.recipe import RECIPES, FitRecipe, read_recipe
from training.meta.run import FitRun, History, Validator
from training.run_folder import claim_folder, write_aside

FEW_LABELS = 20  # training labels under which adapters rather learn the labels than the task


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m training.fit", description=__doc__)
    parser.add_argument("--method", default="task_adapter_pp", help=f"one of {', '.join(METHODS)}")
    parser.add_argument("--backbone", default="compact", help="as KSHOT_CHECKPOINT")
    parser.add_argument("--backbone-weights", type=Path, help="a file; default: the hub")
    parser.add_argument("--blocks", type=int, help="adapted visual blocks; default: the preset's")
    parser.add_argument("--text-blocks", type=int, help="adapted text blocks")
    parser.add_argument("--ratio", type=float, help="hidden width of visual adapters / token width")
    contexts = ("none", "self", "support", "prototype", "joint")
    parser.add_argument("--query-context", choices=contexts, help="default: the preset's")
    matchers = ("prototype", "frame_pairs", "bi_mhm", "otam", "trx")
    parser.add_argument("--matcher", choices=matchers, default="prototype", help="video score")
    parser.add_argument("--start", type=Path, help="checkpoint whose adapters learn on")
    parser.add_argument("--frames", type=int, help="sampled of each clip; default: the preset's")
    parser.add_argument("--at-input", action="store_true", help="temporal embedding as released")
    parser.add_argument(
        "--data",
        type=Path,
        nargs="+",
        required=True,
        help="index.csv, split files or DIR; several are trained on together",
    )
    parser.add_argument("--root", type=Path, help="of the clips that split files list")
    parser.add_argument("--names", type=Path, help="of the labels, where split files have ids")
    parser.add_argument("--max-missing", type=float, default=MAX_MISSING, help="share of files")
    parser.add_argument("--descriptions", type=Path, help="stage texts; default: the template's")
    parser.add_argument("--no-text", action="store_true", help="train the video score alone")
    parser.add_argument("--recipe", default="adamw", help=f"{', '.join(RECIPES)}, or a JSON file")
    parser.add_argument("--set", nargs="+", default=[], metavar="FIELD=VALUE", help="of the recipe")
    parser.add_argument("--cache", type=Path, help="trunk caches; default: beside --out")
    parser.add_argument("--no-cache", action="store_true", help="run the trunk at every step")
    parser.add_argument("--out", type=Path, required=True, help="state and checkpoint folder")
    parser.add_argument("--half", action="store_true", help="store the checkpoint in 16 bits")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 2 for input that does not fit."""
    options = parse(arguments)
    try:
        result = fit(options)
    except (InputError, BackboneError, CheckpointError, ClipError, MethodError) as error:
        print(f"fit: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"fit: a file cannot be written or read ({error}); free its disk.", file=sys.stderr)
        return 2
    if result is not None:
        print(json.dumps(result))
    return 0


def fit(options: argparse.Namespace) -> dict[str, object] | None:
    """Train; return what the last line tells, in the leading process."""
    device = own_device(options.device)
    processes = join_processes(device)
    try:
        return _fit(options, device, processes)
    finally:
        leave_processes(processes)


def _fit(
    options: argparse.Namespace, device: torch.device, processes: Processes
) -> dict[str, object] | None:
    start = time.monotonic()
    recipe = read_recipe(options.recipe, _changes(options.set))
    choice = method_choice(options)
    say = partial(tell, processes)
    torch.manual_seed(recipe.seed)  # adapters start at random below their zero
    recognizer = open_method(choice, options.out.name)
    started = None
    if options.start is not None:
        started = start_from_adapters(recognizer, options.start, options.backbone_weights)
    recognizer.to(device)
    data = open_datasets(
        options.data, root=options.root, names=options.names, max_missing=options.max_missing
    )
    say(f"{data.name}: {counted(data)}")
    warn_if_few(data, say)
    if processes.leads:
        claim_folder(options.out, _claim(options, choice, recipe) | {"start": started})
    half = half_precision(options.precision, device.type)
    sources = {
        split: open_source(options, recognizer, data, split, recipe, processes, half=half)
        for split in ("train", "val")
    }
    stages = None
    if not options.no_text:
        stages = stage_texts(data, ("train", "val"), options.descriptions)
    learner = Learner(
        recognizer,
        recipe,
        training_episodes(data.split("train"), recipe, say),
        sources["train"],
        stages=stages,
        processes=processes,
        half=half,
    )
    validator = Validator(
        source=sources["val"],
        clips=len(data.split("val")),
        samplers=val_samplers(data.split("val"), recipe, say),
        episodes=recipe.val_episodes,
        stages=stages,
        half=half,
    )
    run = FitRun(
        learner,
        validator,
        options.out,
        lambda history: card(data, choice, recipe, history),
        half=options.half,
    )
    history = run.run(tell=say)
    if not processes.leads:
        return None
    draw_curve(history.rows, options.out / "curve.png")
    write_aside(options.out / "environment.json", json.dumps(environment(device)).encode())
    return {
        "steps": learner.steps_done,
        "best_step": history.best_step,
        "best_val": round(history.best, 2),
        "untrained_val": round(untrained(history), 2),
        "trained_parameters": sum(p.numel() for p in trained_parameters(recognizer).values()),
        "seconds": round(time.monotonic() - start, 1),
        "out": options.out.name,
    }


def method_choice(options: argparse.Namespace) -> MethodChoice:
    """Return the method that the command line asks for."""
    return MethodChoice(
        preset=options.method,
        backbone=options.backbone,
        backbone_weights=options.backbone_weights,
        blocks=options.blocks,
        text_blocks=options.text_blocks,
        ratio=options.ratio,
        query_context=options.query_context,
        frames=options.frames,
        matcher=options.matcher,
        at_input=options.at_input,
    )


def _changes(pairs: Sequence[str]) -> dict[str, str]:
    changes = {}
    for pair in pairs:
        field, equals, value = pair.partition("=")
        if not equals:
            raise InputError(f"--set {pair!r} has no '='; write FIELD=VALUE.")
        changes[field] = value
    return changes


def _claim(
    options: argparse.Namespace, choice: MethodChoice, recipe: FitRecipe
) -> dict[str, object]:
    """Return what a folder belongs to; where files lie on this machine does not matter."""
    weights = choice.backbone_weights
    return {
        "method": asdict(choice) | {"backbone_weights": weights.name if weights else None},
        "data": "+".join(data.name for data in options.data),
        "descriptions": options.descriptions.name if options.descriptions else None,
        "text": not options.no_text,
        "recipe": asdict(recipe),
    }


def open_source(
    options: argparse.Namespace,
    recognizer: Recognizer,
    data: Dataset,
    split: str,
    recipe: FitRecipe,
    processes: Processes,
    *,
    half: bool,
) -> TokenSource:
    """Open the trunk cache of a split, built by the leading process; or decode at every step."""
    clips = data.split(split)
    draws = recipe.draws if split == "train" else 0
    if options.no_cache:
        if draws:
            raise InputError("Augmentation draws live in the trunk cache; give --set draws=0.")
        return DecodedTokens(recognizer, clips)
    root = options.cache or options.out.parent / "trunk-cache"
    plain = len(recognizer.video.plain_blocks)
    backbone = options.backbone.replace(":", "-").replace("/", "-")
    mirrored = f"-mirror{recipe.mirror:g}" if draws else ""
    folder = root / f"{data.name}-{split}-{backbone}-{plain}{mirrored}"
    augmentation = ClipAugmentation(mirror=recipe.mirror)
    for turn in (True, False):  # the leading process builds, the others then open
        if processes.leads == turn:
            opened = open_trunk_cache(
                folder, recognizer, clips, draws=draws, half=half, augmentation=augmentation
            )
        processes.wait()
    return opened


def training_episodes(
    clips: Sequence[LabelledClip], recipe: FitRecipe, say: Callable[[str], None]
) -> EpisodeSampler:
    """Return the training episodes; small data makes the largest ones smaller, and says so.

    Raises:
        InputError: not even the smallest episodes of the recipe can be drawn.
    """
    labels = fewest_labels(clips)
    ways = (min(recipe.ways[0], labels), min(recipe.ways[1], labels))
    least, most = recipe.shots
    for shots in range(most, least, -1):
        plan = EpisodePlan(ways, (least, shots), recipe.queries)
        if (sampler := _sampler(clips, plan, recipe.seed)) is not None:
            if (shots, ways[1]) != (most, recipe.ways[1]):
                say(f"training episodes have at most {ways[1]} ways and {shots} shots")
            return sampler
    return EpisodeSampler(clips, EpisodePlan(ways, least, recipe.queries), recipe.seed)


def val_samplers(
    clips: Sequence[LabelledClip], recipe: FitRecipe, say: Callable[[str], None]
) -> dict[int, EpisodeSampler]:
    """Return val episodes for each number of shots, of up to 5 ways, the same for every seed.

    Small data makes fewer queries, or leaves numbers of shots out, and says so.

    Raises:
        InputError: no number of shots is left.
    """
    ways = min(5, fewest_labels(clips))
    found: dict[int, EpisodeSampler] = {}
    for shots in recipe.val_shots:
        for queries in range(recipe.val_queries, 0, -1):
            sampler = _sampler(clips, EpisodePlan(ways, shots, queries), 0)
            if sampler is not None:
                found[shots] = sampler
                if queries < recipe.val_queries:
                    say(f"{shots}-shot val episodes have {queries} queries a label")
                break
        else:
            say(f"no {shots}-shot val episodes: the val labels have too few clips")
    if not found:
        EpisodeSampler(clips, EpisodePlan(ways, min(recipe.val_shots), 1), 0)  # says why
    return found


def _sampler(clips: Sequence[LabelledClip], plan: EpisodePlan, seed: int) -> EpisodeSampler | None:
    try:
        return EpisodeSampler(clips, plan, seed)
    except InputError:
        return None


def warn_if_few(data: Dataset, say: Callable[[str], None]) -> None:
    """Say when there is too little to learn a task from."""
    labels = len({clip.label for clip in data.split("train")})
    if labels < FEW_LABELS:
        say(
            f"{labels} training labels are few: adapters may learn them by heart. Trust the val "
            f"accuracy, and add labels ({FEW_LABELS} or more) before long trainings."
        )


def counted(data: Dataset) -> str:
    """Say how much there is."""
    parts = [
        f"{split} {len(clips)} clips of {len({clip.label for clip in clips})} labels"
        for split, clips in data.clips.items()
    ]
    missing = f"; {len(data.missing)} files missing" if data.missing else ""
    return ", ".join(parts) + missing


def untrained(history: History) -> float:
    """Return the mean val accuracy before the first step, percent."""
    found = [value for name, value in history.rows[0].items() if name.startswith("val_")]
    return sum(found) / len(found)


def card(data: Dataset, choice: MethodChoice, recipe: FitRecipe, history: History) -> str:
    """Say what the checkpoint was made of, and how well it does on the classes that chose it."""
    row = history.rows[-1]
    vals = ", ".join(
        f"{name.removeprefix('val_')}-shot {value:.1f} %"
        for name, value in row.items()
        if name.startswith("val_")
    )
    labels = sorted({clip.label for clip in data.split("train")})
    return (
        f"# {choice.preset} on {choice.backbone}\n\n"
        f"Adapters meta-trained on {len(data.split('train'))} clips of {len(labels)} labels of "
        f"{data.name} ({', '.join(labels[:30])}{', ...' if len(labels) > 30 else ''}); "
        f"{history.best_step} of {recipe.steps} steps of {recipe.per_step} episodes, seed "
        f"{recipe.seed}; recipe.json has the rest. The step was chosen on the val labels: {vals} "
        f"(untrained mean {untrained(history):.1f} %), {recipe.val_episodes} episodes each. Test "
        "labels were not read; run `python -m training.evaluate`. Licence: that of the backbone "
        "and of the clips.\n"
    )


def environment(device: torch.device) -> dict[str, str]:
    """Name what the numbers were made with."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    return {
        "device": f"{device.type} {name}".strip(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "date": time.strftime("%Y-%m-%d"),
    }


def tell(processes: Processes, line: str) -> None:
    """Print a line for people, once."""
    if processes.leads:
        print(line, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
