"""The one table error class -> HTTP status, and which errors no client ever gets."""

import model.errors as core
import service.errors as refused
from model.errors import KshotError
from service.decoding import process as decoding
from service.keys import errors as keys
from service.stores import errors as stores
from service.tasks.changes import errors as changes
from service.tasks.inbox import errors as inbox
from service.tasks.once import errors as once
from service.tasks.portable import errors as portable
from service.tasks.quota import errors as quota
from service.tasks.swapping import errors as swapping
from service.tasks.timeline import errors as timeline

STATUS: dict[type[KshotError], int] = {
    core.KshotError: 500,
    core.ClipError: 500,
    core.ContainerNotAllowedError: 415,
    core.CodecNotAllowedError: 415,
    core.ClipUndecodableError: 422,
    core.NoVideoStreamError: 422,
    core.NoFramesError: 422,
    core.TooManyStreamsError: 422,
    core.TooManyFramesError: 422,
    core.ClipTooShortError: 422,
    core.ClipTooLongError: 422,
    core.ClipTooLargeError: 413,
    core.PictureTooLargeError: 422,
    core.ClipSpanError: 422,
    core.PictureCountError: 422,
    core.ClipDecodeTimeoutError: 422,
    core.EpisodeError: 500,
    core.DescriptionError: 422,
    core.MethodError: 500,
    core.BackboneError: 500,
    core.CheckpointError: 500,
    core.ExportError: 500,
    refused.RequestError: 500,
    refused.MalformedRequestError: 400,
    refused.MediaTypeError: 415,
    refused.NotAcceptableError: 406,
    keys.KeyMissingError: 401,
    keys.KeyInvalidError: 401,
    keys.ScopeMissingError: 403,
    keys.TooManyFailuresError: 429,
    refused.ModelNotFoundError: 404,
    refused.InvalidRequestError: 422,
    refused.UnknownFieldError: 422,
    refused.RequestTooLargeError: 413,
    refused.TaskTooLargeError: 413,
    refused.UploadTooSlowError: 408,
    quota.QuotaExceededError: 429,
    quota.QuotaTooSmallError: 413,
    refused.ClientLeftError: 400,
    refused.Base64Error: 422,
    once.IdempotencyKeyInvalidError: 400,
    once.IdempotencyKeyReusedError: 422,
    once.IdempotencyInProgressError: 409,
    once.IdempotencyAnswerGoneError: 410,
    refused.TooFewLabelsError: 422,
    refused.TooManyLabelsError: 422,
    refused.LabelEmptyError: 422,
    refused.LabelTooLongError: 422,
    refused.LabelDuplicateError: 422,
    refused.LabelUnknownError: 422,
    portable.ExportForeignError: 422,
    portable.ExportDamagedError: 422,
    portable.ExportNewerError: 422,
    timeline.WindowTooLongError: 422,
    swapping.CheckpointNotAllowedError: 422,
    swapping.CheckpointUnusableError: 422,
    swapping.SwapRunningError: 409,
    swapping.ModelShapeError: 422,
    changes.LabelNotFoundError: 404,
    changes.ClipNotFoundError: 404,
    inbox.QueryNotFoundError: 404,
    inbox.QueryAnsweredError: 409,
    changes.LastClipError: 409,
    changes.LastLabelsError: 409,
    changes.RevisionStaleError: 412,
    refused.LabelWithoutClipsError: 422,
    refused.TooManyClipsError: 422,
    refused.NoClipsError: 422,
    refused.DescriptionsMixedError: 422,
    refused.ClipsRefusedError: 422,
    refused.NotReadyError: 409,
    refused.PreparationError: 503,
    refused.TaskFailedError: 409,
    refused.TaskIncompatibleError: 409,
    refused.DeadlineError: 504,
    refused.DeadlineUnmetError: 503,
    refused.ServerFullError: 503,
    refused.DecoderBusyError: 503,
    refused.ServerStoppingError: 503,
    refused.TenantOverShareError: 429,
    refused.DeviceMemoryError: 503,
    refused.EngineError: 500,
    refused.SettingsError: 500,
    stores.StoreError: 500,
    stores.TaskNotFoundError: 404,
    stores.TaskExpiredError: 410,
    stores.RevisionConflictError: 500,
    stores.CursorError: 422,
    stores.QuotaFullError: 409,
    stores.StoreUnavailableError: 503,
    stores.StoreFullError: 503,
    stores.StoreCorruptError: 500,
    decoding.DecoderUnavailableError: 503,
    refused.DescriptionUnavailableError: 500,
}
UNANSWERED: frozenset[type[KshotError]] = frozenset(
    (  # no client ever gets these:
        # never raised themselves
        *(core.KshotError, core.ClipError, refused.RequestError, stores.StoreError),
        # raised before the service serves
        *(core.MethodError, core.BackboneError, core.CheckpointError, core.ExportError),
        refused.SettingsError,
        core.EpisodeError,  # checked before the core is asked
        refused.ClientLeftError,  # nobody is there to read it; the log has it
        refused.DescriptionUnavailableError,  # no request waits for a language model
        stores.RevisionConflictError,  # a change is tried again, and ids are drawn at random
        swapping.ModelShapeError,  # GET /admin/model tells its sentence
    )
)
INTERNAL = "internal-error"
# Which no error class has.
ROUTE_CODES = {404: "route-not-found", 405: "method-not-allowed", 500: INTERNAL}
