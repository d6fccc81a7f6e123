"""Give class features equal spread in every channel, inside the tower's last LayerNorm.

A cosine of raw features is ruled by the few channels that vary most and by what all features have
in common. Dividing by each channel's deviation, and taking away part of the mean, changes weight
and bias of the last LayerNorm alone: the tower stays a plain ViT.

Dimensions: N pictures, S pixels, E feature width.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from model.backbone import TimmImageTower
from training.frame_folders import FramePools

KEPT_MEAN = 0.5  # share left of the mean, so that cosines of unlike clips stay above zero


@torch.no_grad()
def class_features(tower: TimmImageTower, pictures_NHWC: Tensor) -> Tensor:
    """Return class features [N, E] of whole pictures at the tower's size."""
    made = []
    device = next(tower.model.parameters()).device
    mean, std = (
        torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (tower.mean, tower.std)
    )
    for part in pictures_NHWC.split(32):
        pixels = part.to(device).permute(0, 3, 1, 2).float() / 255
        pixels = F.interpolate(pixels, (tower.size, tower.size), mode="bilinear", antialias=True)
        tokens = tower.model.forward_features((pixels - mean) / std)
        made.append(tower.model.forward_head(tokens, pre_logits=True).float())
    return torch.cat(made)


@torch.no_grad()
def standardise(tower: TimmImageTower, pools: FramePools, count: int, seed: int) -> None:
    """Change the last LayerNorm so that features vary alike in every channel.

    Args:
        tower: Changed in place.
        pools: Pictures that `count` are drawn from to measure mean and deviation.
        count: How many.
        seed: Of the draw.
    """
    picks = pools.draw(count, torch.Generator().manual_seed(seed)).to(pools.pictures_NHWC.device)
    features_NE = class_features(tower, pools.pictures_NHWC[picks])
    spread_E = features_NE.std(dim=0).clamp(min=1e-3)
    common_E = (1 - KEPT_MEAN) * features_NE.mean(dim=0)
    norm = tower.model.norm
    norm.weight.div_(spread_E)
    norm.bias.sub_(common_E).div_(spread_E)
