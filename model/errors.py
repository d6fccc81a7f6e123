"""Every error of the core: a stable code, one sentence with the offending value and the remedy.

    KshotError
    ├── ClipError                   one clip cannot be used; the others of the request may be fine
    │   ├── ContainerNotAllowedError, CodecNotAllowedError, ClipUndecodableError
    │   ├── NoVideoStreamError, NoFramesError, TooManyStreamsError, TooManyFramesError
    │   ├── ClipTooShortError, ClipTooLongError, ClipTooLargeError, PictureTooLargeError
    │   ├── ClipSpanError           start_s and end_s do not lie inside the clip
    │   ├── PictureCountError       a clip given as pictures has too few or too many
    │   └── ClipDecodeTimeoutError  the decoder ran out of processor time or memory
    ├── EpisodeError                labels, supports and queries do not make an episode
    ├── DescriptionError            sub-action text is not three usable sentences
    ├── MethodError                 a method that cannot be built, or not be served
    ├── BackboneError               a backbone that cannot be had
    ├── CheckpointError             a checkpoint folder that does not fit
    └── ExportError                 exported files that cannot be made, read or run

HTTP statuses live in `service.http.statuses` alone.
"""

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from pydantic import ValidationError


class KshotError(Exception):
    """Root of the tree; never raised itself."""

    code: ClassVar[str] = "error"


class ClipError(KshotError):
    """One clip cannot be used."""

    code = "clip-unusable"


class ContainerNotAllowedError(ClipError):
    """The bytes are no container of the allow-list."""

    code = "container-not-allowed"


class CodecNotAllowedError(ClipError):
    """The video stream's codec is not on the allow-list."""

    code = "codec-not-allowed"


class ClipUndecodableError(ClipError):
    """The decoder gave up, or died, on these bytes."""

    code = "clip-undecodable"


class NoVideoStreamError(ClipError):
    """The container has no video stream, as an audio file has none."""

    code = "no-video-stream"


class NoFramesError(ClipError):
    """The video stream holds no frame that can be decoded."""

    code = "no-frames"


class TooManyStreamsError(ClipError):
    """The container has more streams than the limit."""

    code = "too-many-streams"


class TooManyFramesError(ClipError):
    """The clip has more frames than the decoder walks."""

    code = "too-many-frames"


class ClipTooShortError(ClipError):
    """The clip lasts less than the limit."""

    code = "clip-too-short"


class ClipTooLongError(ClipError):
    """The clip lasts more than the limit."""

    code = "clip-too-long"


class ClipTooLargeError(ClipError):
    """The clip has more bytes than the limit."""

    code = "clip-too-large"


class PictureTooLargeError(ClipError):
    """A frame has more pixels than the limit."""

    code = "picture-too-large"


class ClipSpanError(ClipError):
    """`start_s` and `end_s` do not lie inside the clip."""

    code = "clip-span"


class PictureCountError(ClipError):
    """A clip given as pictures has too few or too many of them."""

    code = "picture-count"


class ClipDecodeTimeoutError(ClipError):
    """The clip took more processor time or memory of the decoder than it may."""

    code = "clip-decode-timeout"


class EpisodeError(KshotError):
    """Labels, supports and queries do not make an episode."""

    code = "episode-invalid"


class DescriptionError(KshotError):
    """Sub-action text is not three usable sentences."""

    code = "description-invalid"


class MethodError(KshotError):
    """A method that cannot be built, or not be served."""

    code = "method-invalid"


class BackboneError(KshotError):
    """A backbone that is unknown or whose weights do not fit."""

    code = "backbone-unavailable"


class CheckpointError(KshotError):
    """A checkpoint folder with missing, extra or foreign contents."""

    code = "checkpoint-mismatch"


class ExportError(KshotError):
    """Exported files that cannot be made, read or run, or that belong to other weights."""

    code = "export-unusable"


def first_fault(error: "ValidationError") -> str:
    """Say the first fault that pydantic found in a file: where it stands, and what is wrong."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"]) or "the file"
    return f"{place}: {first['msg']}"
