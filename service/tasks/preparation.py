"""How far a new task is."""

from dataclasses import dataclass


@dataclass(slots=True)
class Preparation:
    """A task whose clips are being decoded and encoded for the first time."""

    clips: int
    decoded: int = 0
    encoded: int = 0
    failed: bool = False

    @property
    def progress(self) -> float:
        """Share of the work that is done; decoding and encoding count alike."""
        return (self.decoded + self.encoded) / max(1, 2 * self.clips)
