"""Which checkpoints may be served in the place of the one that is served."""

import re
from pathlib import Path

from model.backbones.sources import PACKAGED
from model.errors import KshotError
from model.folder import METHOD, check_source
from service.engine.runtimes.protocol import ServedModel
from service.tasks.swapping.errors import (
    CheckpointNotAllowedError,
    CheckpointUnusableError,
    ModelShapeError,
)

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Allowed:
    """The packaged checkpoints, the one of the settings, and the folders in the operator's folder.

    A name is never a path, and nothing that a client names is downloaded.

    Args:
        folder: The operator's; None allows nothing.
        first: What the settings say, for the way back.
        weights: File with a backbone's weights, or None.
    """

    def __init__(self, folder: Path | None, first: str, weights: Path | None) -> None:
        self.folder = folder
        self.first = first
        self.weights = weights

    def find(self, name: str) -> str:
        """Return what a name stands for, as `KSHOT_CHECKPOINT` would have it.

        Raises:
            CheckpointNotAllowedError: There is none of this name.
            CheckpointUnusableError: It has a part that is torn or not there.
        """
        if self.folder is None:
            raise CheckpointNotAllowedError(
                "No checkpoint may take the place of the one that is served: KSHOT_MODELS_DIR is "
                "not set; the operator sets it to a folder of checkpoint folders."
            )
        source = self._source(name)
        if source is None:
            raise CheckpointNotAllowedError(
                f"There is no checkpoint {name[:100]!r} here; the operator has allowed "
                f"{', '.join(self.names())}."
            )
        try:
            check_source(source, self.weights)
        except KshotError as error:
            raise CheckpointUnusableError(str(error)) from error
        return source

    def names(self) -> list[str]:
        """Name all that may be served."""
        folders = sorted(self.folder.iterdir()) if self.folder and self.folder.is_dir() else []
        found = [each.name for each in folders if self._folder(each.name) is not None]
        return list(dict.fromkeys([*found, *PACKAGED, self.first]))

    def _source(self, name: str) -> str | None:
        return self._folder(name) or (name if name in (*PACKAGED, self.first) else None)

    def _folder(self, name: str) -> str | None:
        if self.folder is None or NAME.fullmatch(name) is None:
            return None
        folder = self.folder / name
        return str(folder) if (folder / METHOD).is_file() else None


def check_shape(new: ServedModel, old: ServedModel) -> None:
    """Refuse a model that reads other pictures than those that are stored.

    Raises:
        ModelShapeError: It does.
    """
    shapes = [(one.frames, one.size, one.squash) for one in (new, old)]
    if shapes[0] == shapes[1]:
        return
    takes, kept = (
        "{} pictures of {} pixels{}".format(
            *shape[:2], f" (squashed to {shape[2]})" if shape[2] else ""
        )
        for shape in shapes
    )
    raise ModelShapeError(
        f"The checkpoint takes {takes} a clip, and {kept} are stored of the tasks; serve it "
        "elsewhere, and export and import the tasks."
    )


def sentence_of(error: Exception) -> str:
    """Say why a checkpoint is not served, of an error of whatever kind."""
    if isinstance(error, KshotError):
        return str(error)
    told = str(error).strip().partition("\n")[0][:200]
    return f"The checkpoint could not be started ({type(error).__name__}: {told}); see the log."
