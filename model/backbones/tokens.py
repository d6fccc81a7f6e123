"""Tokenizers of text towers: open_clip's own, or that of a hub's repository."""

from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from torch import Tensor

from model.backbones.words import words_and_signs
from model.errors import BackboneError

FILES = ("tokenizer.json", "tokenizer_config.json")


class Tokenizer(Protocol):
    """Texts to token ids [B, L]; the end of text has the largest id."""

    def __call__(self, texts: list[str], context_length: int | None = None) -> Tensor:
        """Tokenize; texts of more than `context_length` tokens, or L, are cut."""


class FolderTokenizer:
    """The tokenizer of a repository of the hub, read from a folder; any thread may ask it.

    Args:
        name: Of the model.
        folder: With `FILES`; None where the model is random and nobody asks.
        values: What open_clip's config says of it.

    Raises:
        BackboneError: A file or the package is missing.
    """

    def __init__(self, name: str, folder: Path | None, values: dict[str, Any]) -> None:
        self.tokenizer: Any = None if folder is None else _opened(name, folder, values)
        self.turn = Lock()  # its tokenizer is told how long a text may be before it reads one

    def __call__(self, texts: list[str], context_length: int | None = None) -> Tensor:
        """Tokenize."""
        with self.turn:
            ids: Tensor = self.tokenizer(texts, context_length)
        return ids

    def unknown(self, text: str) -> tuple[str, ...]:
        """Return the words and signs of `text` that it has no tokens for, each once, in order."""
        inner = self.tokenizer.tokenizer
        lost = inner.unk_token_id
        words = dict.fromkeys(words_and_signs(text))
        with self.turn:
            return tuple(w for w in words if lost in inner(w, add_special_tokens=False).input_ids)


def read_whole(tokenizer: Tokenizer, text: str, context: int) -> tuple[int, ...] | None:
    """Return the ids of one text, padded to `context` of them; None where it would be cut.

    With room for one token more, a text that fits leaves the last place empty. Where the end of a
    text and padding are one token, as in SigLIP, the place before it says so.
    """
    empty_L, ids_L = tokenizer(["", text], context_length=context + 1)
    padding = empty_L[-1]
    ended = bool((empty_L != padding).any())
    fits = ids_L[-1] == padding and (ended or ids_L[-2] == padding)
    return tuple(ids_L[:-1].tolist()) if fits else None


def _opened(name: str, folder: Path, values: dict[str, Any]) -> Any:  # noqa: ANN401
    for file in FILES:
        if not (folder / file).is_file():
            raise BackboneError(
                f"{name!r} reads text by {' and '.join(FILES)}, and {file} is not in {folder}; "
                "bring it there."
            )
    from open_clip import tokenizer  # takes seconds, and a tower of our own words needs none

    try:
        return tokenizer.HFTokenizer(str(folder), **values)
    except ImportError as error:
        raise BackboneError(
            f"{name!r} reads text with the package transformers; install kshot[video]."
        ) from error
