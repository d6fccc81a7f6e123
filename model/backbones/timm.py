"""timm's ViTs, DINOv3 and the image towers of SigLIP among them, and its ResNets.

All are without their classifier.
"""

import sys
from pathlib import Path
from typing import Any

import timm
from timm.models.eva import Eva
from timm.models.resnet import ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from model.backbones.eva import EvaBlock
from model.backbones.maps.resnet import ResNetTower
from model.backbones.sources import HubFile
from model.backbones.views.timm import TimmImageTower
from model.backbones.weights import load_exactly, read_tensors
from model.config.towers import TimmConfig
from model.errors import BackboneError
from model.slots import RGB

# Classifiers of published files, of ViTs and of ResNets; towers have none.
CLASSIFIER = ("head.weight", "head.bias", "fc.weight", "fc.bias")


def timm_file(config: TimmConfig) -> HubFile:
    """Say where the hub keeps a model's weights, as timm's registry has it.

    Raises:
        BackboneError: timm knows no weights of this name.
    """
    found = timm.get_pretrained_cfg(config.name)
    if found is None or not found.hf_hub_id:
        raise BackboneError(
            f"timm has no weights of {config.name!r}; check the name, or give a weights file."
        )
    return HubFile(found.hf_hub_id, found.hf_hub_filename or "model.safetensors")


def timm_tower(config: TimmConfig, weights: Path | None = None) -> TimmImageTower | ResNetTower:
    """Build a timm ViT or ResNet without its classifier.

    Args:
        config: Which.
        weights: File with its weights; None leaves it random.

    Raises:
        BackboneError: unknown name, a file that does not fit, neither a plain ViT nor a ResNet.
    """
    try:
        model = timm.create_model(config.name, pretrained=False, num_classes=0)
    except Exception as error:  # timm's own errors of names have no common class
        raise BackboneError(
            f"timm has no {config.name!r} here ({error}); check the name, or give a weights file."
        ) from error
    data = timm.data.resolve_model_data_config(model)
    known: tuple[RGB, RGB] = tuple(data["mean"]), tuple(data["std"])
    tower: TimmImageTower | ResNetTower
    if isinstance(model, ResNet):
        tower = ResNetTower(model.eval(), int(data["input_size"][1]), *known)
    else:
        tower = timm_vit_tower(model.eval(), *known)
    if weights is not None:
        tensors = _translated(read_tensors(weights), model)
        load_exactly(model, tensors, weights, ignored=CLASSIFIER)
    return tower


def timm_vit_tower(vit: Any, mean: RGB, std: RGB) -> TimmImageTower:  # noqa: ANN401
    """View a timm ViT as a tower.

    Args:
        vit: The network, without its classifier.
        mean: Of RGB in [0, 1].
        std: Likewise.

    Raises:
        BackboneError: It is no plain ViT.
    """
    if not isinstance(vit, VisionTransformer | Eva) or getattr(vit, "rope_mixed", False):
        raise BackboneError(
            f"The timm model {type(vit).__name__} is no plain ViT; choose one named vit_*."
        )
    if not isinstance(vit, Eva):
        return TimmImageTower(vit, mean, std)
    grid = vit.patch_embed.grid_size
    turned = tuple(EvaBlock(block, vit.rope, grid) for block in vit.blocks)
    return TimmImageTower(vit, mean, std, turned)


def _translated(tensors: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Give the tensors of another publisher timm's names, as timm does it when it downloads."""
    library = sys.modules[type(model).__module__]
    translate = getattr(library, "checkpoint_filter_fn", None)  # ResNets have one publisher's names
    if translate is None or model.state_dict().keys() <= tensors.keys():
        return tensors
    return dict(translate(tensors, model))
