"""Descriptions of labels by a language model, through any OpenAI-compatible endpoint.

A label is untrusted text: it is quoted as data, and an answer that is not three short sentences is
refused whole. No registration waits for this module; where it fails, template text stays.
"""

import asyncio
import hashlib
import json
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import openai
from openai.types.chat import ChatCompletion, ChatCompletionMessageParam
from openai.types.shared_params import ResponseFormatJSONSchema

from model.errors import DescriptionError, KshotError
from model.text import (
    MAX_LABEL_CHARS,
    PROMPT_VERSION,
    STAGES,
    StageTexts,
    answer_schema,
    check_stages,
    clean,
    messages,
    parse_stages,
    spoken,
)
from service.stores.errors import StoreError
from service.stores.protocol import TaskStore
from service.tasks.breaker import Breaker

logger = logging.getLogger(__name__)

LANGUAGE = "en"
KEEP_S = 30 * 86_400.0

_FORMAT: ResponseFormatJSONSchema = {
    "type": "json_schema",
    "json_schema": {"name": "stages", "strict": True, "schema": answer_schema(STAGES)},
}
_UNSUPPORTED = {400, 415, 422, 501}  # answers of endpoints that know no structured output
_PASSING = {408, 409, 425, 429}  # and everything from 500 on


class DescriptionUnavailableError(KshotError):
    """The language model gave no usable description; template text stays."""

    code = "description-unavailable"


@dataclass(frozen=True, slots=True, kw_only=True)
class DescriberLimits:
    """How long, how often and how many at once a language model is asked."""

    call_s: float = 10.0  # one call
    total_s: float = 25.0  # one label, waiting and retries included
    retries: int = 2  # calls after the first
    backoff_s: float = 0.5  # before the first retry; doubles
    concurrency: int = 4  # calls at once
    failures: int = 3  # consecutive labels that fail for the endpoint's sake until calls stop
    pause_s: float = 60.0  # how long they stop
    ttl_s: float = KEEP_S  # how long an answer is kept


class Describer:
    """Asks a language model for the three stages of a label, once per label.

    Args:
        client: Where to ask; its own retries and time limit are not used.
        model: The model's name at the endpoint.
        store: Keeps the answers.
        limits: Times and counts.
        salt: Separates cached answers of parties that must not notice each other's labels.
        now: The breaker's clock, in seconds.
    """

    def __init__(
        self,
        client: openai.AsyncOpenAI,
        model: str,
        store: TaskStore,
        *,
        limits: DescriberLimits | None = None,
        salt: str = "",
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits or DescriberLimits()
        self._client = client.with_options(max_retries=0, timeout=self._limits.call_s)
        self._model = model
        self._store = store
        self._salt = salt
        self._structured = True
        self._slots = asyncio.Semaphore(self._limits.concurrency)
        self._breaker = Breaker(self._limits.failures, self._limits.pause_s, now)
        self._flights: dict[str, asyncio.Task[StageTexts]] = {}

    async def cached(self, label: str) -> StageTexts | None:
        """Return the stages of a label when they are at hand; never asks the model."""
        key = self._key(label)
        try:
            kept = await self._store.get_text(key)
            return None if kept is None else check_stages(json.loads(kept))
        except (StoreError, DescriptionError, ValueError) as error:
            logger.warning("A cached description could not be read: %s", error)
            return None

    async def describe(self, label: str) -> StageTexts:
        """Return the stages of a label; callers for one label at a time share one request.

        Raises:
            DescriptionUnavailableError: no endpoint, no answer in time, or none of use.
        """
        if not clean(label) or len(label) > MAX_LABEL_CHARS:
            raise DescriptionUnavailableError(
                f"A label of {len(label)} characters is not described; use 1 to {MAX_LABEL_CHARS}."
            )
        key = self._key(label)
        if (flight := self._flights.get(key)) is None:
            flight = asyncio.create_task(self._fly(key, label))
            self._flights[key] = flight
            flight.add_done_callback(lambda _: self._flights.pop(key, None))
        return await asyncio.shield(flight)  # one caller leaving must not take it from the others

    async def close(self) -> None:
        """Drop what is under way and let go of the connections."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)
        await self._client.close()

    async def _fly(self, key: str, label: str) -> StageTexts:
        if (kept := await self.cached(label)) is not None:
            return kept
        deadline = asyncio.get_running_loop().time() + self._limits.total_s
        try:
            async with asyncio.timeout_at(deadline):
                await self._slots.acquire()
        except TimeoutError as error:
            raise _unavailable(label, "no free slot in time") from error
        try:
            stages = _stages(label, await self._answer(label, deadline))
        finally:
            self._slots.release()
        try:
            await self._store.put_text(key, json.dumps(stages).encode(), ttl_s=self._limits.ttl_s)
        except StoreError as error:
            logger.warning("A description could not be kept: %s", error)
        return stages

    async def _answer(self, label: str, deadline: float) -> str:
        """Call, and call again where that can help, until there is an answer or no time."""
        loop = asyncio.get_running_loop()
        structured = self._structured
        fault: Exception = TimeoutError()
        for attempt in range(1 + self._limits.retries):
            if not self._breaker.admits():
                raise _unavailable(label, f"failing, left alone for {self._breaker.pause_s:g} s")
            try:
                async with asyncio.timeout_at(min(deadline, loop.time() + self._limits.call_s)):
                    answer = await self._call(label, structured=structured)
            except (openai.OpenAIError, TimeoutError, ValueError) as error:
                fault = error
                if structured and _status(error) in _UNSUPPORTED:
                    structured = False
                    continue
                pause_s = self._pause_s(error, attempt)
                if pause_s is None or loop.time() + pause_s >= deadline:
                    break
                await asyncio.sleep(pause_s)
            else:
                self._structured = structured
                self._breaker.succeeded()
                return answer
        self._breaker.failed()
        raise _unavailable(label, _reason(fault)) from fault

    async def _call(self, label: str, *, structured: bool) -> str:
        create = self._client.chat.completions.create
        asked = cast("list[ChatCompletionMessageParam]", messages(label))
        completion: object
        if structured:
            completion = await create(model=self._model, messages=asked, response_format=_FORMAT)
        else:
            completion = await create(model=self._model, messages=asked)
        if not isinstance(completion, ChatCompletion) or not completion.choices:
            raise ValueError("The endpoint's answer is no chat completion.")
        choice = completion.choices[0]
        cut = choice.finish_reason in {"length", "content_filter"} or choice.message.refusal
        return "" if cut else choice.message.content or ""

    def _pause_s(self, error: Exception, attempt: int) -> float | None:
        """Return how long to wait before the next call; None when there should be none."""
        status = _status(error)
        passing = isinstance(error, (openai.APIConnectionError, TimeoutError)) or (
            status is not None and (status in _PASSING or status >= 500)
        )
        if not passing or attempt >= self._limits.retries:
            return None
        backoff_s = self._limits.backoff_s * 2.0**attempt * random.uniform(0.8, 1.2)
        return max(backoff_s, _retry_after_s(error))

    def _key(self, label: str) -> str:
        parts = [PROMPT_VERSION, LANGUAGE, self._model, self._salt, spoken(label)]
        return f"description:{hashlib.sha256(json.dumps(parts).encode()).hexdigest()}"


def describer_from(
    *,
    api_key: str | None,
    base_url: str | None,
    model: str,
    store: TaskStore,
    ttl_s: float = KEEP_S,
    salt: str = "",
) -> Describer | None:
    """Return a describer, or None where neither a key nor an endpoint is configured.

    An endpoint without a key, such as a local one, is sent a placeholder.
    """
    if not api_key and not base_url:
        return None
    client = openai.AsyncOpenAI(api_key=api_key or "none", base_url=base_url)
    return Describer(client, model, store, limits=DescriberLimits(ttl_s=ttl_s), salt=salt)


def _stages(label: str, answer: str) -> StageTexts:
    try:
        return parse_stages(answer)
    except (DescriptionError, RecursionError) as error:
        raise _unavailable(
            label, "unusable answer" if answer else "refused, or cut short"
        ) from error


def _unavailable(label: str, reason: str) -> DescriptionUnavailableError:
    return DescriptionUnavailableError(
        f"The language model gave no description of {label!r} ({reason}); "
        "template text is used, and the task can be given descriptions of its own."
    )


def _status(error: Exception) -> int | None:
    return error.status_code if isinstance(error, openai.APIStatusError) else None


def _reason(error: Exception) -> str:
    if (status := _status(error)) is not None:
        return f"status {status}"
    late = isinstance(error, (TimeoutError, openai.APITimeoutError))
    return "no answer in time" if late else type(error).__name__


def _retry_after_s(error: Exception) -> float:
    if not isinstance(error, openai.APIStatusError):
        return 0.0
    try:
        return float(error.response.headers.get("retry-after", 0))
    except ValueError:  # a date: rare, and the back-off is good enough
        return 0.0
