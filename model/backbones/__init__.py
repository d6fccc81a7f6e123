"""Frozen towers, and the parts of them that adapters wrap."""
