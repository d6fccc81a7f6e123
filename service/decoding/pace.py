"""How much decoding costs, as measured on the clips of late."""

MEMORY_CLIPS = 50  # about so many clips are remembered
FIRST_BYTES, FIRST_S = 200e3, 0.05  # of one clip, believed before any was measured


class DecodePace:
    """Running means over the clips that the pool has read."""

    def __init__(self) -> None:
        self._clips, self._bytes, self._seconds = 1.0, FIRST_BYTES, FIRST_S

    @property
    def clip_bytes(self) -> float:
        """Length of a clip as it was sent."""
        return self._bytes / self._clips

    @property
    def s_byte(self) -> float:
        """Seconds of one decoder for each byte."""
        return self._seconds / self._bytes

    def note(self, size: int, seconds: float) -> None:
        """Count one clip in, and the older ones a little less."""
        keep = 1 - 1 / MEMORY_CLIPS
        self._clips = keep * self._clips + 1
        self._bytes = keep * self._bytes + max(1, size)
        self._seconds = keep * self._seconds + seconds
