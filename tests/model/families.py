"""Small members of the families of backbones: their libraries' code, few layers, random weights."""

import json
import tempfile
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch
from safetensors.torch import save_file
from timm.models import register_model
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from model.backbones.video import transformers
from model.config.towers import VideoConfig, VideoMaeConfig, VJepa2Config

CLIP_LIKE = "open_clip:kshot-tiny-clip"
SIGLIP_LIKE = "open_clip:kshot-tiny-siglip"
WORDS = ("a", "person", "video", "of", "jump", "wave", "the", "action", "first", "then", "end")

TINY: dict[str, dict[str, Any]] = {
    "kshot-tiny-clip": {
        "embed_dim": 24,
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": 32, "layers": 3, "width": 32, "patch_size": 8, "head_width": 16,
        },
        "text_cfg": {
            "context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2,
        },
    },
    "kshot-tiny-mobile": {  # as MobileCLIP and EVA02: timm's classifier is the projection
        "embed_dim": 24,
        "vision_cfg": {
            "image_size": 160, "timm_model_name": "test_vit", "timm_model_pretrained": False,
            "timm_pool": "token", "timm_proj": None,
        },
        "text_cfg": {
            "context_length": 64, "vocab_size": 32, "width": 16, "heads": 2, "layers": 2,
        },
    },
    "kshot-tiny-clipa": {
        "embed_dim": 24,
        "vision_cfg": {
            "image_size": 32, "layers": 1, "width": 32, "patch_size": 8, "head_width": 16,
            "pool_type": "avg", "final_ln_after_pool": True,
        },
        "text_cfg": {
            "context_length": 64, "vocab_size": 32, "width": 16, "heads": 2, "layers": 1,
        },
    },
    "kshot-tiny-siglip": {
        "embed_dim": 64,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {
            "image_size": 160, "timm_model_name": "test_vit", "timm_model_pretrained": False,
            "timm_pool": "map", "timm_proj": "none",
        },
        "text_cfg": {
            "context_length": 64, "vocab_size": 32, "hf_tokenizer_name": "none/none",
            "tokenizer_kwargs": {"clean": "canonicalize"}, "width": 16, "heads": 2, "layers": 2,
            "no_causal_mask": True, "proj_bias": True, "pool_type": "last",
            "norm_kwargs": {"eps": 1e-06}, "act_kwargs": {"approximate": "tanh"},
        },
    },
}  # fmt: skip


def add_tiny_models() -> None:
    """Let open_clip know the small members by name, as it knows its own."""
    with tempfile.TemporaryDirectory() as folder:
        for name, config in TINY.items():
            (Path(folder) / f"{name}.json").write_text(json.dumps(config))
        open_clip.add_model_config(Path(folder))


add_tiny_models()


def save_weights(model: torch.nn.Module, file: Path) -> Path:
    """Write a model's weights as a publisher does."""
    save_file({name: t.contiguous() for name, t in model.state_dict().items()}, file)
    return file


def random_clip(name: str, seed: int = 0) -> Any:  # noqa: ANN401  open_clip ships no types
    """Build a small open_clip model at random."""
    torch.manual_seed(seed)
    config = open_clip.get_model_config(name)
    custom = config.pop("custom_text", False)
    return (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**config).eval()


def clip_weights(folder: Path) -> Path:
    """Write weights of the small CLIP."""
    return save_weights(random_clip("kshot-tiny-clip"), folder / "clip.safetensors")


def siglip_weights(folder: Path) -> Path:
    """Write weights of the small SigLIP, with the tokenizer beside them."""
    write_tokenizer(folder)
    return save_weights(random_clip("kshot-tiny-siglip"), folder / "siglip.safetensors")


def write_tokenizer(folder: Path) -> None:
    """Write a tokenizer of few words as SigLIP's publisher does."""
    vocabulary = {word: number + 2 for number, word in enumerate(WORDS)}
    words = Tokenizer(
        models.WordLevel({"<pad>": 0, "<eos>": 1, "<unk>": 31, **vocabulary}, "<unk>")
    )
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", 1)]
    )
    words.save(str(folder / "tokenizer.json"))
    said = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>",
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(said))


@register_model
def kshot_tiny_dino(**kwargs: object) -> Eva:
    """Build a DINOv3 of three blocks, which timm then knows by name as it knows its own."""
    small = {"depth": 3, "embed_dim": 48, "num_heads": 3, "img_size": 64}
    return timm.create_model("vit_tiny_patch16_dinov3_qkvb", **{**kwargs, **small})


def tiny_dino(seed: int = 0) -> Eva:
    """Build a DINOv3 of three blocks: registers, turned places, mean pooling."""
    torch.manual_seed(seed)
    return kshot_tiny_dino(num_classes=0).eval()


def tiny_siglip_tower(seed: int = 0, size: int = 32) -> VisionTransformer:
    """Build an image tower of SigLIP of three blocks: no class token, attention pooling."""
    torch.manual_seed(seed)
    return timm.create_model(
        "vit_base_patch16_siglip_224",
        depth=3, embed_dim=48, num_heads=3, img_size=size, patch_size=8, num_classes=0,
    ).eval()  # fmt: skip


SMALL: dict[str, Any] = {"size": 32, "width": 48, "depth": 2, "heads": 3, "pretrained": False}
VIDEO: dict[str, VideoConfig] = {
    "videomae": VideoMaeConfig(**SMALL),
    "vjepa2": VJepa2Config(**SMALL),
}


def save_published(family: str, folder: Path, seed: int = 0) -> Any:  # noqa: ANN401
    """Write a small video network as its publisher does, and return it."""
    torch.manual_seed(seed)
    network = published_network(VIDEO[family])
    folder.mkdir(exist_ok=True)
    save_weights(network, folder / "model.safetensors")
    return network.eval()


def published_network(config: VideoConfig) -> Any:  # noqa: ANN401
    """Build a video network with all that its publisher's file has: a head, a predictor."""
    library = transformers()
    shape = {
        "hidden_size": config.width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.heads,
        "initializer_range": 0.2,  # features that differ
    }
    if isinstance(config, VideoMaeConfig):
        known = library.VideoMAEConfig(
            image_size=config.size, intermediate_size=4 * config.width, num_labels=7, **shape
        )
        return library.VideoMAEForVideoClassification(known)
    known = library.VJEPA2Config(
        crop_size=config.size, frames_per_clip=16, pred_num_hidden_layers=2, **shape
    )
    return library.VJEPA2Model(known)
