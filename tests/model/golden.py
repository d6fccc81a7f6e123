"""Rebuild the published computation's toy weights and inputs from their names and seeds."""

import json
import zlib
from pathlib import Path

import numpy as np
import open_clip
import torch
from torch import Tensor

from model.assembly.recognizer import build_recognizer
from model.backbones.views.clip import ClipImageTower, ClipTextTower
from model.config.blocks import OrderConfig, TaskConfig
from model.config.method import MethodConfig
from model.config.towers import OpenClipConfig
from model.recognizer import Recognizer
from training.meta.released import load_released

ORIGIN = "see tests/golden/README.md"
ONES = ("ln_1.weight", "ln_2.weight", "ln_pre.weight", "ln_post.weight", "ln_final.weight")


class Golden:
    """One `.npz`: weights, inputs and expected outputs."""

    def __init__(self, file: Path) -> None:
        with np.load(file, allow_pickle=False) as arrays:
            self.arrays = {name: arrays[name] for name in arrays.files}
        self.meta = json.loads(str(self.arrays.pop("meta")))
        self.shapes = {name: tuple(shape) for name, shape in self.meta["spec"].items()}
        self.state = {name: weight(name, shape) for name, shape in self.shapes.items()}
        self.ways, self.shots = self.meta["n_way"], self.meta["k_shot"]
        noise = np.random.RandomState(self.meta["seed"])
        size, frames = self.size, self.shapes["feature.temporal_embedding"][1]
        shape = (frames, 3, size, size)
        self.support_STCHW = pixels(noise.standard_normal((self.ways * self.shots, *shape)))
        self.query_QTCHW = pixels(noise.standard_normal((self.ways, *shape)))
        self.classes = [c for c in range(self.ways) for _ in range(self.shots)]
        self.tokens_NAL = torch.from_numpy(self.arrays["tokens"])

    @property
    def size(self) -> int:
        patches = self.shapes["feature.positional_embedding"][0] - 1
        return int(patches**0.5) * self.shapes["feature.conv1.weight"][-1]

    def want(self, name: str) -> Tensor:
        return torch.from_numpy(self.arrays[name])

    def recognizer(self, context: str, align: str) -> Recognizer:
        config = MethodConfig(
            backbone=OpenClipConfig(name="toy"),
            frames=self.shapes["feature.temporal_embedding"][1],
            visual=TaskConfig(blocks=self.meta["adapted_layers"], zero_init=False),
            temporal_embedding="input",
            query_context=context,
            text=OrderConfig(blocks=self.meta.get("adapted_text_layers", 1)),
            align=align,
        )
        image, text = self.towers()
        recognizer = build_recognizer(config, image, text)
        load_released(self.state, recognizer)
        return recognizer

    def towers(self) -> tuple[ClipImageTower, ClipTextTower]:
        width = self.shapes["feature.class_embedding"][0]
        text_width = self.shapes["text.positional_embedding"][1]
        clip = open_clip.CLIP(
            embed_dim=self.shapes["feature.proj"][1],
            vision_cfg=open_clip.CLIPVisionCfg(
                layers=self._layers("feature"),
                width=width,
                head_width=width // self.meta.get("heads", 4),
                patch_size=self.shapes["feature.conv1.weight"][-1],
                image_size=self.size,
            ),
            text_cfg=open_clip.CLIPTextCfg(
                context_length=self.shapes["text.positional_embedding"][0],
                vocab_size=self.shapes["text.token_embedding.weight"][0],
                width=text_width,
                heads=self.meta.get("text_heads", 8),
                layers=self._layers("text"),
            ),
            quick_gelu=True,
        )
        frozen = {n: t for n, t in self.state.items() if "adapter" not in n and "temporal" not in n}
        clip.visual.load_state_dict(under("feature.", frozen))
        image = ClipImageTower(clip.visual, (0.5,) * 3, (0.5,) * 3)
        del clip.visual
        clip.load_state_dict(under("text.", frozen))
        return image, ClipTextTower(clip, no_tokenizer)

    def _layers(self, tower: str) -> int:
        prefix = f"{tower}.transformer.resblocks."
        return 1 + max(int(n.split(".")[3]) for n in self.shapes if n.startswith(prefix))


def weight(name: str, shape: tuple[int, ...]) -> Tensor:
    if name.endswith("logit_scale"):
        return torch.zeros(shape)
    noise = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith(ONES):
        return torch.from_numpy(1 + 0.1 * noise).float()
    scale = np.sqrt(shape[-1]) if len(shape) >= 2 else 4
    return torch.from_numpy(noise / scale).float()


def pixels(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values).float()


def under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}


def no_tokenizer(texts: list[str]) -> Tensor:
    raise AssertionError(f"the golden values come with their tokens, not {texts}")
