"""Bytes to frames to pixels: the one preprocessing."""
