"""Activations in fewer passes over memory give what they gave before."""

from typing import Any

import open_clip
import torch
from torch import nn

from model.backbones.views.clip import ClipImageTower
from model.encoder import VideoEncoder
from model.views import alone_view
from service.engine.passes.activations import InPlaceGelu, fuse_activations
from tests.model.tiny import clips, tiny_recognizer


@torch.inference_mode()
def test_quick_gelu_as_silu_gives_the_same_tokens() -> None:
    torch.manual_seed(0)
    clip: Any = open_clip.create_model("ViT-B-32-quickgelu", precision="fp32").eval()
    image = ClipImageTower(clip.visual, (0.5,) * 3, (0.5,) * 3)
    for block in clip.visual.transformer.resblocks:  # where the sigmoid of QuickGELU bends
        block.mlp.c_fc.weight.mul_(20)
    encoder = VideoEncoder(image, [], frames=2).eval()
    frames_BTHWC = clips(2, frames=2, size=224)
    want = encoder.trunk(frames_BTHWC)
    for _ in range(2):  # a second time changes nothing more
        fuse_activations(encoder)
        torch.testing.assert_close(encoder.trunk(frames_BTHWC), want, atol=2e-4, rtol=1e-4)
    assert type(clip.visual.transformer.resblocks[0].mlp.gelu) is nn.SiLU


@torch.inference_mode()
def test_gelu_in_place_gives_the_same_features() -> None:
    recognizer = tiny_recognizer("task_adapter")
    video, alone = recognizer.video, alone_view("support")
    for block in video.tower.model.blocks:  # where GELU bends
        block.mlp.fc1.weight.mul_(20)
    frames_BTHWC = clips(2)
    want = video(video.trunk(frames_BTHWC), alone)
    fuse_activations(video)
    assert all(type(block.mlp.act) is InPlaceGelu for block in video.tower.model.blocks)
    assert torch.equal(video(video.trunk(frames_BTHWC), alone), want)
