"""What owns the device: micro-batches, encoded supports."""
