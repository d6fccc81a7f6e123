"""Why a request that fits the limits is more than its tenant may ask for."""

from service.errors import RequestError


class QuotaExceededError(RequestError):
    """What is left of the minute's quota is less than the request asks for."""

    code = "quota-exceeded"


class QuotaTooSmallError(RequestError):
    """The request asks for more than the quota of a whole minute."""

    code = "quota-too-small"
