"""Why a file is not imported."""

from service.errors import RequestError


class ExportForeignError(RequestError):
    """The file is no task that kshot exported."""

    code = "export-foreign"


class ExportDamagedError(RequestError):
    """The file is an exported task that is not whole any more."""

    code = "export-damaged"


class ExportNewerError(RequestError):
    """The file was written in a later form than this service reads."""

    code = "export-newer"
