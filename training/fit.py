"""Meta-train a method's adapters on base classes; validation classes choose the weights.

    python -m training.fit --method task_adapter --data INDEX.csv|DIR --out DIR [--set lr=1e-4]

The folder then serves: KSHOT_CHECKPOINT=DIR. A killed run goes on when it is started again;
`torchrun --nproc-per-node N -m training.fit ...` uses N devices. The last line is JSON.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import get_args

from model.config.method import Align, QueryContext, TextHeadKind, Tune
from model.methods import METHODS
from training import cli
from training.meta.choice import MATCHERS, MethodChoice
from training.meta.recipes.named import RECIPES
from training.meta.recipes.reading import own_recipe, read_recipe, recipe_help


class _Recipe(argparse.Action):
    """Takes a recipe's name, or prints all fields for the word `help`."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[object] | None,
        option_string: str | None = None,  # noqa: ARG002
    ) -> None:
        """Keep the value, or end the process."""
        if values == "help":
            print(recipe_help())
            parser.exit()
        setattr(namespace, self.dest, values)


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    _declare_method(parser)
    _declare_changes(parser)
    _declare_as_published(parser)
    cli.add_data_options(parser, several=True)
    _declare_training(parser)
    cli.add_device_options(parser)


def _declare_method(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--method", default="task_adapter_pp", help=f"Preset of the method: {', '.join(METHODS)}.")
    add(
        "--backbone", default="compact", help="Frozen towers to adapt, written as KSHOT_CHECKPOINT."
    )
    add(
        "--backbone-weights",
        type=Path,
        help="File of the backbone's weights; without it, the hub's.",
    )


def _declare_changes(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--blocks",
        type=int,
        help="Adapted visual blocks, counted from the top; without it, the preset's.",
    )
    add(
        "--text-blocks",
        type=int,
        help="Adapted text blocks, counted from the top; without it, the preset's.",
    )
    add(
        "--ratio",
        type=float,
        help="Hidden width of the visual adapters, as a share of the token width.",
    )
    add(
        "--query-context",
        choices=get_args(QueryContext),
        help="What a query attends to beside itself; without it, the preset's.",
    )
    add(
        "--matcher",
        choices=MATCHERS,
        help="How frames of two clips are compared; without it, as the preset does.",
    )
    add(
        "--tune",
        choices=get_args(Tune),
        help="What learns: parts above the backbone (frozen), adapters too, the image tower and "
        "all, or both towers; without it, as the preset does.",
    )


def _declare_as_published(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--text",
        choices=get_args(TextHeadKind),
        help="Score the sentences of stages (Task-Adapter++), or one of the label (Task-Adapter).",
    )
    add("--align", choices=get_args(Align), help="Whom a query's frames are aligned with.")
    add("--squash", type=float, help="Side of whole frames, squashed / that of crops: 1.15.")
    add("--align-norm", action="store_true", default=None, help="LayerNorm of the alignment.")
    add("--stage-cosine", choices=("frames", "mean"), help="Mean of cosines, or cosine of a mean.")
    add(
        "--released-start",
        dest="zero_init",
        action="store_false",
        default=None,
        help="Start task adapters at random, as released code does.",
    )
    add("--start", type=Path, help="Checkpoint whose adapters learn on, in place of new ones.")
    add("--frames", type=int, help="Frames sampled of each clip; without it, the preset's.")


def _declare_training(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--at-input",
        action="store_true",
        help="Put the temporal embedding in front of the blocks, as released code does.",
    )
    add("--no-text", action="store_true", help="Train the video score alone, without class text.")
    add(
        "--recipe",
        action=_Recipe,
        help=f"How to train: {', '.join(RECIPES)}, or a JSON file; without it, the recipe of the "
        "method's name, or adamw. `help` prints all fields.",
    )
    add(
        "--set",
        nargs="+",
        default=[],
        metavar="FIELD=VALUE",
        help="Fields of the recipe to change, such as lr=1e-4.",
    )
    add("--cache", type=Path, help="Folder of trunk caches; without it, one beside --out.")
    add(
        "--no-cache",
        action="store_true",
        help="Run the trunk at every step, and keep nothing on disk; so it is where it learns.",
    )
    add("--out", type=Path, required=True, help="Folder of the state and of the checkpoint.")
    add("--half", action="store_true", help="Store the checkpoint in 16 bits.")


def _method(options: argparse.Namespace) -> MethodChoice:
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
        tune=options.tune,
        text=options.text,
        align=options.align,
        align_norm=options.align_norm,
        squash=options.squash,
        stage_cosine=options.stage_cosine,
        zero_init=options.zero_init,
        at_input=options.at_input,
    )


def run(options: argparse.Namespace) -> dict[str, object] | None:
    """Train as the command line says."""
    from training.meta.fit import FitJob, fit

    job = FitJob(
        method=_method(options),
        recipe=read_recipe(
            options.recipe or own_recipe(options.method),
            cli.pairs("--set", options.set, "FIELD=VALUE"),
        ),
        data=cli.data_choice(options),
        out=options.out,
        start=options.start,
        descriptions=options.descriptions,
        with_text=not options.no_text,
        cache=options.cache,
        cached=not options.no_cache,
        stored_half=options.half,
        device=options.device,
        precision=options.precision,
    )
    result = fit(job)
    return None if result is None else asdict(result)


COMMAND = cli.Command("fit", __doc__, declare, run)
main = partial(cli.main, COMMAND)

if __name__ == "__main__":
    sys.exit(main())
