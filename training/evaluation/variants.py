"""The same weights put together otherwise: without adapters, or under another query context."""

from collections.abc import Sequence
from dataclasses import replace

from model.assembly.recognizer import build_recognizer
from model.config.method import QueryContext
from model.recognizer import Recognizer
from training.errors import InputError


def without_adapters(recognizer: Recognizer) -> Recognizer:
    """Return the same towers alone, which an untrained method equals (README.md, invariant 5)."""
    text = None if recognizer.text is None else recognizer.text.tower
    config = replace(recognizer.config, visual=None, text=None, temporal=None, query_context="none")
    bare = build_recognizer(config, recognizer.video.tower, text, name=recognizer.name)
    bare.to(recognizer.device).calibrate(recognizer.calibration)
    return bare


def as_evaluated(recognizer: Recognizer) -> Recognizer:
    """Leave out adapters that are untrained: the same answers for less work."""
    return recognizer if recognizer.trained else without_adapters(recognizer)


def variants(recognizer: Recognizer, contexts: Sequence[QueryContext]) -> list[Recognizer]:
    """Return a recogniser, then its weights under other contexts.

    One whose own answers are transductive is followed by itself with queries that stand alone.

    Raises:
        InputError: nothing in the recogniser attends across clips, so contexts change nothing.
    """
    own = recognizer.config.query_context
    across = recognizer.video.across_clips
    if contexts and not across:
        raise InputError(
            f"{recognizer.name!r} has no task adapter, so what its queries attend to cannot "
            "change; leave out --contexts."
        )
    found = [recognizer]
    if recognizer.transductive:
        found.append(under_context(recognizer, "self" if across or own == "joint" else own))
    made = {one.config.query_context for one in found}
    others = [context for context in dict.fromkeys(contexts) if context not in made]
    return found + [under_context(recognizer, context) for context in others]


def under_context(recognizer: Recognizer, context: QueryContext) -> Recognizer:
    """Return the same weights with queries that attend to something else; towers are shared.

    Under a served context, stages are not aligned over queries either: `identity` is what `joint`
    gives a query that is alone, since attention to oneself doubles the frame and no cosine sees it.
    A graph then has one query.
    """
    align = recognizer.config.align
    if align == "joint" and context != "joint":
        align = "identity"
    prototypes = recognizer.config.prototypes
    if prototypes.kind == "graph" and context != "joint":
        prototypes = replace(prototypes, joint=False)
    config = replace(recognizer.config, query_context=context, align=align, prototypes=prototypes)
    text = None if recognizer.text is None else recognizer.text.tower
    changed = build_recognizer(config, recognizer.video.tower, text, name=recognizer.name)
    changed.load_state_dict(recognizer.state_dict())
    changed.to(recognizer.device).calibrate(recognizer.calibration)
    return changed
