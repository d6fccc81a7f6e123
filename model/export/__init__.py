"""A recognizer as ONNX files: made, checked against torch, quantised, read and run."""
