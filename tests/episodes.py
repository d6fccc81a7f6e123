"""An episode scored in one masked pass, as training does: what the served way is compared with."""

from collections.abc import Sequence

from torch import Tensor

from model.episode import Scores, checked_classes
from model.recognizer import Recognizer


def score_episode(
    recognizer: Recognizer,
    tokens_STLD: Tensor,
    classes: Sequence[int],
    tokens_QTLD: Tensor,
    text_NAE: Tensor | None,
) -> Scores:
    """Score the queries of one episode from the trunk's tokens of its clips."""
    classes_S = checked_classes(classes, len(tokens_STLD)).to(tokens_STLD.device)
    support_GSTE, query_GQTE = recognizer.encode_episodes(
        tokens_STLD[None],
        classes_S,
        tokens_QTLD[None],
        None if text_NAE is None else text_NAE[None],
    )
    return recognizer.score_features(support_GSTE[0], classes_S, query_GQTE[0], text_NAE)
