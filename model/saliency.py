"""Where in a clip's pictures an answer was seen: gradient times tokens, in Grad-CAM's way.

Grad-CAM (Selvaraju et al., ICCV 2017, arXiv 1610.02391) weighs a layer's activations by the
gradient of a class's score and keeps what speaks for the class. Here each cell is weighed by its
own gradient, as HiResCAM does (Draelos and Carin, arXiv 2011.08891), since a transformer's cells
are not summed alike. Of a cell counts what sets it apart from the mean cell of its frame: behind a
LayerNorm, a token times its own gradient is always zero. To first order, a cell's value is what the
score would lose if that cell showed what the frame shows on the average.

The layer is what goes into the last block, adapted or not, and the last map of a network that sees
whole clips. What a method reads of levels further below stands still.

Dimensions: T frames, U instants, S side of the grid, L tokens, P patches, D width, H W pixels, C
colours.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor

from model.backbones.maps.levels import square_map
from model.encoder import VideoEncoder
from model.episode import EncodedSupport, Memory
from model.matching.trust import TextTrust
from model.recognizer import Recognizer
from model.slots import ClipBackbone, View
from model.views import query_view

Saliency = Literal["gradient"]
METHOD: Saliency = "gradient"
Finish = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class _Layer:
    """A clip's tokens at one place of a network.

    Args:
        tokens_ULD: The tokens.
        prefix: Tokens in front of the patches.
        finish: From tokens_1ULD to features_1UE.
    """

    tokens_ULD: Tensor
    prefix: int
    finish: Finish


def saliency(
    recognizer: Recognizer, frames_THWC: np.ndarray | Tensor, support: EncodedSupport, label: int
) -> np.ndarray:
    """Tell where the score of one label comes from, in one clip by itself.

    Runs the pass again for this clip, with gradients through the last block alone; it may be called
    in inference mode. What other clips are asked about changes nothing.

    Args:
        recognizer: Whose weights need no gradient.
        frames_THWC: RGB uint8, square at the recognizer's size.
        support: The task.
        label: Index of the class.

    Returns:
        grid_TSS in [0, 1], row by row; 1 is the cell of the clip that speaks most for the label.
        All zeros where none does.

    Raises:
        EpisodeError: Frames of another number or size.
        MethodError: The tokens are no square grid.
    """
    frames_1THWC = recognizer.checked_frames(torch.as_tensor(frames_THWC)[None])
    with torch.inference_mode(mode=False), torch.no_grad():
        own = _learnable(support)
        view = query_view(recognizer.config.query_context, [own.memories])
        layer = _layer(recognizer.video, frames_1THWC.to(recognizer.device), view)
        tokens_1ULD = layer.tokens_ULD[None].clone().requires_grad_()
        with torch.enable_grad():
            features_1UE = layer.finish(tokens_1ULD).float()
            (scored,) = recognizer.score(features_1UE, [own])
            (slope_1ULD,) = torch.autograd.grad(scored.scores.logits_QN[0, label], tokens_1ULD)
        grid_USS = _grid(layer, slope_1ULD[0])
        times = recognizer.config.frames // len(grid_USS)  # an instant may stand for some frames
        return grid_USS.repeat_interleave(times, dim=0).cpu().numpy()


def _layer(video: VideoEncoder, frames_1THWC: Tensor, view: View) -> _Layer:
    pixels = video.pixels(frames_1THWC)
    if video.whole_clips:
        tower = cast(ClipBackbone, video.tower)

        def read(cells_1ULC: Tensor) -> Tensor:
            return video.above(tower.read(cells_1ULC)[:, :, None], {})

        return _Layer(tower.cells(pixels)[0], 0, read)
    tokens = video.embedded(pixels)
    maps: dict[int, Tensor] = {}
    *below, (last, run) = video.steps(view)
    for level, step in below:
        tokens = step(tokens)
        video.keep(maps, level, tokens)

    def finish(tokens_1TLD: Tensor) -> Tensor:
        video.keep(maps, last - 1, tokens_1TLD)  # a level may be read by itself, too
        tokens_1TRD = run(tokens_1TLD)
        video.keep(maps, last, tokens_1TRD)
        return video.above(tokens_1TRD, maps)

    return _Layer(tokens[0], video.tower.prefix_tokens, finish)


def _grid(layer: _Layer, slope_ULD: Tensor) -> Tensor:
    """Return grid_USS of what each cell adds to the score."""
    patches_UPD = layer.tokens_ULD[:, layer.prefix :].float()
    apart_UPD = patches_UPD - patches_UPD.mean(dim=1, keepdim=True)
    adds_UP = (slope_ULD[:, layer.prefix :].float() * apart_UPD).sum(dim=-1).relu()
    grid_USS = square_map(adds_UP[..., None])[:, 0]
    return grid_USS / grid_USS.max().clamp(min=torch.finfo(torch.float32).tiny)


def _learnable(support: EncodedSupport) -> EncodedSupport:
    """Copy what gradients pass, as what inference mode made cannot take part in them.

    These are the classes, their text, and what queries attend to in the last block.
    """
    classes, trust = support.classes, support.classes.trust
    *below, last = support.memories or (None,)
    if last is not None:
        last = Memory(last.keys_PHMW.clone(), last.values_PHMW.clone())
    return replace(
        support,
        classes=replace(
            classes,
            prototype_NTE=classes.prototype_NTE.clone(),
            shots=tuple(shots_KTE.clone() for shots_KTE in classes.shots),
            centre_NE=None if classes.centre_NE is None else classes.centre_NE.clone(),
            trust=trust and TextTrust(trust.level_N.clone(), trust.weight_N.clone()),
        ),
        memories=(*below, last) if support.memories else (),
        text_NAE=None if support.text_NAE is None else support.text_NAE.clone(),
    )
