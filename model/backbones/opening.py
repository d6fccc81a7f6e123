"""Opens a backbone: which files of the hub it needs, and its towers with the weights of one.

A library is imported where a backbone of it is opened: open_clip and timm take seconds, and towers
of our own need neither.
"""

from pathlib import Path
from typing import assert_never

from model.backbones.packaged.causal import CausalTower
from model.backbones.packaged.compact import compact_image_tower, compact_text_tower
from model.backbones.sources import DEFAULT_CACHE, HubFile
from model.backbones.video import video_file, video_tower
from model.config.towers import (
    BackboneConfig,
    CausalConfig,
    CompactConfig,
    LibraryConfig,
    OpenClipConfig,
    PackagedConfig,
    TimmConfig,
    VideoMaeConfig,
    VJepa2Config,
)
from model.errors import BackboneError
from model.methods import VIDEO_FRAMES
from model.slots import Backbone, ClipBackbone, TextBackbone


def towers(
    config: BackboneConfig, weights: Path | None = None, *, frames: int = VIDEO_FRAMES
) -> tuple[Backbone | ClipBackbone, TextBackbone | None]:
    """Make the backbone.

    Args:
        config: Which.
        weights: File with its weights; None leaves them random.
        frames: Of a clip, for networks that see whole ones.

    Raises:
        BackboneError: its library has none such, the file does not fit, or it is no plain ViT.
    """
    if isinstance(config, PackagedConfig) and weights is not None:
        raise BackboneError(
            f"A {config.kind} checkpoint holds its own backbone; leave the weights file out."
        )
    match config:
        case OpenClipConfig():
            from model.backbones.clip import open_clip_towers

            return open_clip_towers(config, weights)
        case TimmConfig():
            from model.backbones.timm import timm_tower

            return timm_tower(config, weights), None
        case VideoMaeConfig() | VJepa2Config():
            return video_tower(config, frames, weights), None
        case CompactConfig():
            text = compact_text_tower(config.text, config.width) if config.text else None
            return compact_image_tower(config), text
        case CausalConfig():
            text = compact_text_tower(config.text, config.features) if config.text else None
            return CausalTower(config).eval(), text
        case _:
            assert_never(config)


def check_file_is_told(config: LibraryConfig) -> None:
    """Refuse a weights file of a CLIP that may have learned with QuickGELU or with the exact GELU.

    Both have the same tensors, so that only the tag of the weights, or the model's name, tells.

    Raises:
        BackboneError: Neither does.
    """
    if not isinstance(config, OpenClipConfig) or config.file is None:
        return
    import open_clip

    name, tag = config.name, config.pretrained
    tags = open_clip.list_pretrained_tags_by_model(name)
    plain = name.removesuffix("-quickgelu")
    both = plain == name and f"{plain}-quickgelu" in open_clip.list_models()
    if (tag and tags and tag not in tags) or (both and not tag):
        raise BackboneError(
            f"{config.file} of {name!r} may have learned with QuickGELU or without, and "
            f"{f'the tag {tag!r}' if tag else 'its name'} does not tell; write "
            f"open_clip:{plain}@TAG with one of {', '.join(tags)}, or open_clip:{plain}-quickgelu "
            "where it did with."
        )


def hub_files(config: LibraryConfig) -> tuple[HubFile, ...]:
    """Say which files of the hub a backbone needs, its weights first; none without a tag.

    Raises:
        BackboneError: its library knows no such weights.
    """
    match config:
        case OpenClipConfig():
            if config.pretrained is None:
                return ()
            from model.backbones.clip import open_clip_file, tokenizer_files

            return open_clip_file(config), *tokenizer_files(config)
        case TimmConfig():
            from model.backbones.timm import timm_file

            return (timm_file(config),) if config.pretrained else ()
        case VideoMaeConfig() | VJepa2Config():
            return (video_file(config),) if config.pretrained else ()
        case _:
            assert_never(config)


def fetch_weights(config: LibraryConfig, cache: Path = DEFAULT_CACHE) -> Path:
    """Return the file of a backbone's published weights; what is missing is downloaded.

    Raises:
        BackboneError: They cannot be had.
    """
    from model.backbones.hub import fetch  # with the client of the hub

    weights, *_beside = [fetch(file, cache) for file in hub_files(config)]
    return weights
