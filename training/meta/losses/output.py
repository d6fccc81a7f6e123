"""What a recogniser made of one training episode: the value that losses are functions of.

Dimensions: Q queries, B = supports and queries, T frames, N classes, C classes of
training, A stages, E feature width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from model.config.method import MethodConfig
from model.text import StageTexts


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeOutput:
    """One training episode, encoded and scored with gradients.

    Args:
        logits_QN: Answers to the queries, divided by `temperature`.
        again_QN: Answers to other draws of the same queries [0 or Q, N].
        video_QN: Video scores of the queries.
        wanted_Q: The right classes.
        features_BTE: Frame features of supports, then queries.
        classes_B: Class of each of these clips.
        base_B: Class of each of these clips among all that are trained on.
        text_NAE: Stage features of the classes; None in an episode without text.
        stages: Stage texts of the classes, where they have any.
        described: Whether all classes have text, although this episode may leave it out.
        base_text_CAE: Encodes the texts of all classes that are trained on, those that `base_B`
            counts; None where one has no text. With gradients where text is learned.
        text_scale: What the text head multiplies cosines with; a weight where that is learned.
        edges: Gives what joins the classes and each query after each layer of the prototypes' graph
            (`QueryPrototypes.edges`); nothing where there is no graph.
        config: How the recogniser scores.
        temperature: What the loss divides logits by.
        smoothing: Share of the right answer that is spread over all classes.
        frozen_BTE: Computes the frozen tower's features of the same clips, without gradient.
        start_BTE: Computes those of the weights that the training started from, without gradient.
    """

    logits_QN: Tensor
    again_QN: Tensor
    video_QN: Tensor
    wanted_Q: Tensor
    features_BTE: Tensor
    classes_B: tuple[int, ...]
    base_B: Tensor
    text_NAE: Tensor | None
    stages: tuple[StageTexts, ...]
    described: bool
    base_text_CAE: Callable[[], Tensor | None]
    text_scale: Tensor | float
    edges: Callable[[], Sequence[Tensor]]
    config: MethodConfig
    temperature: float
    smoothing: float
    frozen_BTE: Callable[[], Tensor]
    start_BTE: Callable[[], Tensor]
