"""Meta-train a method's adapters on base classes; validation classes choose the weights.

    python -m training.fit --method task_adapter --data INDEX.csv|DIR --out DIR [--set lr=1e-4]

The folder then serves: KSHOT_CHECKPOINT=DIR. A killed run goes on when it is started again;
`torchrun --nproc-per-node N -m training.fit ...` uses N devices. The last line is JSON.
"""

import argparse
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import get_args

from model.config import QueryContext
from model.methods import METHODS
from training import cli
from training.meta.fit import FitJob, fit
from training.meta.methods import MATCHERS, MethodChoice
from training.meta.recipe import RECIPES, read_recipe


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add = parser.add_argument
    add("--method", default="task_adapter_pp", help=f"one of {', '.join(METHODS)}")
    add("--backbone", default="compact", help="as KSHOT_CHECKPOINT")
    add("--backbone-weights", type=Path, help="a file; default: the hub")
    add("--blocks", type=int, help="adapted visual blocks; default: the preset's")
    add("--text-blocks", type=int, help="adapted text blocks")
    add("--ratio", type=float, help="hidden width of visual adapters / token width")
    add("--query-context", choices=get_args(QueryContext), help="default: the preset's")
    add("--matcher", choices=MATCHERS, help="video score; default: the preset's")
    add("--start", type=Path, help="checkpoint whose adapters learn on")
    add("--frames", type=int, help="sampled of each clip; default: the preset's")
    add("--at-input", action="store_true", help="temporal embedding as released")
    cli.add_data_options(parser, several=True)
    add("--no-text", action="store_true", help="train the video score alone")
    add("--recipe", default="adamw", help=f"{', '.join(RECIPES)}, or a JSON file")
    add("--set", nargs="+", default=[], metavar="FIELD=VALUE", help="of the recipe")
    add("--cache", type=Path, help="trunk caches; default: beside --out")
    add("--no-cache", action="store_true", help="run the trunk at every step")
    add("--out", type=Path, required=True, help="state and checkpoint folder")
    add("--half", action="store_true", help="store the checkpoint in 16 bits")
    cli.add_device_options(parser)


def run(options: argparse.Namespace) -> dict[str, object] | None:
    """Train as the command line says."""
    method = MethodChoice(
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
    job = FitJob(
        method=method,
        recipe=read_recipe(options.recipe, cli.pairs("--set", options.set, "FIELD=VALUE")),
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
