"""What runs the network: torch or ONNX Runtime behind one call, and the choice between them."""
