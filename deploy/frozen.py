"""The frozen method that an untrained one equals: the same scores, without passing its adapters.

Adapters at their start compute nothing (design, invariant 5), but they look at the whole task, so
every episode would pass through their blocks again. The frozen tower's features are taken once.
"""

from dataclasses import replace

from model.encoder import VideoEncoder
from model.recognizer import Recognizer


def without_untrained_adapters(recognizer: Recognizer) -> Recognizer:
    """Give the frozen counterpart of an untrained recognizer, and a trained one as it is."""
    if recognizer.trained:
        return recognizer
    config = replace(recognizer.config, visual=None, query_context="none")
    video = VideoEncoder(
        recognizer.video.tower,
        (),
        frames=config.frames,
        temporal_embedding=config.temporal_embedding,
        query_context=config.query_context,
    )
    return Recognizer(
        config,
        video,
        recognizer.text,
        name=recognizer.name,
        fingerprint=recognizer.fingerprint,
    ).eval()
