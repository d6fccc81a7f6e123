"""MoViNet-A0-Stream, the video teacher: a causal (2+1)D network, run on whole clips.

Kondratyuk et al., "MoViNets: Mobile Video Networks for Efficient Video Recognition" (arXiv
2103.11511), as published for streams and trained on Kinetics-600: ReLU6, no squeeze-and-excite,
batch normalisation folded into the convolutions. A temporal convolution sees a frame and those
before it.

Dimensions: B clips, T frames, N = B * T, C channels, H W cells, S pixels, M channels of the last
map, H also the width of the hidden layer.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.backbones.weights import read_tensors
from model.errors import BackboneError

FEATURES, HIDDEN, CLASSES = 480, 2048, 600
LAYERS = ((0, 1), (1, 3), (2, 3), (3, 4), (4, 4))  # stage and its layers
UNSTRIDED = 3  # the stage that keeps its map's size
LAST = "classifier.logits.weight"


class VideoTeacher(nn.Module):
    """The frozen teacher.

    Args:
        tensors: By name, as in the npz file: convolutions with biases, and a layer's `rezero`.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.names = frozenset(tensors)
        for name, tensor in tensors.items():
            spatial = tensor.ndim == 4
            kept = tensor.contiguous(memory_format=torch.channels_last) if spatial else tensor
            self.register_buffer(name.replace(".", "__"), kept.float())

    @torch.no_grad()
    def forward(self, pixels_BTCSS: Tensor) -> list[Tensor]:
        """Run clips of RGB pixels in [0, 1]; it was trained at 172 x 172.

        Returns:
            Cells [N, C, H, W] of the stem, of each layer, and the last map of FEATURES channels.
        """
        frames = pixels_BTCSS.shape[1]
        x = pixels_BTCSS.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        states = [self._convolve(x, "stem", 2)]
        for stage, layers in LAYERS:
            for layer in range(layers):
                stride = 2 if layer == 0 and stage != UNSTRIDED else 1
                name = f"block{stage}_layer{layer}"
                states.append(self._layer(states[-1], name, stride, frames))
        return [*states, self._convolve(states[-1], "head.project")]

    def hidden(self, mean_BM: Tensor) -> Tensor:
        """Return hidden_BH, the layer in front of the classifier, of mean cells of the last map."""
        weight_HM = self._tensor("classifier.hidden.weight").flatten(1)
        return F.linear(mean_BM, weight_HM, self._tensor("classifier.hidden.bias")).clamp(0, 6)

    def logits(self, hidden_BH: Tensor) -> Tensor:
        """Return logits [B, CLASSES] of hidden layers."""
        weight_KH = self._tensor(LAST).flatten(1)
        return F.linear(hidden_BH, weight_KH, self._tensor("classifier.logits.bias"))

    def _layer(self, x_NCHW: Tensor, name: str, stride: int, frames: int) -> Tensor:
        y = self._convolve(x_NCHW, f"{name}.expansion")
        y = self._convolve(y, f"{name}.feature", stride)
        if f"{name}.feature_temporal.weight" in self.names:
            y = self._along_time(y, f"{name}.feature_temporal", frames)
        y = self._convolve(y, f"{name}.projection", active=False) * self._tensor(f"{name}.rezero")
        if f"{name}.skip.weight" in self.names:
            x = _halved(x_NCHW) if stride == 2 else x_NCHW
            return y + self._convolve(x, f"{name}.skip", active=False)
        return y + x_NCHW

    def _convolve(self, x: Tensor, name: str, stride: int = 1, *, active: bool = True) -> Tensor:
        weight, bias = self._tensor(f"{name}.weight"), self._tensor(f"{name}.bias")
        groups = x.shape[1] // weight.shape[1]
        y = F.conv2d(_padded(x, weight.shape[-1], stride), weight, bias, stride, groups=groups)
        return y.clamp_(0, 6) if active else y

    def _along_time(self, x_NCHW: Tensor, name: str, frames: int) -> Tensor:
        weight_CK = self._tensor(f"{name}.weight")[:, 0]
        reach = weight_CK.shape[-1]
        x_BTHWC = x_NCHW.permute(0, 2, 3, 1).unflatten(0, (-1, frames))
        y_BTHWC = x_BTHWC * weight_CK[:, -1] + self._tensor(f"{name}.bias")
        for back in range(1, min(reach, frames)):
            y_BTHWC[:, back:].addcmul_(x_BTHWC[:, :-back], weight_CK[:, reach - 1 - back])
        return y_BTHWC.clamp_(0, 6).flatten(0, 1).permute(0, 3, 1, 2)

    def _tensor(self, name: str) -> Tensor:
        found: Tensor = getattr(self, name.replace(".", "__"))
        return found


def open_video_teacher(file: Path) -> VideoTeacher:
    """Load the teacher.

    Args:
        file: npz of its tensors.

    Raises:
        BackboneError: It cannot be read, or holds another network.
    """
    tensors = read_tensors(file)
    wanted = (CLASSES, HIDDEN, 1, 1)
    if LAST not in tensors or tuple(tensors[LAST].shape) != wanted:
        raise BackboneError(
            f"{file} is no MoViNet-A0-Stream of {CLASSES} classes: {LAST} {wanted} is not in it; "
            "give the teacher's npz file."
        )
    return VideoTeacher(tensors).eval()


def _padded(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Pad as TensorFlow's SAME does: the odd cell goes to the right and below."""
    if kernel == stride == 1:
        return x
    high, wide = (max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[-2:])
    return F.pad(x, (wide // 2, wide - wide // 2, high // 2, high - high // 2))


def _halved(x: Tensor) -> Tensor:
    """Average 3 x 3 cells at stride 2; padding does not count."""
    one = torch.ones_like(x[:1, :1])
    return F.avg_pool2d(_padded(x, 3, 2), 3, 2) / F.avg_pool2d(_padded(one, 3, 2), 3, 2)
