"""Which packets a decoder may start at, read from their own bytes.

Containers call more packets key frames than start afresh: after H.264's open groups of pictures and
intra refresh, later frames look behind them.
"""

from collections.abc import Iterator

IDR = 5  # H.264, type of a unit
IRAP = range(16, 22)  # HEVC: what is shown after one of these looks at nothing before it
START_CODE = b"\0\0\1"


def starts_afresh(codec: str, packet: bytes, setup: bytes) -> bool:
    """Tell whether a packet that is called a key frame is one for all that is shown after it.

    Args:
        codec: As `MediaLimits` names it.
        packet: As it stands in the container.
        setup: The decoder's setup that the container has, `extradata`.
    """
    match codec:
        case "h264":
            return any(unit & 31 == IDR for unit in _units(packet, setup, size_at=4))
        case "hevc":
            return any(unit >> 1 & 63 in IRAP for unit in _units(packet, setup, size_at=21))
        case "vp8" | "vp9" | "av1":
            return True
    return False  # MPEG-2 and -4: an I picture of an open group does not say so


def _units(packet: bytes, setup: bytes, size_at: int) -> Iterator[int]:
    """Give the first byte of each unit: after its length, or after a start code (Annex B)."""
    if len(setup) > size_at and setup[0] == 1:
        length_bytes = (setup[size_at] & 3) + 1
        at = 0
        while at + length_bytes < len(packet):
            yield packet[at + length_bytes]
            at += length_bytes + int.from_bytes(packet[at : at + length_bytes])
        return
    at = packet.find(START_CODE)
    while 0 <= at < len(packet) - len(START_CODE):
        yield packet[at + len(START_CODE)]
        at = packet.find(START_CODE, at + len(START_CODE))
