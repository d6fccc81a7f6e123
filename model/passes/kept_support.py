"""Encoded supports as bytes and back: what a store keeps, so that nobody encodes them again.

The bytes are safetensors: names, types and numbers, and nothing that runs. What is read is checked
against what it says of itself, as somebody else may have written it.

Dimensions: S clips, N classes, K shots of a class, T frames, E feature width, A stages, P sites, H
heads, M memory entries, W width of a head.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from model.episode import ClassSet, EncodedSupport, Memory, SupportClips
from model.errors import EpisodeError
from model.fusion import TaskCalibration
from model.matching.trust import TextTrust

FORMAT = 2  # counts up when the same weights and pictures give other supports, or other bytes
ABOUT = "about"  # the tensor whose bytes are JSON: all that is no tensor


def to_bytes(support: EncodedSupport) -> bytes:
    """Write supports down."""
    classes = support.classes
    tensors = {"prototype_NTE": classes.prototype_NTE}
    tensors |= {f"shots_KTE.{place}": shots for place, shots in enumerate(classes.shots)}
    if classes.centre_NE is not None:
        tensors["centre_NE"] = classes.centre_NE
    if classes.trust is not None:
        tensors |= {"level_N": classes.trust.level_N, "weight_N": classes.trust.weight_N}
    if support.text_NAE is not None:
        tensors["text_NAE"] = support.text_NAE
    if support.clips is not None:
        tensors["features_STE"] = support.clips.features_STE
    for place, memory in enumerate(support.memories):
        if memory is not None:
            tensors[f"keys_PHMW.{place}"] = memory.keys_PHMW
            tensors[f"values_PHMW.{place}"] = memory.values_PHMW
    about = {
        "format": FORMAT,
        "counts": classes.counts,
        "memories": len(support.memories),
        "fingerprint": support.fingerprint,
        "text_inside": support.text_inside,
        "by_video": [support.by_video.scale, support.by_video.threshold],
        "by_text": [support.by_text.scale, support.by_text.threshold],
        "clips": None
        if support.clips is None
        else {"classes": support.clips.classes, "names": support.clips.names},
    }
    tensors[ABOUT] = torch.frombuffer(bytearray(json.dumps(about).encode()), dtype=torch.uint8)
    # A copy each: shots are views of one tensor, which safetensors refuses.
    return save({name: one.to("cpu", copy=True).contiguous() for name, one in tensors.items()})


def from_bytes(content: bytes, device: torch.device) -> EncodedSupport:
    """Read supports.

    Args:
        content: From `to_bytes`.
        device: Where their tensors go.

    Raises:
        EpisodeError: These are no supports, or of another format.
    """
    try:
        tensors = load(content)
        about = json.loads(tensors.pop(ABOUT).numpy().tobytes())
        if about["format"] != FORMAT:
            raise ValueError(f"format {about['format']!r}")
        # A copy is dense and aligned, and does not hold on to the bytes of all.
        here = {name: tensor.to(device, copy=True) for name, tensor in tensors.items()}
        support = _support(here, about)
        if here:
            raise ValueError(f"tensors {sorted(here)}")
    except (SafetensorError, KeyError, TypeError, ValueError, IndexError) as error:
        raise EpisodeError(
            f"These are no encoded supports of format {FORMAT} ({error}); encode them again."
        ) from error
    return support


def _support(tensors: dict[str, Tensor], about: Mapping[str, Any]) -> EncodedSupport:
    """Put supports together of their tensors, and take these away."""
    counts = tuple(int(count) for count in about["counts"])
    prototype_NTE = tensors.pop("prototype_NTE")
    if len(prototype_NTE) != len(counts):
        raise ValueError(f"{len(prototype_NTE)} prototypes of {len(counts)} classes")
    has_shots = any(name.startswith("shots_KTE.") for name in tensors)
    shots = tuple(tensors.pop(f"shots_KTE.{place}") for place in range(len(counts) * has_shots))
    return EncodedSupport(
        ClassSet(prototype_NTE, counts, shots, tensors.pop("centre_NE", None), _trust(tensors)),
        tuple(_memory(tensors, place) for place in range(int(about["memories"]))),
        tensors.pop("text_NAE", None),
        str(about["fingerprint"]),
        text_inside=bool(about["text_inside"]),
        by_video=_calibration(about["by_video"]),
        by_text=_calibration(about["by_text"]),
        clips=None if about["clips"] is None else _clips(tensors, about["clips"]),
    )


def _trust(tensors: dict[str, Tensor]) -> TextTrust | None:
    if "level_N" not in tensors:
        return None
    return TextTrust(tensors.pop("level_N"), tensors.pop("weight_N"))


def _clips(tensors: dict[str, Tensor], about: Mapping[str, Any]) -> SupportClips:
    features_STE = tensors.pop("features_STE")
    classes = tuple(int(place) for place in about["classes"])
    names = tuple(str(name) for name in about["names"])
    if len(features_STE) != len(classes) or len(names) not in (0, len(classes)):
        raise ValueError(f"{len(features_STE)} features of {len(classes)} clips")
    return SupportClips(features_STE, classes, names)


def _memory(tensors: dict[str, Tensor], place: int) -> Memory | None:
    if f"keys_PHMW.{place}" not in tensors:
        return None
    return Memory(tensors.pop(f"keys_PHMW.{place}"), tensors.pop(f"values_PHMW.{place}"))


def _calibration(numbers: Sequence[float]) -> TaskCalibration:
    scale, threshold = numbers
    return TaskCalibration(float(scale), float(threshold))
