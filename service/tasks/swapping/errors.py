"""Why a checkpoint does not take the place of the one that is served."""

from service.errors import RequestError


class CheckpointNotAllowedError(RequestError):
    """The operator has allowed no checkpoint of this name."""

    code = "checkpoint-not-allowed"


class CheckpointUnusableError(RequestError):
    """The checkpoint has a part that is torn, or not there."""

    code = "checkpoint-unusable"


class SwapRunningError(RequestError):
    """Another checkpoint is taking the place already."""

    code = "model-swap-running"
    retryable = True


class ModelShapeError(RequestError):
    """The checkpoint reads other pictures than those that are stored of tasks."""

    code = "model-shape-differs"
