"""The text of a task: where it comes from, whether it can be used, and its features.

Dimensions: N classes, A stages, E feature width.
"""

import asyncio
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from model.backbones.wording import TextFault
from model.errors import KshotError
from model.text import WORDING_VERSION, StageTexts, template_stages
from service.background import spawn
from service.engine.engine import Engine
from service.errors import DescriptionUnavailableError, LabelWithoutClipsError
from service.stores.protocol import TaskStore
from service.stores.records import LabelRecord, TaskRecord
from service.tasks.inputs import NewLabel, TextSource

Outcome = Literal["described", "failed"]
REMEMBERED = 4096  # classes of which it is known whether the text tower can read them

log = logging.getLogger("kshot.texts")


class Describes(Protocol):
    """A source of better text than templates, such as `service.tasks.describe.Describer`.

    No tenant may tell by time what labels another one has: each asks and keeps for itself.
    """

    async def cached(self, label: str, owner: str) -> StageTexts | None:
        """Return the stages of a label if they are known already."""
        ...

    async def describe(self, label: str, owner: str) -> StageTexts:
        """Return stages, asking the language model if need be."""
        ...


class TaskTexts:
    """Chooses, encodes and improves the text of tasks.

    Args:
        engine: Encodes it.
        store: Keeps its features, by fingerprint of the weights and by text.
        describer: Asks a language model, or None.
        ttl_s: How long features are kept.
    """

    def __init__(
        self, engine: Engine, store: TaskStore, describer: Describes | None, *, ttl_s: float
    ) -> None:
        self.engine = engine
        self.store = store
        self.describer = describer
        self.ttl_s = ttl_s
        self.outcomes: Counter[Outcome] = Counter()  # of the labels that were asked about
        self._text_fault = lru_cache(REMEMBERED)(engine.text_fault)

    async def first(self, new: Sequence[NewLabel], owner: str) -> tuple[LabelRecord, ...]:
        """Return the text a task starts with: the client's, else the cached, else a template."""
        if all(label.stages is not None for label in new):
            return tuple(_record(each.label, each.stages, "client") for each in new if each.stages)
        count = self.engine.model.stages
        templates = tuple(
            _record(each.label, template_stages(each.label, count), "template") for each in new
        )
        if self.describer is None or await self.fault(templates) is not None:
            return templates
        cached = [await self.describer.cached(label.label, owner) for label in new]
        described = tuple(
            _record(label.label, stages, "llm")
            for label, stages in zip(new, cached, strict=True)
            if stages is not None
        )
        usable = len(described) == len(templates) and await self.fault(described) is None
        return described if usable else templates

    def may_improve(self, labels: Sequence[LabelRecord]) -> bool:
        """Tell whether a language model could replace the text of these labels."""
        templates = any(label.text_source == "template" for label in labels)
        return templates and self.describer is not None

    async def better(
        self, labels: Sequence[LabelRecord], owner: str
    ) -> tuple[LabelRecord, ...] | None:
        """Return the language model's text in the place of templates, or None: it cannot help."""
        describer = self.describer
        if describer is None or not self.may_improve(labels) or await self.fault(labels):
            return None
        wanted = [label.label for label in labels if label.text_source == "template"]
        asked = [spawn(describer.describe(label, owner)) for label in wanted]
        try:
            answers = await asyncio.gather(*asked)
            self.outcomes["described"] += len(answers)
        except DescriptionUnavailableError:
            self.outcomes["failed"] += 1
            raise
        finally:
            for question in asked:
                question.cancel()  # without one of them the others are of no use
        found = dict(zip(wanted, answers, strict=True))
        described = tuple(
            _record(label.label, found[label.label], "llm") if label.label in found else label
            for label in labels
        )
        if (fault := await self.fault(described)) is not None:
            log.info("Template text stays: what the language model wrote is %s", fault.code)
            return None
        return described

    async def reason(self, labels: Sequence[LabelRecord]) -> str | None:
        """Say why no text takes part in the scores of these labels; None when it does."""
        fault = await self.fault(labels)
        return None if fault is None else fault.sentence

    async def check_clipless(self, record: TaskRecord) -> None:
        """Refuse a task without clips whose labels the text tower cannot read.

        Raises:
            LabelWithoutClipsError: Nothing is left to tell its labels by.
        """
        if record.clips or (why := await self.reason(record.labels)) is None:
            return
        raise LabelWithoutClipsError(
            f"The task has no clip, and its text cannot be used: {why.rstrip('.')}; or register "
            "it with a clip of each label."
        )

    async def fault(self, labels: Sequence[LabelRecord]) -> TextFault | None:
        """Return the first fault of these labels' text: a task has text for all or for none."""
        if not self.engine.model.has_text:
            name = self.engine.model.name
            return TextFault("no-text", f"The checkpoint {name!r} scores by video alone.")
        return await asyncio.to_thread(self._first_fault, labels)

    def _first_fault(self, labels: Sequence[LabelRecord]) -> TextFault | None:
        """Look at each label: a millisecond or two for one that was not looked at before."""
        wanted = self.engine.model.stages
        for label in labels:
            if len(label.stages) != wanted:
                return TextFault(
                    "stages-differ",
                    f"The task has {len(label.stages)} sentences a label and the checkpoint reads "
                    f"{wanted}, so the task is scored by video alone; register it again.",
                )
            if (fault := self._text_fault(label.label, label.stages)) is not None:
                return fault
        return None

    async def encode(self, labels: Sequence[LabelRecord], owner: str) -> Tensor | None:
        """Return text_NAE, from the store as far as it has it; None when no text takes part."""
        if await self.fault(labels) is not None:
            return None
        keys = [self._key(label, owner) for label in labels]
        features = [_unpack(await self._read(key)) for key in keys]
        missing = [place for place, feature in enumerate(features) if feature is None]
        if missing:
            encoded = await self.engine.encode_text(
                [labels[place].label for place in missing],
                [labels[place].stages for place in missing],
            )
            for place, feature_AE in zip(missing, encoded.float().cpu(), strict=True):
                features[place] = feature_AE.clone()
                await self._write(keys[place], save({"text_AE": feature_AE.contiguous()}))
        return torch.stack([feature for feature in features if feature is not None])

    def _key(self, label: LabelRecord, owner: str) -> str:
        words = [WORDING_VERSION, label.label, *label.stages]
        text = json.dumps([owner, words] if owner else words).encode()
        return f"features:{self.engine.model.fingerprint}:{hashlib.sha256(text).hexdigest()}"

    async def _read(self, key: str) -> bytes | None:
        try:
            return await self.store.get_text(key)
        except KshotError as error:  # a cache that fails is a cache that is empty
            log.warning("Text features could not be read: %s", error)
            return None

    async def _write(self, key: str, value: bytes) -> None:
        try:
            await self.store.put_text(key, value, ttl_s=self.ttl_s)
        except KshotError as error:
            log.warning("Text features could not be kept: %s", error)


def _record(label: str, stages: StageTexts, source: TextSource) -> LabelRecord:
    return LabelRecord(label=label, stages=stages, text_source=source)


def _unpack(value: bytes | None) -> Tensor | None:
    if value is None:
        return None
    try:
        text_AE: Tensor = load(value)["text_AE"]
    except (SafetensorError, KeyError):
        return None
    return text_AE
