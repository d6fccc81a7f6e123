"""Supports and class text to classes."""

from typing import assert_never

from model.config.prototypes import (
    GraphPrototypes,
    MeanPrototypes,
    PrototypesConfig,
    TextGuidedPrototypes,
    TextTokenPrototypes,
)
from model.errors import MethodError
from model.prototypes import graph, mean, text_guided, text_token
from model.slots import Prototypes


def build_prototypes(config: PrototypesConfig, features: int, *, keep_shots: bool) -> Prototypes:
    """Build what makes classes of supports.

    Args:
        config: Which.
        features: Width of a frame's features.
        keep_shots: Whether the matcher reads each shot.

    Raises:
        MethodError: Heads that do not divide the width.
    """
    match config:
        case MeanPrototypes():
            return mean.MeanPrototypes(keep_shots=keep_shots)
        case TextTokenPrototypes():
            _check_heads(config.heads, features)
            layers = [
                text_token.Layer(
                    features,
                    heads=config.heads,
                    hidden=config.hidden,
                    dropout=config.dropout,
                    mlp_dropout=config.mlp_dropout,
                )
                for _ in range(config.depth)
            ]
            return text_token.TextTokenPrototypes(
                layers, merge_before=config.merge_before, keep_shots=keep_shots
            )
        case TextGuidedPrototypes(heads=heads, hidden=hidden, merge_before=merge):
            _check_heads(heads, features)
            return text_guided.TextGuidedPrototypes(
                features, heads=heads, hidden=hidden, merge_before=merge, keep_shots=keep_shots
            )
        case GraphPrototypes(layers=layers, hidden=hidden, ratio=ratio, joint=joint):
            return graph.GraphPrototypes(
                features, hidden=hidden, layers=layers, ratio=ratio, joint=joint
            )
        case _:
            assert_never(config)


def _check_heads(heads: int, features: int) -> None:
    if features % heads:
        raise MethodError(
            f"{heads} heads do not divide features of width {features}; choose another number."
        )
