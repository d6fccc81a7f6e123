"""Windows of a long video, and their scores as spans of time."""
