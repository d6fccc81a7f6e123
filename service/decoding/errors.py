"""What the decode pool raises when the fault is not a clip's."""

from model.errors import KshotError


class DecoderUnavailableError(KshotError):
    """No sandboxed decoder can be had: it does not start, or the pool is closed."""

    code = "decoder-unavailable"
