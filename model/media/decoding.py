"""The wanted pictures of a video, decoded by PyAV; what is damaged is passed over, and told.

Decoding goes from start to start: to the last packet before a wanted picture that can be decoded by
itself, and on to the picture. On the way, pictures that no other one needs are left out. What is
not found so (packets may show nothing, or be damaged) is looked for once more, from one start
earlier and with nothing left out; then the last picture before it is shown in its place.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.errors import ClipUndecodableError, NoFramesError
from model.media.container import MediaLimits, library_errors, open_video
from model.media.display import Framing
from model.media.headers import Header
from model.media.walk import Walk

BEGINS_LATE = (
    "The clip does not begin with a key frame; its first {:.2f} s show the first picture that can"
    " be decoded."
)
DAMAGED = "The clip is damaged: {} of the {} pictures decoded on the way are not whole."
ENDS_EARLY = "The file ends before its last picture does; the clip is used up to there."
OUT_OF_ORDER = "Pictures of the clip are out of the order of their times; they are shown by time."


@dataclass(frozen=True, slots=True)
class Decoded:
    """The pictures of a clip, each known by its place in the header's timeline."""

    squares: dict[int, np.ndarray]  # uint8 [size, size, 3]
    shown: dict[int, int]  # for each wanted place, the one that is shown
    warnings: tuple[str, ...] = ()


def decode_video(
    data: bytes, header: Header, wanted: Sequence[int], framing: Framing, limits: MediaLimits
) -> Decoded:
    """Decode the wanted pictures of a video.

    Args:
        data: The encoded clip.
        header: Its header.
        wanted: Places in the header's timeline.
        framing: Of the result.
        limits: What is accepted.

    Raises:
        ClipError: One of its children, when the clip cannot be used.
    """
    stamps = {header.stamps[place] for place in wanted}
    shown: dict[int, int] = {}  # wanted stamp -> that of the picture in its place
    squares: dict[int, np.ndarray] = {}
    for careful in (False, True):
        with open_video(data, limits) as video, library_errors("decoding the frames"):
            walk = Walk(video, header, stamps - shown.keys(), framing, limits, careful=careful)
            walk.go()
        shown |= walk.shown
        squares |= walk.squares
        if stamps == shown.keys():
            break
    _check(walk, squares)
    there = sorted(squares)
    for stamp in stamps - shown.keys():  # where nothing decodes far and wide
        shown[stamp] = there[max(0, bisect_right(there, stamp) - 1)]
    places = {stamp: max(0, bisect_right(header.stamps, stamp) - 1) for stamp in there}
    return Decoded(
        {places[stamp]: pixels for stamp, pixels in squares.items()},
        {place: places[shown[header.stamps[place]]] for place in wanted},
        _warnings(walk, header, shown),
    )


def _check(walk: Walk, squares: dict[int, np.ndarray]) -> None:
    """Refuse a video of which nothing decodes, or less than half of what was tried."""
    if walk.broken and 2 * walk.broken > walk.tried:
        raise ClipUndecodableError(
            f"Of {walk.tried} pictures {walk.broken} are damaged or encrypted; send a complete,"
            " unencrypted clip."
        )
    if not squares:
        raise NoFramesError("The video stream holds no frame that decodes; encode the clip again.")


def _warnings(walk: Walk, header: Header, shown: dict[int, int]) -> tuple[str, ...]:
    late = [there for wanted, there in shown.items() if there > wanted]
    said = []
    if late:
        place = bisect_right(header.stamps, min(late)) - 1
        said.append(BEGINS_LATE.format(header.timeline.times_s[place]))
    if walk.broken:
        said.append(DAMAGED.format(walk.broken, walk.tried))
    if not header.whole:
        said.append(ENDS_EARLY)
    if walk.out_of_order:
        said.append(OUT_OF_ORDER)
    return tuple(said)
