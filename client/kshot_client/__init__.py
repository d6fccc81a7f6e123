"""Client of kshot: few-shot action recognition over HTTP; `Client` blocks, `AsyncClient` not."""

from kshot_client.blocking import Client
from kshot_client.problems import (
    KshotError,
    NoAnswerError,
    ProblemError,
    SettingError,
    StillWorkingError,
    TaskFailedError,
)
from kshot_client.retries import Retries
from kshot_client.unblocking import AsyncClient
from kshot_client.uploads import Clip

__all__ = [
    "AsyncClient",
    "Client",
    "Clip",
    "KshotError",
    "NoAnswerError",
    "ProblemError",
    "Retries",
    "SettingError",
    "StillWorkingError",
    "TaskFailedError",
]
