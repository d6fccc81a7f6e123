"""Descriptions of labels by a language model, through any OpenAI-compatible endpoint.

A label is untrusted text: it is quoted as data, and an answer that is not the wanted number of
short sentences is refused whole. No registration waits for this module; where it fails, template
text stays.
"""

import asyncio
import hashlib
import json
import logging
from dataclasses import dataclass
from typing import cast

import openai
from openai.types.chat import ChatCompletionMessageParam
from openai.types.shared_params import ResponseFormatJSONSchema

from model.errors import DescriptionError
from model.text import (
    MAX_LABEL_CHARS,
    PROMPT_VERSION,
    STAGES,
    StageTexts,
    answer_schema,
    check_stages,
    clean,
    counted,
    messages,
    parse_stages,
    spoken,
)
from service.background import spawn
from service.errors import DescriptionUnavailableError
from service.stores.errors import StoreError
from service.stores.protocol import TaskStore
from service.tasks.endpoint import MOST_ANSWER_BYTES, client_of, content_of, too_long

logger = logging.getLogger(__name__)

LANGUAGE = "en"
KEEP_S = 30 * 86_400.0
UNSUPPORTED = {400, 415, 422, 501}  # answers of endpoints that know no structured output
REMEDIES = {
    401: "check OPENAI_API_KEY",
    403: "check OPENAI_API_KEY",
    404: "check KSHOT_LLM_BASE_URL and KSHOT_LLM_MODEL",
    429: "it allows fewer questions than were asked",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DescriberLimits:
    """How long, how often and how many at once a language model is asked."""

    call_s: float = 10.0  # one call
    total_s: float = 25.0  # one label, retries included, from when it is its turn
    retries: int = 2  # calls after the first, where the client of openai finds them useful
    concurrency: int = 4  # calls at once
    ttl_s: float = KEEP_S  # how long an answer is kept


@dataclass(slots=True)
class _Question:
    """A label that is asked about, or waits for its turn."""

    work: asyncio.Task[StageTexts]
    callers: int = 0


class Describer:
    """Asks a language model for the stages of a label, once per label.

    Args:
        client: Where to ask.
        model: The model's name at the endpoint.
        store: Keeps the answers.
        stages: Sentences that describe a label.
        limits: Times and counts.
    """

    def __init__(
        self,
        client: openai.AsyncOpenAI,
        model: str,
        store: TaskStore,
        *,
        stages: int = STAGES,
        limits: DescriberLimits | None = None,
    ) -> None:
        self._limits = limits or DescriberLimits()
        self._client = client.with_options(
            max_retries=self._limits.retries, timeout=self._limits.call_s
        )
        self._completions = self._client.chat.completions.with_raw_response  # imported here, slowly
        self._model = model
        self._store = store
        self._stages = stages
        self._structured = True
        self._free = asyncio.Semaphore(self._limits.concurrency)
        self._asking: dict[str, _Question] = {}

    async def cached(self, label: str, owner: str = "") -> StageTexts | None:
        """Return the stages of a label if a tenant's store has them; never asks the model."""
        return await self._kept(self._key(label, owner))

    async def _kept(self, key: str) -> StageTexts | None:
        try:
            kept = await self._store.get_text(key)
            return None if kept is None else check_stages(json.loads(kept), self._stages)
        except (StoreError, DescriptionError, ValueError) as error:
            logger.warning("A cached description could not be read: %s", error)
            return None

    async def describe(self, label: str, owner: str = "") -> StageTexts:
        """Return the stages of a label; callers of a tenant for one label share one request.

        Args:
            label: The label.
            owner: The tenant. Its answers are its own: else the time that one takes would tell
                who had the label before.

        Raises:
            DescriptionUnavailableError: no endpoint, no answer in time, or no usable one.
        """
        if not clean(label) or len(label) > MAX_LABEL_CHARS:
            raise DescriptionUnavailableError(
                f"A label of {len(label)} characters is not described; use 1 to {MAX_LABEL_CHARS}."
            )
        key = self._key(label, owner)
        if (question := self._asking.get(key)) is None:
            question = self._asking[key] = _Question(spawn(self._described(key, label)))
        question.callers += 1
        try:
            return await asyncio.shield(question.work)  # one that leaves takes it from nobody
        finally:
            question.callers -= 1
            if not question.callers:
                del self._asking[key]
                question.work.cancel()  # unless it is done; its place is for those who wait

    async def close(self) -> None:
        """Stop the requests that run, and close the connections."""
        asking = [question.work for question in self._asking.values()]
        for request in asking:
            request.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        await self._client.close()

    async def _described(self, key: str, label: str) -> StageTexts:
        if (kept := await self._kept(key)) is not None:
            return kept
        try:
            async with self._free, asyncio.timeout(self._limits.total_s):
                answer = await self._answer(label)
            stages = await asyncio.to_thread(_stages_of, answer, self._stages)
        except Exception as error:  # whatever an answer does to the library that reads it
            raise DescriptionUnavailableError(why_undescribed(error)) from error
        try:
            await self._store.put_text(key, json.dumps(stages).encode(), ttl_s=self._limits.ttl_s)
        except StoreError as error:
            logger.warning("A description could not be kept: %s", error)
        return stages

    async def _answer(self, label: str) -> bytes:
        """Ask with structured output, and plainly where the endpoint does not know that."""
        if self._structured:
            try:
                return await self._call(label, structured=True)
            except openai.APIStatusError as error:
                if error.status_code not in UNSUPPORTED:
                    raise
        answer = await self._call(label, structured=False)
        self._structured = False
        return answer

    async def _call(self, label: str, *, structured: bool) -> bytes:
        create = self._completions.create
        asked = cast("list[ChatCompletionMessageParam]", messages(label, self._stages))
        if structured:
            form: ResponseFormatJSONSchema = {
                "type": "json_schema",
                "json_schema": {
                    "name": "stages",
                    "strict": True,
                    "schema": answer_schema(self._stages),
                },
            }
            answer = await create(model=self._model, messages=asked, response_format=form)
        else:
            answer = await create(model=self._model, messages=asked)
        return answer.content

    def _key(self, label: str, owner: str) -> str:
        question = [PROMPT_VERSION, LANGUAGE, self._model, owner, spoken(label), self._stages]
        return f"description:{hashlib.sha256(json.dumps(question).encode()).hexdigest()}"


def describer_from(
    *,
    api_key: str | None,
    base_url: str | None,
    model: str,
    store: TaskStore,
    stages: int = STAGES,
    ttl_s: float = KEEP_S,
) -> Describer:
    """Return a describer that asks an endpoint, or openai's with a key."""
    client = client_of(api_key, base_url)
    limits = DescriberLimits(ttl_s=ttl_s)
    return Describer(client, model, store, stages=stages, limits=limits)


def _stages_of(answer: bytes, count: int) -> StageTexts:
    """Read an answer of up to a mebibyte, off the loop.

    Raises:
        DescriptionError: It cannot be used; the message repeats nothing of it.
    """
    if too_long(answer):
        raise DescriptionError(f"The answer is of no use: it is over {MOST_ANSWER_BYTES} bytes.")
    content = content_of(answer)
    try:
        return parse_stages(content, count)
    except DescriptionError as error:
        wanted = counted(count, "short sentence")
        raise DescriptionError(f"The answer is of no use: its text is not {wanted}.") from error


def why_undescribed(error: Exception) -> str:
    """Say in a sentence what an endpoint did wrong: no key, no label, no word of its answer."""
    if isinstance(error, DescriptionError):
        return f"The language model gave no description. {error}"
    if isinstance(error, openai.APIStatusError):
        remedy = REMEDIES.get(error.status_code, "ask its operator")
        return f"The language model's endpoint answered with status {error.status_code}; {remedy}."
    if isinstance(error, (TimeoutError, openai.APITimeoutError)):
        return "The language model gave no answer in time; see whether its endpoint is overloaded."
    kind = type(error.__cause__ or error).__name__
    return f"The language model's endpoint cannot be asked ({kind}); check KSHOT_LLM_BASE_URL."
