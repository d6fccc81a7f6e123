"""Why a long video cannot be followed."""

from service.errors import RequestError


class WindowTooLongError(RequestError):
    """A window is longer than the video, so none fits."""

    code = "window-too-long"
