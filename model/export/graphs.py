"""The parts of a recognizer as ONNX files, each with one input, one output and a free batch.

Dimensions: B S Q clips, N classes, A stages, T frames, H W pixels, C colours, L tokens, D token
width, E feature width.
"""

import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from model.encoder import TextEncoder, VideoEncoder
from model.errors import ExportError
from model.export.manifest import GraphFile, GraphName, Shape, sha256_of
from model.recognizer import Recognizer
from model.slots import View
from model.text import prompts, template_stages
from model.views import ALONE, alone_view

OPSET = 20  # the first with Gelu
EXAMPLES = 2  # clips or classes in the example: a size of 1 would be taken for a constant
MOST = 4096  # of the free size


class TrunkGraph(nn.Module):
    """frames_BTHWC, uint8, to tokens_BTLD."""

    def __init__(self, video: VideoEncoder) -> None:
        super().__init__()
        self.video = video

    def forward(self, batch: Tensor) -> Tensor:
        """Run the trunk."""
        return self.video.trunk(batch)


class AdaptedGraph(nn.Module):
    """tokens_BTLD of clips that see nobody else, to features_BTE.

    Args:
        video: The encoder.
        view: A view in which clips are alone.
    """

    def __init__(self, video: VideoEncoder, view: View) -> None:
        super().__init__()
        self.video, self.view = video, view

    def forward(self, batch: Tensor) -> Tensor:
        """Run the adapted blocks."""
        return self.video(batch, self.view)


class TextGraph(nn.Module):
    """ids_NAL, int64, to features_NAE."""

    def __init__(self, text: TextEncoder) -> None:
        super().__init__()
        self.text = text

    def forward(self, batch: Tensor) -> Tensor:
        """Encode stage texts."""
        return self.text.stages(batch)


def graphs_of(recognizer: Recognizer) -> dict[GraphName, tuple[nn.Module, Tensor]]:
    """List what can be exported, each with an example.

    Where queries attend to supports, the adapted blocks stay in torch: each query brings a memory
    of its own size.
    """
    video, config = recognizer.video, recognizer.config
    clip = (config.frames, recognizer.size, recognizer.size, 3)
    frames = torch.randint(0, 256, (EXAMPLES, *clip), dtype=torch.uint8)
    graphs: dict[GraphName, tuple[nn.Module, Tensor]] = {"trunk": (TrunkGraph(video), frames)}
    if config.query_context in ALONE:
        with torch.inference_mode():
            tokens = video.trunk(frames)
        alone = alone_view(config.query_context)
        graphs["adapted"] = (AdaptedGraph(video, alone), tokens.clone())
    if recognizer.text is not None:
        texts = [
            text
            for label in ("walk", "run")
            for text in prompts(label, template_stages(label, config.stages), config.prompt)
        ]
        ids = recognizer.text.tower.tokenize(texts).unflatten(0, (EXAMPLES, -1))
        graphs["text"] = (TextGraph(recognizer.text), ids)
    return graphs


def torch_parts(recognizer: Recognizer) -> tuple[str, ...]:
    """Name what runs in torch beside the exported graphs."""
    match recognizer.config.query_context:
        case "none" if recognizer.video.reads_text:
            return ("adapted blocks of supports with text", "matching")
        case "none":
            return ("matching",)
        case "self":
            return ("adapted blocks of supports", "matching")
        case _:
            return ("adapted blocks", "matching")


def write_graph(module: nn.Module, example: Tensor, file: Path) -> GraphFile:
    """Export one graph; written aside and renamed.

    Raises:
        ExportError: onnx or onnxscript is not installed, or torch cannot export the module.
    """
    for package in ("onnx", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise ExportError(f"{package} is not installed; `pip install 'kshot[export]'` has it.")
    aside = file.with_name(f".{file.name}.new")
    free = torch.export.Dim("batch", min=1, max=MOST)
    with quiet(), torch.no_grad():
        output = module(example)
        try:
            torch.onnx.export(
                module.eval(),
                (example,),
                aside,
                input_names=["batch"],
                output_names=["result"],
                dynamic_shapes={"batch": {0: free}},
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise ExportError(f"torch cannot export {file.stem}: {error}") from error
    aside.replace(file)
    return GraphFile(
        file=file.name,
        sha256=sha256_of(file),
        input=free_shape(example),
        output=free_shape(output),
    )


def free_shape(example: Tensor) -> Shape:
    """Return a shape whose first size is free."""
    return ("batch", *example.shape[1:])


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter's own remarks out of the terminal."""
    loggers = [logging.getLogger(name) for name in ("", "torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
