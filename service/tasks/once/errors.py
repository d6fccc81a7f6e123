"""Why a request with an Idempotency-Key is not done."""

from service.errors import RequestError


class IdempotencyKeyInvalidError(RequestError):
    """The key is not written as one must be."""

    code = "idempotency-key-invalid"


class IdempotencyKeyReusedError(RequestError):
    """The key was sent before, with another request."""

    code = "idempotency-key-reused"


class IdempotencyInProgressError(RequestError):
    """The request with this key is still being done."""

    code = "idempotency-in-progress"
    retryable = True


class IdempotencyAnswerGoneError(RequestError):
    """The request with this key was done, and what it made has been deleted since."""

    code = "idempotency-answer-gone"
