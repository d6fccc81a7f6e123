"""Why a request, or the start of the service, is refused; statuses live in `service.http.statuses`.

KshotError
├── RequestError                  the request cannot be served as it is
│   ├── MalformedRequestError, UnknownFieldError, InvalidRequestError, ...
│   ├── labels and clips: TooFewLabelsError, LabelDuplicateError, ...
│   ├── changes of tasks: service.tasks.changes.errors
│   ├── ClipsRefusedError         some clips cannot be used; names each
│   └── NotReadyError, DeadlineError, ServerFullError, TenantOverShareError: ask again
├── EngineError                   the device failed on this work
├── DescriptionUnavailableError   the language model gave nothing usable
└── SettingsError                 an environment variable that cannot be followed
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from model.errors import ClipError, KshotError


@dataclass(frozen=True, slots=True)
class FieldFault:
    """What is wrong with one field of a request."""

    field: str
    message: str


@dataclass(frozen=True, slots=True)
class ClipFault:
    """What is wrong with one clip of a request."""

    index: int  # in the order of the request
    label: str | None
    error: ClipError
    name: str | None = None  # of the file, as it was sent


class RequestError(KshotError):
    """The request cannot be served as it is.

    Args:
        message: One sentence with the offending value and the remedy.
        faults: The fields at fault, when there are several.
        retry_after_s: When it is worth asking again, for refusals that pass.
    """

    code = "request-refused"
    retryable: ClassVar[bool] = False  # set where the status does not say so already

    def __init__(
        self, message: str, faults: Sequence[FieldFault] = (), retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.faults = tuple(faults)
        self.retry_after_s = retry_after_s


class MalformedRequestError(RequestError):
    """The body cannot be read as what its content type says."""

    code = "malformed-request"


class MediaTypeError(RequestError):
    """The body has a content type that this route does not read."""

    code = "media-type-not-supported"


class NotAcceptableError(RequestError):
    """The client takes no form in which this route answers."""

    code = "not-acceptable"


class ModelNotFoundError(RequestError):
    """A model that is not served here."""

    code = "model-not-found"


class InvalidRequestError(RequestError):
    """A field has a value that does not fit."""

    code = "invalid-request"


class UnknownFieldError(RequestError):
    """The request has a field that this route does not know."""

    code = "unknown-field"


class RequestTooLargeError(RequestError):
    """The body has more bytes than the limit."""

    code = "request-too-large"


class UploadTooSlowError(RequestError):
    """The body comes in slower than the floor."""

    code = "upload-too-slow"
    retryable = True


class ClientLeftError(RequestError):
    """The client left while it was sending; nobody reads this."""

    code = "client-left"


class Base64Error(RequestError):
    """A clip in JSON is not base64."""

    code = "base64-invalid"


class TaskTooLargeError(RequestError):
    """The encoded supports of the task would not fit the memory for them."""

    code = "task-too-large"


class TooFewLabelsError(RequestError):
    """A task needs at least two labels."""

    code = "too-few-labels"


class TooManyLabelsError(RequestError):
    """The task has more labels than the limit."""

    code = "too-many-labels"


class LabelEmptyError(RequestError):
    """A label has no visible character."""

    code = "label-empty"


class LabelTooLongError(RequestError):
    """A label has more characters than the limit."""

    code = "label-too-long"


class LabelDuplicateError(RequestError):
    """Two labels read the same."""

    code = "label-duplicate"


class LabelUnknownError(RequestError):
    """A field speaks of a label that has no clips."""

    code = "label-unknown"


class LabelWithoutClipsError(RequestError):
    """A label has no support clip, or none that can be used."""

    code = "label-without-clips"


class TooManyClipsError(RequestError):
    """A label, a task or a classify request has more clips than the limit."""

    code = "too-many-clips"


class NoClipsError(RequestError):
    """The request has no clip at all."""

    code = "no-clips"


class DescriptionsMixedError(RequestError):
    """Some labels have descriptions and some do not, or they are given twice."""

    code = "descriptions-mixed"


class ClipsRefusedError(RequestError):
    """Clips that cannot be used; the code is theirs when they agree on one."""

    code = "clips-unusable"

    def __init__(self, message: str, clips: Sequence[ClipFault]) -> None:
        super().__init__(message)
        self.clips = tuple(clips)


class NotReadyError(RequestError):
    """The task is still getting ready."""

    code = "not-ready"
    retryable = True


class PreparationError(RequestError):
    """The task's clips are safe, but the model failed to encode them."""

    code = "preparation-failed"


class TaskFailedError(RequestError):
    """The clips of the task turned out to be of no use after it was accepted."""

    code = "task-failed"


class TaskIncompatibleError(RequestError):
    """The task was registered for a checkpoint that sees other frames."""

    code = "task-incompatible"


class DeadlineError(RequestError):
    """The request took longer than it may."""

    code = "deadline-passed"


class DeadlineUnmetError(DeadlineError):
    """The request cannot be done in the time it has left, so it is not begun."""

    code = "deadline-unmet"


class ServerFullError(RequestError):
    """The server has as much work as it can do in time."""

    code = "server-full"


class DecoderBusyError(RequestError):
    """A clip was not read in time though its decoder had processor time left: others used it."""

    code = "decoder-busy"


class ServerStoppingError(RequestError):
    """The server stops, and the request was not done in the time that was left."""

    code = "server-stopping"


class TenantOverShareError(RequestError):
    """This caller has more work here than its share, and others wait too."""

    code = "tenant-over-share"


class DeviceMemoryError(RequestError):
    """The device has no memory for this work, though some was freed."""

    code = "device-out-of-memory"


class EngineError(KshotError):
    """The device failed on this work."""

    code = "engine-failed"


class DescriptionUnavailableError(KshotError):
    """The language model gave no usable description; template text stays."""

    code = "description-unavailable"


class SettingsError(KshotError):
    """An environment variable that cannot be followed."""

    code = "settings-invalid"
