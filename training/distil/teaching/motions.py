"""The last blocks of a causal network learn to name the motion of each stage of a clip.

What a distilled network saw of drawn motions is not enough to tell their order. The blocks with the
longest look back, and all after them, learn it here; features of real clips and of pictures that a
camera moves over are held to what they were. The linear map to motions is thrown away.

Dimensions: C clips, B of a batch, T frames, W H cells, S pixels, A stages, E feature width, M
motions.
"""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from model.backbones.packaged.causal import CausalNetwork
from model.matching.stages import stage_means
from model.text import STAGES
from training.compact.motion_stage import motion_numbers, rate
from training.distil.teaching.recipe import MotionRecipe
from training.progress import progress
from training.run_folder import write_state
from training.synthetic.motions import MOTIONS

BETAS = (0.9, 0.98)
SAVE_EVERY, LOOKED = 100, 16  # steps between two states; clips of a forward pass without learning


def finished(network: CausalNetwork, file: Path, recipe: MotionRecipe) -> float | None:
    """Load what a finished run made of a network; return the share named, or None where none is."""
    state = torch.load(file, weights_only=True) if file.is_file() else None
    if state is None or state["step"] < recipe.steps:
        return None
    network.load_state_dict(state["network"])
    return _lately(state["shares"], recipe)


def pixels(view_TSSC: NDArray[np.uint8]) -> Tensor:
    """Return pixels [1, T, C, S, S] in [0, 1] of a view."""
    return torch.from_numpy(view_TSSC.copy()).permute(0, 3, 1, 2)[None].float() / 255


@torch.no_grad()
def early_cells(
    network: CausalNetwork, views: Iterable[NDArray[np.uint8]], first: int, total: int
) -> Tensor:
    """Return the cells [C, T, W, H, D] in front of block `first`, in half precision."""
    found = []
    for view_TSSC in progress(views, desc="cells", unit="clip", total=total):
        frames = len(view_TSSC)
        x_NCHW = network.begin(pixels(view_TSSC)[0].contiguous(memory_format=torch.channels_last))
        for block in network.blocks[:first]:
            x_NCHW = block(x_NCHW, frames)
        found.append(x_NCHW.half())
    return torch.stack(found)


def late_features(network: CausalNetwork, cells_BTDHW: Tensor, first: int) -> Tensor:
    """Return features_BTE of the cells in front of block `first`."""
    frames = cells_BTDHW.shape[1]
    x_NCHW = cells_BTDHW.flatten(0, 1).float().contiguous(memory_format=torch.channels_last)
    for block in network.blocks[first:]:
        x_NCHW = block(x_NCHW, frames)
    return network.read(network.end(x_NCHW).mean((-2, -1))).unflatten(0, (-1, frames))


class MotionLesson:
    """Motions in progress.

    Args:
        network: Learns in place.
        cells: In front of its first block that learns, of synthetic clips.
        subjects: What each of these shows.
        held: Likewise, of clips whose features are held.
        recipe: How.
    """

    def __init__(
        self,
        network: CausalNetwork,
        cells: Tensor,
        subjects: Sequence[object],
        held: Tensor,
        recipe: MotionRecipe,
    ) -> None:
        self.network, self.recipe = network, recipe
        self.cells, self.held = cells, held
        self.named_CA = motion_numbers(subjects)
        torch.manual_seed(recipe.seed)
        self.head = nn.Linear(network.features.out_features, len(MOTIONS))
        self.before_CTE = self._features(deepcopy(network), held)
        self.spread = float(self.before_CTE.std())
        self.learning = _late_parameters(network, recipe.first)
        self.optimizer = torch.optim.AdamW(
            [
                {"params": self.learning, "share": 1.0},
                {"params": list(self.head.parameters()), "share": recipe.head_rate},
            ],
            weight_decay=recipe.weight_decay,
            betas=BETAS,
        )
        self.step, self.shares = 0, list[float]()

    def learn(self, file: Path) -> float:
        """Take all steps, from the state in `file` where there is one; return the share named.

        Raises:
            InputError: The state cannot be written.
        """
        recipe = self.recipe
        if file.is_file():
            self._resume(file)
        bar = progress(desc="motions", total=recipe.steps, initial=self.step, unit="step")
        while self.step < recipe.steps:
            self._advance()
            bar.update()
            if self.step % SAVE_EVERY == 0 or self.step == recipe.steps:
                self._save(file)
        return _lately(self.shares, recipe)

    def _advance(self) -> None:
        recipe = self.recipe
        rng = np.random.default_rng([recipe.seed, self.step])
        for group in self.optimizer.param_groups:
            group["lr"] = group["share"] * recipe.lr * rate(self.step, recipe.steps, recipe.warmup)
        drawn = rng.integers(len(self.cells), size=recipe.batch)
        kept = rng.integers(len(self.held), size=recipe.held_batch)
        together = torch.cat([self.cells[drawn], self.held[kept]])
        features_BTE = late_features(self.network, together, recipe.first)
        stages_BAE = stage_means(features_BTE[: recipe.batch, 1:], STAGES) / self.spread
        logits_BAM = self.head(stages_BAE)
        named_BA = self.named_CA[drawn]
        loss = F.cross_entropy(logits_BAM.flatten(0, 1), named_BA.flatten())
        moved = _moved(features_BTE[recipe.batch :], self.before_CTE[kept], self.before_CTE)
        self.optimizer.zero_grad()
        (loss + recipe.keep * moved).backward()
        nn.utils.clip_grad_norm_(self.learning, recipe.clip)
        self.optimizer.step()
        self.shares.append((logits_BAM.argmax(dim=2) == named_BA).float().mean().item())
        self.step += 1

    @torch.no_grad()
    def _features(self, network: CausalNetwork, cells: Tensor) -> Tensor:
        first = self.recipe.first
        return torch.cat([late_features(network, part, first) for part in cells.split(LOOKED)])

    def _save(self, file: Path) -> None:
        state = {
            "step": self.step,
            "shares": self.shares,
            "network": self.network.state_dict(),
            "head": self.head.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        write_state(file, state)

    def _resume(self, file: Path) -> None:
        state = torch.load(file, weights_only=True)
        self.step, self.shares = state["step"], state["shares"]
        self.network.load_state_dict(state["network"])
        self.head.load_state_dict(state["head"])
        self.optimizer.load_state_dict(state["optimizer"])


def _lately(shares: Sequence[float], recipe: MotionRecipe) -> float:
    """Return the mean of the last tenth of the steps."""
    last = shares[-max(recipe.steps // 10, 1) :]
    return sum(last) / len(last)


def _moved(now_BTE: Tensor, before_BTE: Tensor, all_CTE: Tensor) -> Tensor:
    """Return how far features moved: in angle, and in shares of their mean squared length."""
    angle = 1 - F.cosine_similarity(now_BTE, before_BTE, dim=-1).mean()
    way = (now_BTE - before_BTE).square().sum(dim=-1).mean()
    return angle + way / all_CTE.square().sum(dim=-1).mean()


def _late_parameters(network: CausalNetwork, first: int) -> list[nn.Parameter]:
    late = (*network.blocks[first:], network.project, network.hidden, network.features)
    network.requires_grad_(False)
    return [parameter.requires_grad_(True) for part in late for parameter in part.parameters()]
