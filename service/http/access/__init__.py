"""What a caller may do, by the key that it sends."""
