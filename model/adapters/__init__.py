"""Small trained parts inside frozen transformer blocks."""
