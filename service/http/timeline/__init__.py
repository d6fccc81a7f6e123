"""The HTTP of timelines: bodies, answers in four forms."""
