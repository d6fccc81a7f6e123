"""Networks of transformers that see a whole clip: VideoMAE and the encoder of V-JEPA 2.

A token stands for a tubelet: some frames of one patch. The mean over the patches of an instant is
the feature of that instant, so that a clip of T frames has U = T / tubelet features.

Dimensions: B clips, T frames, C H W pixels, U instants, L tokens, E feature width.
"""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, assert_never

from torch import Tensor, nn

from model.backbones.sources import HubFile
from model.backbones.weights import listed, read_tensors
from model.config.towers import VideoConfig, VideoMaeConfig, VJepa2Config
from model.errors import BackboneError, MethodError
from model.slots import TransformerBlock


class VideoTower(nn.Module):
    """A network that sees a whole clip; nothing in it can be adapted.

    Args:
        config: Which.
        model: The library's own.
        head: What the library does to a mean over tokens, if anything.
    """

    prefix_tokens = 0
    reads_class_token = False
    staged = False
    blocks: Sequence[TransformerBlock] = ()  # none that an adapter could wrap

    def __init__(self, config: VideoConfig, model: nn.Module, head: nn.Module | None) -> None:
        super().__init__()
        self.model: Any = nn.ModuleDict({"network": model, "head": head or nn.Identity()})
        self.size = config.size
        self.mean, self.std = config.mean, config.std
        self.width = self.features = config.width
        self.tubelet = config.tubelet

    def instants(self, frames: int) -> int:
        """Return U, the features of a clip of so many frames.

        Raises:
            MethodError: The network takes no such clip.
        """
        if frames < self.tubelet or frames % self.tubelet:
            raise MethodError(
                f"frames is {frames}; this network sees {self.tubelet} frames at once, so choose "
                "a multiple of that."
            )
        return frames // self.tubelet

    def clip(self, pixels_BTCHW: Tensor) -> Tensor:
        """Turn normalised pixels of whole clips into features_BUE."""
        return self.read(self.cells(pixels_BTCHW))

    def begin(self, pixels_NCHW: Tensor) -> Tensor:
        """Return the pixels; nothing is a frame's own."""
        return pixels_NCHW

    def finish(self, begun_BTCHW: Tensor) -> Tensor:
        """Return features_BUE of clips."""
        return self.clip(begun_BTCHW)

    def cells(self, pixels_BTCHW: Tensor) -> Tensor:
        """Return the patches of each instant, cells_BULE."""
        tokens_BNE: Tensor = self.model["network"](pixels_BTCHW).last_hidden_state
        return tokens_BNE.unflatten(1, (self.instants(pixels_BTCHW.shape[1]), -1))

    def read(self, cells_BULE: Tensor) -> Tensor:
        """Return features_BUE, the means over patches."""
        return self.model["head"](cells_BULE.mean(dim=2))

    def head(self, features_N1E: Tensor) -> Tensor:
        """Return the features; the one token of an instant is its feature already."""
        return features_N1E[:, 0]


def video_file(config: VideoConfig) -> HubFile:
    """Say where the hub keeps a network's weights."""
    return HubFile(config.name, "model.safetensors")


def video_tower(config: VideoConfig, frames: int, weights: Path | None = None) -> VideoTower:
    """Build a video network.

    Args:
        config: Which.
        frames: Of a clip; VideoMAE has a place for each.
        weights: File with its weights; None leaves it random.

    Raises:
        BackboneError: transformers is not installed, or the file does not fit.
    """
    library = transformers()
    match config:
        case VideoMaeConfig():
            shape = library.VideoMAEConfig(
                image_size=config.size, patch_size=config.patch, num_frames=frames,
                tubelet_size=config.tubelet, hidden_size=config.width,
                num_hidden_layers=config.depth, num_attention_heads=config.heads,
                intermediate_size=4 * config.width, num_labels=1,
            )  # fmt: skip
            whole = _built(library.VideoMAEForVideoClassification, shape, weights, "classifier.")
            return VideoTower(config, whole.videomae, whole.fc_norm)
        case VJepa2Config():
            shape = library.VJEPA2Config(
                crop_size=config.size, patch_size=config.patch, frames_per_clip=frames,
                tubelet_size=config.tubelet, hidden_size=config.width,
                num_hidden_layers=config.depth, num_attention_heads=config.heads,
                pred_num_hidden_layers=1,
            )  # fmt: skip
            whole = _built(library.VJEPA2Model, shape, weights, "predictor.")
            return VideoTower(config, whole.encoder, None)
        case _:
            assert_never(config)


def transformers() -> ModuleType:
    """Import the library; it takes seconds, and who serves images needs none of it.

    Raises:
        BackboneError: It is not installed.
    """
    try:
        import transformers as library
    except ImportError as error:
        raise BackboneError(
            "Video networks need the package transformers; install kshot[video]."
        ) from error
    library.logging.set_verbosity_error()  # what does not fit is an error here, not a table
    library.logging.disable_progress_bar()
    return library


def _built(kind: Any, shape: Any, weights: Path | None, unused: str) -> Any:  # noqa: ANN401
    """Build a network, at random or with the weights of a file, as the library loads them."""
    if weights is None:
        return kind(shape).eval()
    tensors = {
        name: tensor for name, tensor in read_tensors(weights).items()
        if not name.startswith(unused)
    }  # fmt: skip
    try:
        network, told = kind.from_pretrained(
            None, config=shape, state_dict=tensors, output_loading_info=True
        )
    except RuntimeError as error:
        raise BackboneError(
            f"{weights} does not fit the network: {str(error).splitlines()[0]}; give the weights "
            "of the network that is named."
        ) from error
    odd = [name for name in told["missing_keys"] if not name.startswith(unused)]
    odd += [*told["unexpected_keys"], *(name for name, *_ in told["mismatched_keys"])]
    if odd:
        raise BackboneError(
            f"{weights} does not fit the network: {listed(sorted(odd))} missing, extra or of "
            "another shape; give the weights of the network that is named."
        )
    return network.eval()
