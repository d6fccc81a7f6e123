"""A recognizer as ONNX files: made, checked against torch, read and run."""
