"""Sentences of the stages of all classes of a data set, by a language model."""

import os
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import openai
from openai.types.chat import ChatCompletion, ChatCompletionMessageParam
from openai.types.shared_params import ResponseFormatJSONSchema

from model.errors import DescriptionError
from model.text import (
    MAX_LABEL_CHARS,
    STAGES,
    StageTexts,
    answer_schema,
    clean,
    messages,
    parse_stages,
    spoken,
)
from training.data.descriptions_file import SUFFIXES, read_descriptions, write_descriptions
from training.data.listed import read_labels
from training.data.listings import Split
from training.errors import InputError
from training.progress import progress

MODEL = "gpt-4o-mini"  # as the service's llm_model
CALL_S = 60.0
RETRIES = 4  # of one call, by the client, which waits longer each time
ANSWERS = 3  # asked for one label until one can be used
SAVE_EVERY = 5  # answers
_FORMAT: ResponseFormatJSONSchema = {
    "type": "json_schema",
    "json_schema": {"name": "stages", "strict": True, "schema": answer_schema(STAGES)},
}
_UNSUPPORTED = {400, 415, 422, 501}  # answers of endpoints that know no structured output


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribeJob:
    """Which labels are to be described, and where."""

    data: Path
    names: Path | None  # of classes that are only numbered
    splits: tuple[Split, ...]
    out: Path
    concurrency: int  # labels asked at once


@dataclass(frozen=True, slots=True)
class Described:
    """Counts of labels, and the reason for each that got no description."""

    labels: int
    kept: int  # described before
    added: int
    failed: dict[str, str]


class StageWriter:
    """Asks a language model for the stages of labels; may be shared by threads.

    Args:
        client: Of the endpoint; it retries passing failures itself.
        model: The model's name at the endpoint.
    """

    def __init__(self, client: openai.OpenAI, model: str) -> None:
        self._client = client
        self._model = model
        self._structured = True

    def stages(self, label: str) -> StageTexts:
        """Return the stages of one label.

        Raises:
            DescriptionError: No answer can be used.
            InputError: The endpoint gives no answer.
        """
        if not clean(label) or len(label) > MAX_LABEL_CHARS:
            raise DescriptionError(
                f"A label of {len(label)} characters is not described; use 1 to {MAX_LABEL_CHARS}."
            )
        for _ in range(ANSWERS - 1):
            try:
                return parse_stages(self._answer(label))
            except DescriptionError:
                continue  # a model may answer better when it is asked again
        return parse_stages(self._answer(label))

    def _answer(self, label: str) -> str:
        structured = self._structured
        try:
            return self._call(label, structured=structured)
        except openai.APIStatusError as error:
            if not structured or error.status_code not in _UNSUPPORTED:
                raise _unusable(self._client, error) from error
        except openai.APIConnectionError as error:
            raise _unusable(self._client, error) from error
        try:
            answer = self._call(label, structured=False)
        except (openai.APIStatusError, openai.APIConnectionError) as error:
            raise _unusable(self._client, error) from error
        self._structured = False
        return answer

    def _call(self, label: str, *, structured: bool) -> str:
        create = self._client.chat.completions.create
        asked = cast("list[ChatCompletionMessageParam]", messages(label))
        completion: object
        try:
            if structured:
                completion = create(model=self._model, messages=asked, response_format=_FORMAT)
            else:
                completion = create(model=self._model, messages=asked)
        except (ValueError, openai.APIResponseValidationError) as error:
            raise DescriptionError("The answer is no JSON; give another endpoint.") from error
        if not isinstance(completion, ChatCompletion) or not completion.choices:
            raise DescriptionError("The answer is no chat completion; give another endpoint.")
        choice = completion.choices[0]
        cut = choice.finish_reason in {"length", "content_filter"} or choice.message.refusal
        return "" if cut else choice.message.content or ""


def _unusable(client: openai.OpenAI, error: openai.APIError) -> InputError:
    status = getattr(error, "status_code", None)
    reason = f"status {status}" if status else type(error).__name__
    return InputError(
        f"The language model at {client.base_url} gives no answer ({reason}); check "
        "KSHOT_LLM_BASE_URL, KSHOT_LLM_MODEL and OPENAI_API_KEY, then go on with the same command."
    )


def add_descriptions(
    labels: Iterable[str], writer: StageWriter, out: Path, *, concurrency: int
) -> Described:
    """Add the stages of every label that a file lacks.

    Args:
        labels: The labels.
        writer: Asks the language model.
        out: YAML or JSON; written after every few answers.
        concurrency: Labels asked at once.

    Raises:
        InputError: The file cannot be read or written, or the endpoint gives no answer; the answers
            so far are in the file.
    """
    held = read_descriptions(out) if out.is_file() else {}
    wanted = {spoken(label): label for label in labels}
    todo = [label for words, label in wanted.items() if words not in held]
    failed: dict[str, str] = {}
    added: dict[str, StageTexts] = {}
    saved = 0
    pool = ThreadPoolExecutor(concurrency)
    asked = {pool.submit(writer.stages, label): label for label in todo}
    try:
        for future in progress(
            as_completed(asked), desc="describing", total=len(todo), unit="class"
        ):
            _take(future, asked[future], added, failed)
            if len(added) >= saved + (SAVE_EVERY if saved else 1):
                write_descriptions(out, held | added)
                saved = len(added)
    finally:
        pool.shutdown(cancel_futures=True)
        if len(added) > saved:
            write_descriptions(out, held | added)
    return Described(len(wanted), len(wanted) - len(todo), len(added), failed)


def _take(
    future: Future[StageTexts], label: str, added: dict[str, StageTexts], failed: dict[str, str]
) -> None:
    try:
        added[label] = future.result()
    except DescriptionError as error:
        failed[label] = str(error)


def describe(job: DescribeJob) -> Described:
    """Describe the classes of a data set that the file lacks.

    Raises:
        InputError: The job or the data cannot be used, there is no language model, or as
            `add_descriptions`.
    """
    if job.out.suffix.lower() not in SUFFIXES:
        raise InputError(f"{job.out} ends in none of {', '.join(SUFFIXES)}; rename it.")
    if job.concurrency < 1:
        raise InputError(f"--concurrency {job.concurrency} asks nothing; give 1 or more.")
    key, address = os.environ.get("OPENAI_API_KEY"), os.environ.get("KSHOT_LLM_BASE_URL")
    if not key and not address:
        raise InputError("There is no language model; set OPENAI_API_KEY or KSHOT_LLM_BASE_URL.")
    labels, named = read_labels(job.data, names=job.names)
    if not named:
        raise InputError(f"{job.data} only numbers its classes; give their names with --names.")
    chosen = [label for split in job.splits for label in labels[split]]
    with openai.OpenAI(
        api_key=key or "none", base_url=address or None, max_retries=RETRIES, timeout=CALL_S
    ) as client:
        writer = StageWriter(client, os.environ.get("KSHOT_LLM_MODEL") or MODEL)
        return add_descriptions(chosen, writer, job.out, concurrency=job.concurrency)
