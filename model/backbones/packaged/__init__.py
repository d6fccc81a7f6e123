"""Towers of our own, whose weights a checkpoint holds itself."""
