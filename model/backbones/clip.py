"""open_clip's CLIPs with a plain ViT: their files, and their image tower and text tower apart."""

import difflib
from pathlib import Path
from typing import Any

import open_clip
from open_clip.timm_model import TimmModel

from model.backbones.sources import HubFile
from model.backbones.timm import timm_vit_tower
from model.backbones.tokens import FILES, FolderTokenizer, Tokenizer
from model.backbones.views.clip import ClipImageTower, ClipTextTower
from model.backbones.views.timm import TimmImageTower
from model.backbones.weights import load_exactly, read_tensors
from model.config.towers import OpenClipConfig
from model.errors import BackboneError
from model.slots import RGB, Backbone


def open_clip_file(config: OpenClipConfig) -> HubFile:
    """Say where the hub keeps a model's weights, as open_clip's registry has it.

    Raises:
        BackboneError: open_clip knows no such weights of this model, or they do not fit it.
    """
    check_quick_gelu(config)
    found = open_clip.get_pretrained_cfg(config.name, config.pretrained or "")
    repository, _, name = found.get("hf_hub", "").rpartition("/")
    if config.name not in open_clip.list_models():
        raise BackboneError(f"open_clip has no model {config.name!r}; see open_clip.list_models().")
    if not repository:
        tags = open_clip.list_pretrained_tags_by_model(config.name)
        known = ", ".join(tags) or "none: give a weights file"
        raise BackboneError(
            f"open_clip has no weights {config.pretrained!r} of {config.name!r}; choose of {known}."
        )
    if name:  # a pickle; beside it lies the same as safetensors
        return HubFile(repository, str(Path(name).with_suffix(".safetensors")))
    return HubFile(repository, open_clip.constants.HF_SAFE_WEIGHTS_NAME)


def tokenizer_files(config: OpenClipConfig) -> tuple[HubFile, ...]:
    """Say where the hub keeps a model's tokenizer; none where open_clip has its own.

    It is read from beside the weights, whose repository may be another.
    """
    text = (open_clip.get_model_config(config.name) or {}).get("text_cfg", {})
    repository = text.get("hf_tokenizer_name")
    beside = open_clip_file(config).repository
    return tuple(HubFile(repository, name, beside) for name in FILES) if repository else ()


def tokenizer_of(name: str, folder: Path | None) -> Tokenizer:
    """Return the tokenizer of an open_clip model.

    Args:
        name: Of the model.
        folder: Where its weights lie.

    Raises:
        BackboneError: A file of it or the package is missing.
    """
    config = open_clip.get_model_config(name)["text_cfg"]
    if "hf_tokenizer_name" not in config:
        tokenizer: Tokenizer = open_clip.get_tokenizer(name)
        return tokenizer
    values = {"context_length": config.get("context_length", 77)}
    return FolderTokenizer(name, folder, values | config.get("tokenizer_kwargs", {}))


def open_clip_towers(
    config: OpenClipConfig, weights: Path | None = None
) -> tuple[Backbone, ClipTextTower]:
    """Build an open_clip model and take it apart.

    Args:
        config: Which; the tag of its weights says how pixels are normalised, too.
        weights: File with them; None leaves it random.

    Raises:
        BackboneError: unknown name, a file that does not fit, not a plain ViT, or weights of
            QuickGELU in a model without it.
    """
    check_quick_gelu(config)
    clip = random_clip(config.name)
    if weights is not None:
        load_exactly(clip, read_tensors(weights), weights)
    folder = None if weights is None else weights.parent
    known = normalisation(config)
    return split_clip(clip, tokenizer_of(config.name, folder), *known)


def random_clip(name: str) -> Any:  # noqa: ANN401
    """Build an open_clip model by its name, at random.

    Raises:
        BackboneError: open_clip has no such model, or none of an image and a text transformer.
    """
    found = open_clip.get_model_config(name)
    if found is None:
        near = difflib.get_close_matches(name, open_clip.list_models(), n=3)
        raise BackboneError(
            f"open_clip has no model {name!r}; check the name"
            + (f", as in {', '.join(near)}." if near else ".")
        )
    if "multimodal_cfg" in found or "hf_model_name" in found["text_cfg"]:
        raise BackboneError(
            f"{name!r} has a text tower that is no transformer of open_clip; choose another CLIP."
        )
    found["vision_cfg"] |= {"timm_model_pretrained": False}
    custom = found.pop("custom_text", False)
    return (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**found)


def normalisation(config: OpenClipConfig) -> tuple[RGB, RGB]:
    """Return mean and std that weights were trained with; without a tag, of the name's first."""
    tags = open_clip.list_pretrained_tags_by_model(config.name)
    tag = config.pretrained or (tags[0] if tags else "")
    found = open_clip.get_pretrained_cfg(config.name, tag)
    return (
        tuple(found.get("mean", open_clip.OPENAI_DATASET_MEAN)),
        tuple(found.get("std", open_clip.OPENAI_DATASET_STD)),
    )


def split_clip(
    clip: Any,  # noqa: ANN401
    tokenizer: Tokenizer,
    mean: RGB = open_clip.OPENAI_DATASET_MEAN,
    std: RGB = open_clip.OPENAI_DATASET_STD,
) -> tuple[ClipImageTower | TimmImageTower, ClipTextTower]:
    """Take an open_clip model apart; it is not usable as a whole afterwards.

    Raises:
        BackboneError: its image tower is no plain ViT, or its text is pooled in another way.
    """
    visual = clip.visual
    image: ClipImageTower | TimmImageTower
    if isinstance(visual, TimmModel) and len(visual.head) == 0:
        image = timm_vit_tower(visual.trunk, mean, std)
    else:
        image = ClipImageTower(visual, mean, std)
    text = getattr(clip, "text", clip)
    del clip.visual  # what is left is the text tower
    return image, ClipTextTower(text, tokenizer)


def check_quick_gelu(config: OpenClipConfig) -> None:
    """Refuse weights that learned with QuickGELU in a model whose MLPs use the exact GELU.

    Raises:
        BackboneError: The sentence names the model that has it.
    """
    name, tag = config.name, config.pretrained or ""
    wanted = open_clip.get_pretrained_cfg(name, tag).get("quick_gelu")
    if wanted and not (open_clip.get_model_config(name) or {}).get("quick_gelu"):
        raise BackboneError(
            f"The weights {tag} of {name!r} need QuickGELU, which it lacks; use {name}-quickgelu."
        )
