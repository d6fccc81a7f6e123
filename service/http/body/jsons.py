"""JSON bodies -> drafts."""

import binascii
from itertools import count

from model.errors import ClipError, ClipTooLargeError, PictureCountError
from service.decoding.pool import ClipRequest
from service.errors import (
    Base64Error,
    DescriptionsMixedError,
    FieldFault,
    InvalidRequestError,
)
from service.http.body.fields import (
    read_descriptions,
    read_label,
    read_name,
    read_stages,
    read_ttl,
    refuse_unknown,
)
from service.http.schemas import ClipBody, QueryBody, TaskBody
from service.settings import Settings
from service.tasks.drafts import ClipDraft, LabelDraft, TaskDraft, check_query_count


def task_of_json(body: TaskBody, settings: Settings) -> TaskDraft:
    """Read a task out of a JSON body.

    Raises:
        RequestError: A label, a description or a clip is not written as it must be.
    """
    index = count()
    texts = read_descriptions(body.descriptions)
    labels = []
    for place, item in enumerate(body.labels):
        label = read_label(item.label, settings)
        stages = texts.pop(label, None)
        if item.descriptions is not None:
            if body.descriptions is not None:
                raise DescriptionsMixedError(
                    f"Descriptions of {label!r} stand both in its label and beside the labels; "
                    "give them in one place."
                )
            stages = read_stages(label, item.descriptions)
        clips = tuple(
            ClipDraft(next(index), _clip(clip, f"labels.{place}.clips.{number}", settings))
            for number, clip in enumerate(item.clips)
        )
        labels.append(LabelDraft(label, stages, clips))
    refuse_unknown(texts, "descriptions")
    return TaskDraft(
        name=read_name(body.name, settings),
        ttl_s=read_ttl(body.ttl_s, settings),
        allow_partial=body.allow_partial,
        labels=tuple(labels),
    )


def query_of_json(body: QueryBody, settings: Settings) -> tuple[ClipDraft, ...]:
    """Read the clips of a JSON body.

    Raises:
        RequestError: A clip is not written as it must be.
    """
    check_query_count(len(body.clips), settings)
    return tuple(
        ClipDraft(index, _clip(clip, f"clips.{index}", settings))
        for index, clip in enumerate(body.clips)
    )


def _clip(body: ClipBody, field: str, settings: Settings) -> ClipRequest | ClipError:
    if (body.video is None) == (body.frames is None):
        which = "both video and frames" if body.video is not None else "neither video nor frames"
        raise InvalidRequestError(
            f"{field} has {which}; give exactly one of them.", [FieldFault(field, which)]
        )
    texts = body.frames if body.video is None else [body.video]
    assert texts is not None
    size = sum(len(text) for text in texts) * 3 // 4
    if size > settings.max_base64_bytes + 2 * len(texts):
        return ClipTooLargeError(
            f"A clip in JSON has about {size} bytes; at most {settings.max_base64_bytes} "
            "go into JSON, so send it as a multipart file or shorten it."
        )
    parts = tuple(_bytes(text, field) for text in texts)
    if body.video is not None:
        return ClipRequest(video=parts[0], start_s=body.start_s, end_s=body.end_s)
    if not parts:
        return PictureCountError(
            f"{field}.frames is empty; give {settings.min_pictures} to {settings.max_pictures} "
            "pictures in order."
        )
    return ClipRequest(video=None, pictures=parts, start_s=body.start_s, end_s=body.end_s)


def _bytes(text: str, field: str) -> bytes:
    try:
        return binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError):
        raise Base64Error(
            f"{field} starts with {text[:24]!r} and is not base64; "
            "encode the file's bytes by RFC 4648, without line breaks or a data: prefix.",
            [FieldFault(field, "not base64")],
        ) from None
