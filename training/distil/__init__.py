"""Distil a video tower from a network that has seen video: targets once, then students."""
