"""Turn a released Task-Adapter++ `.tar` into a checkpoint folder.

    python -m training.import_released model.tar --out runs/tapp --visual-blocks 6 --text-blocks 2

The released state dict holds adapters in every block and uses those of the top blocks; it does not
say how many, so the command asks. Its backbone must be the one that open_clip loads. The weights
were trained with `joint` attention among queries (model/papers/task_adapter.md, section 8), which
the service refuses; with another context they compute another function. They learned from whole
frames squashed to 257 x 257 pixels and cropped, and see such here too.
"""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import get_args

from model.config.blocks import OrderConfig, TaskConfig
from model.config.method import Align, MethodConfig, QueryContext
from model.config.towers import OpenClipConfig
from model.text import PROMPT
from training import cli

SQUASH = 1.15  # released code resizes to 257 x 257 for crops of 224


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("file", type=Path, help="Released .tar file to read.")
    parser.add_argument(
        "--out", type=Path, required=True, help="Folder of the checkpoint to write."
    )
    parser.add_argument(
        "--visual-blocks",
        type=int,
        required=True,
        help="Adapted visual blocks of the file: 2 of scene sets, 6 of SSv2.",
    )
    parser.add_argument(
        "--text-blocks",
        type=int,
        required=True,
        help="Adapted text blocks of the file: 8 of scene sets, 2 of SSv2.",
    )
    parser.add_argument(
        "--backbone", default="ViT-B-16-quickgelu", help="Name of the architecture in open_clip."
    )
    parser.add_argument("--pretrained", default="openai", help="Name of its weights in open_clip.")
    parser.add_argument(
        "--backbone-weights", type=Path, help="File of these weights, where there is no hub."
    )
    _declare_run(parser)


def _declare_run(parser: argparse.ArgumentParser) -> None:
    """Add what says how the weights were run."""
    parser.add_argument(
        "--query-context",
        choices=get_args(QueryContext),
        default="joint",
        help="What a query attends to beside itself.",
    )
    parser.add_argument(
        "--align",
        choices=get_args(Align),
        default="joint",
        help="Who is aligned with whom: as the released code was run.",
    )
    parser.add_argument(
        "--align-norm",
        action="store_true",
        help="The file holds a LayerNorm of the alignment (ca.ln_1), as those of SSv2-Full do.",
    )


def run(options: argparse.Namespace) -> dict[str, object]:
    """Run the command."""
    from training.meta.released import ImportJob, import_released

    weights = options.backbone_weights
    method = MethodConfig(
        backbone=OpenClipConfig(
            name=options.backbone, pretrained=options.pretrained, file=weights and weights.name
        ),
        visual=TaskConfig(blocks=options.visual_blocks, zero_init=False),
        temporal_embedding="input",
        query_context=options.query_context,
        text=OrderConfig(blocks=options.text_blocks),
        align=options.align,
        align_norm=options.align_norm,
        squash=SQUASH,
        prompt=PROMPT.replace("{label}", "{spelled}"),  # labels as data sets spell them
    )
    return import_released(
        ImportJob(file=options.file, out=options.out, method=method, backbone_weights=weights)
    )


COMMAND = cli.Command("import_released", __doc__, declare, run)
main = partial(cli.main, COMMAND)

if __name__ == "__main__":
    sys.exit(main())
