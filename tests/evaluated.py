"""What offline evaluation says of an episode, from the bytes that a client sends.

Supports are read as the service keeps them, as JPEG: on clips of 16 pixels that alone moves a
cosine by 0.02 and more.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model.checkpoint import load_recognizer
from model.media.keeping import decode_pictures, encode_pictures
from model.recognizer import Recognizer
from model.text import template_stages
from training.data.datasets import LabelledClip
from training.data.episodes import Episode
from training.evaluation.scoring import EpisodeScorer
from training.features.clip_views import read_frames


class FrameTokens:
    """Runs the trunk on frames of clips that were read before."""

    def __init__(self, recognizer: Recognizer, clips_CTHWC: Sequence[np.ndarray]) -> None:
        self.recognizer, self.clips_CTHWC = recognizer, clips_CTHWC

    def tokens(self, clips: Sequence[int], draws: Sequence[int] | None = None) -> Tensor:
        assert draws is None
        return torch.cat([self.recognizer.trunk(self.clips_CTHWC[clip][None]) for clip in clips])


def evaluated_scores(
    checkpoint: Path,
    supports: Mapping[str, Sequence[bytes]],
    queries: Sequence[bytes],
    folder: Path,
) -> list[dict[str, tuple[float, float | None]]]:
    """Return the video score of each query by label, and the text's where the method has one.

    Args:
        checkpoint: Folder of the weights.
        supports: Video files by label.
        queries: Video files.
        folder: Empty; files are written there to be read as training reads them.
    """
    recognizer = load_recognizer(str(checkpoint))
    kept = [decode_pictures(encode_pictures(_frames(sent, folder, recognizer)))
            for sents in supports.values() for sent in sents]  # fmt: skip
    asked = [_frames(sent, folder, recognizer) for sent in queries]
    episode = Episode(
        labels=tuple(supports),
        support=tuple(range(len(kept))),
        support_classes=tuple(n for n, sents in enumerate(supports.values()) for _ in sents),
        query=tuple(range(len(kept), len(kept) + len(asked))),
        query_classes=(0,) * len(asked),
    )
    source = FrameTokens(recognizer, [*kept, *asked])
    stages = {label: template_stages(label, recognizer.config.stages) for label in supports}
    scorer = EpisodeScorer(recognizer, source, len(kept) + len(asked), stages=stages)
    [scores] = scorer.scores([episode])
    videos_QN = scores.video_QN.tolist()
    texts_QN = [[None] * len(supports)] * len(asked)
    if scores.text_QN is not None:
        texts_QN = scores.text_QN.tolist()
    return [
        dict(zip(supports, zip(*numbers, strict=True), strict=True))
        for numbers in zip(videos_QN, texts_QN, strict=True)
    ]


def _frames(sent: bytes, folder: Path, recognizer: Recognizer) -> np.ndarray:
    file = folder / "clip.mp4"
    file.write_bytes(sent)
    clip = LabelledClip(file, "any", "any")
    size, squash = recognizer.size, recognizer.squash
    return read_frames(clip, frames=recognizer.config.frames, size=size, squash=squash)
