"""Why a caller is not let in."""

from service.errors import RequestError


class KeyMissingError(RequestError):
    """The request has no API key, and this service asks for one."""

    code = "key-missing"


class KeyInvalidError(RequestError):
    """The key is none of this service's, or none any more; which of these is not told."""

    code = "key-invalid"


class ScopeMissingError(RequestError):
    """The key may do other things than this."""

    code = "scope-missing"


class TooManyFailuresError(RequestError):
    """Too many wrong keys came from this address lately."""

    code = "too-many-failures"
