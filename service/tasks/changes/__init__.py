"""Changing a task that is registered: its labels, clips, words and settings."""
