"""Exported graphs as ONNX Runtime runs them, in the place of the encoders they were made of.

Dimensions: B S Q clips, N classes, A stages, T frames, H W pixels, C colours, L tokens, D token
width, E feature width.
"""

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.encoder import TextEncoder, VideoEncoder
from model.errors import ExportError
from model.export.manifest import GraphName, Manifest, checked_file
from model.recognizer import Recognizer
from model.slots import View
from model.views import ALONE


def onnxruntime() -> Any:  # noqa: ANN401  onnxruntime ships no types
    """Import ONNX Runtime, without its telemetry.

    Raises:
        ExportError: It is not installed.
    """
    # From 1.31 on it writes a session id to the temporary folder and reports to its maker's server.
    os.putenv("ORT_DISABLE_TELEMETRY", "1")
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise ExportError(
            "onnxruntime is not installed; `pip install 'kshot[cpu]'` or 'kshot[gpu]' has it."
        ) from error


class Session:
    """One graph, opened; tensors go in and out without a copy.

    Args:
        file: The ONNX file.
        output: Sizes of one result, without the batch.
        device: Where tensors are: `cpu`, or `cuda` for its CUDA provider.
        threads: Of one run, on a processor.

    Raises:
        ExportError: The provider is not there, or the file cannot be opened.
    """

    def __init__(
        self, file: Path, output: Sequence[int], *, device: torch.device, threads: int
    ) -> None:
        runtime = onnxruntime()
        self.device = device
        self._output = tuple(output)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        # Waiting threads would spin on cores that decoders need.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = runtime.InferenceSession(
                file.read_bytes(), options, providers=[provider_of(device)]
            )
        except Exception as error:  # onnxruntime's errors have no common class
            raise ExportError(f"{file} cannot be opened ({error}); export again.") from error
        (given,) = self._session.get_inputs()
        (result,) = self._session.get_outputs()
        self._names = given.name, result.name

    def run(self, batch: Tensor) -> Tensor:
        """Run a batch of any size; returns float32 on the same device."""
        batch = batch.to(self.device).contiguous()
        result = torch.empty((len(batch), *self._output), device=self.device)
        binding = self._session.io_binding()
        element = {torch.uint8: "uint8", torch.int64: "int64"}.get(batch.dtype, "float32")
        place = (self.device.type, self.device.index or 0)
        numpy_types = {"uint8": "u1", "int64": "i8", "float32": "f4"}
        for bind, name, tensor, kind in (
            (binding.bind_input, self._names[0], batch, numpy_types[element]),
            (binding.bind_output, self._names[1], result, "f4"),
        ):
            bind(name, *place, kind, tuple(tensor.shape), tensor.data_ptr())
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()
        self._session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return result


def provider_of(device: torch.device) -> str | tuple[str, dict[str, Any]]:
    """Name the provider for a device.

    Raises:
        ExportError: The installed ONNX Runtime does not have it.
    """
    name = "CUDAExecutionProvider" if device.type == "cuda" else "CPUExecutionProvider"
    if name not in onnxruntime().get_available_providers():
        raise ExportError(
            f"The installed onnxruntime has no {name}; "
            "`pip install onnxruntime-gpu` in its place, or set the device to cpu."
        )
    if device.type != "cuda":
        return name
    # Convolutions are chosen by rule, not by trial: a new batch size must not cost seconds.
    return name, {"device_id": device.index or 0, "cudnn_conv_algo_search": "HEURISTIC"}


class Sessions:
    """The graphs of one exported folder, opened as they are asked for.

    Raises:
        ExportError: The folder belongs to other weights.
    """

    def __init__(
        self, folder: Path, manifest: Manifest, recognizer: Recognizer, *, threads: int
    ) -> None:
        if manifest.fingerprint != recognizer.fingerprint:
            raise ExportError(
                f"{folder} was exported from weights {manifest.fingerprint[:12]}, not from "
                f"{recognizer.name}'s {recognizer.fingerprint[:12]}; export again."
            )
        self.folder, self.manifest = folder, manifest
        self.device, self.threads = recognizer.device, threads

    def open(self, name: GraphName) -> Session:
        """Open one graph."""
        file = checked_file(self.folder, self.manifest, name)
        output = [int(size) for size in self.manifest.graphs[name].output[1:]]
        return Session(file, output, device=self.device, threads=self.threads)


class OnnxVideoEncoder(VideoEncoder):
    """A video encoder whose trunk, and adapted blocks where clips are alone, are ONNX."""

    def __init__(self, recognizer: Recognizer, sessions: Sessions) -> None:
        video, config = recognizer.video, recognizer.config
        super().__init__(
            video.tower,
            [*video.adapted],
            frames=config.frames,
            temporal_embedding=config.temporal_embedding,
            temporal=video.temporal,
            projected=video.projected,
        )
        self.temporal_embedding = video.temporal_embedding
        self._trunk = sessions.open("trunk")
        self._adapted = sessions.open("adapted") if config.query_context in ALONE else None

    def trunk(self, frames_BTHWC: Tensor) -> Tensor:
        """Run the plain blocks; returns tokens_BTLD."""
        return self._trunk.run(frames_BTHWC)

    def forward(self, tokens_BTLD: Tensor, view: View, text_BE: Tensor | None = None) -> Tensor:
        """Run the adapted blocks; returns features_BTE."""
        if self._adapted is None or not view.alone or text_BE is not None:
            return super().forward(tokens_BTLD, view, text_BE)
        return self._adapted.run(tokens_BTLD)


class OnnxTextEncoder(TextEncoder):
    """A text encoder that is one ONNX graph."""

    def __init__(self, text: TextEncoder, session: Session) -> None:
        super().__init__(text.tower, [*text.adapted])
        self._session = session

    def stages(self, ids_NAL: Tensor) -> Tensor:
        """Encode stage texts; returns features_NAE."""
        return self._session.run(ids_NAL)


def onnx_recognizer(
    recognizer: Recognizer, folder: Path, manifest: Manifest, *, threads: int = 1
) -> Recognizer:
    """Return the recognizer with its encoders run by ONNX Runtime on the recognizer's device.

    Raises:
        ExportError: ONNX Runtime or its provider is not installed, or the folder is torn or
            belongs to other weights.
    """
    sessions = Sessions(folder, manifest, recognizer, threads=threads)
    text = recognizer.text
    with torch.no_grad():
        return recognizer.with_encoders(
            OnnxVideoEncoder(recognizer, sessions).to(recognizer.device),
            None if text is None else OnnxTextEncoder(text, sessions.open("text")),
        ).eval()
