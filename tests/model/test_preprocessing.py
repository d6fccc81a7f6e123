"""Pixels of every family are normalised and sized as its library does it, known without weights.

The libraries resize and crop as well; the decoder does that here, once for all models
(docs/models.md says what differs). So each picture is as large as its library resizes to: then the
library's own transform crops and normalises, and nothing is resampled.
"""

from collections.abc import Callable

import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image
from torch import Tensor

from model.backbones.opening import towers
from model.backbones.sources import backbone_of
from model.backbones.video import transformers
from model.encoder import Normalize
from model.media.display import centre_crop

PICTURES = 20
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
NAMES = (
    "clip",
    "clip-large",
    "siglip2",
    "dinov3",
    "vjepa2",
    "videomae",
    "open_clip:ViT-L-14-336-quickgelu@openai",
    "open_clip:ViT-B-32@laion2b_s34b_b79k",
    "open_clip:ViT-B-16-SigLIP2-384@webli",
    "timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    "timm:vit_base_patch14_reg4_dinov2.lvd142m",
    "timm:vit_base_patch16_siglip_224.v2_webli",
)
Library = Callable[[Image.Image], Tensor]
Processor = Callable[..., dict[str, Tensor]]


def open_clip_transform(name: str) -> tuple[Library, int]:
    name, _, tag = name.partition("@")
    said = open_clip.get_pretrained_cfg(name, tag)
    config = open_clip.get_model_config(name)["vision_cfg"]
    size = int(config["image_size"])
    keys = ("mean", "std", "interpolation", "resize_mode")
    values = {key: said[key] for key in keys if key in said}
    preprocess = open_clip.transform.PreprocessCfg(size=size, **values)
    return open_clip.transform.image_transform_v2(preprocess, is_train=False), size


def timm_transform(name: str) -> tuple[Library, int]:
    published = timm.get_pretrained_cfg(name).to_dict()
    said = timm.data.resolve_data_config(pretrained_cfg=published)
    transform = timm.data.create_transform(**said, is_training=False)
    return transform, int(said["input_size"][-1] / said["crop_pct"])


def transformers_transform(name: str) -> tuple[Library, int]:
    library = transformers()
    if "vjepa2" in name:
        processor = library.VJEPA2VideoProcessor()  # its defaults are what was published
        side = processor.size["shortest_edge"]
        return lambda image: _video(processor, image, "pixel_values_videos"), side
    # Published with these; the class's own default is another.
    processor = library.VideoMAEImageProcessor(**IMAGENET)
    return lambda image: _images(processor, image), processor.size["shortest_edge"]


def _video(processor: Processor, image: Image.Image, key: str) -> Tensor:
    frame = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    found: Tensor = processor(torch.stack([frame, frame]), return_tensors="pt")[key][0, 0]
    return found


def _images(processor: Processor, image: Image.Image) -> Tensor:
    found: Tensor = processor([image, image], return_tensors="pt")["pixel_values"][0, 0]
    return found


LIBRARIES = {
    "open_clip": open_clip_transform,
    "timm": timm_transform,
    "transformers": transformers_transform,
}


@pytest.mark.parametrize("source", NAMES)
def test_pixels_are_what_the_library_makes_of_them(source: str) -> None:
    config = backbone_of(source, None)
    with torch.device("meta"):
        tower, _ = towers(config)
    library = {"videomae": "transformers", "vjepa2": "transformers"}.get(config.kind, config.kind)
    named = config.name
    if (tag := getattr(config, "pretrained", None)) and isinstance(tag, str):
        named = f"{config.name}@{tag}"
    transform, side = LIBRARIES[library](named)
    normalize = Normalize(tower.mean, tower.std)
    rng = np.random.default_rng(0)
    for _ in range(PICTURES):
        pixels_HWC = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        want = transform(Image.fromarray(pixels_HWC))
        ours = torch.from_numpy(centre_crop(pixels_HWC, tower.size).copy()).permute(2, 0, 1)
        got = normalize(ours[None])[0]
        assert got.shape == want.shape
        torch.testing.assert_close(got, want, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "source", ["clip", "clip-large", "open_clip:ViT-L-14-336-quickgelu@openai"]
)
def test_openais_towers_have_their_own_gelu(source: str) -> None:
    with torch.device("meta"):
        tower, _ = towers(backbone_of(source, None))
    activations = {type(block.block.mlp.gelu).__name__ for block in tower.blocks}  # type: ignore[attr-defined]
    assert activations == {"QuickGELU"}
