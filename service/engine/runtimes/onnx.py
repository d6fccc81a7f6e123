"""The recognizer as ONNX Runtime runs it, from a folder that `python -m model.export` wrote."""

from pathlib import Path

from model.export.manifest import Manifest
from model.export.sessions import onnx_recognizer, provider_of
from model.recognizer import Recognizer
from service.engine.runtimes.protocol import Kind
from service.engine.runtimes.pytorch import TorchRuntime


class OnnxRuntime(TorchRuntime):
    """A `Runtime` whose trunk, text tower and, where they are exported, adapted blocks are ONNX.

    What is not exported (matching; adapted blocks that read supports) runs in torch, and so does
    `saliency`, which needs gradients.
    """

    kind: Kind = "onnx"
    frames_apart = False  # a graph takes clips

    @property
    def provider(self) -> str:
        """ONNX Runtime's name of what runs the graphs."""
        given = provider_of(self.device)
        return given if isinstance(given, str) else given[0]


def onnx_runtime(
    recognizer: Recognizer, folder: Path, manifest: Manifest, *, threads: int
) -> OnnxRuntime:
    """Open what a folder holds.

    Raises:
        ExportError: The folder is torn or belongs to other weights.
    """
    return OnnxRuntime(onnx_recognizer(recognizer, folder, manifest, threads=threads))
