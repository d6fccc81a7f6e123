"""A process of a test that opens ONNX Runtime as the first one to do so."""

import os

from model.export.sessions import onnxruntime


def main() -> None:
    os.unsetenv("ORT_DISABLE_TELEMETRY")  # the test process may have set it for its own
    onnxruntime()
