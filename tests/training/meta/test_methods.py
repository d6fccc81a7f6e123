"""Presets with changes: Task-Adapter and its successor as published, AIM whole and cut."""

import pytest
import torch
from torch.nn import functional as F

from model.config.blocks import TaskConfig
from model.methods import METHODS
from tests.model.tiny import LABELS, tiny_recognizer, tiny_text
from training.errors import InputError
from training.meta.choice import MethodChanges, MethodChoice
from training.meta.methods import BY_LABEL, changed


def test_task_adapter_pp_can_be_trained_as_published() -> None:
    changes = MethodChanges(
        query_context="joint", align="joint", align_norm=True, stage_cosine="mean",
        zero_init=False, at_input=True,
    )  # fmt: skip
    method = changed(METHODS["task_adapter_pp"], changes)
    assert (method.query_context, method.align, method.align_norm) == ("joint", "joint", True)
    assert (method.stage_cosine, method.temporal_embedding) == ("mean", "input")
    assert isinstance(method.visual, TaskConfig)
    assert not method.visual.zero_init


def test_changes_that_came_later_are_no_part_of_an_older_claim() -> None:
    plain = MethodChoice(preset="aim_top", backbone="compact").claim()
    assert not {"tune", "text", "align", "align_norm", "stage_cosine", "zero_init"} & plain.keys()
    own = MethodChoice(preset="aim_top", backbone="compact", align="joint", text="label").claim()
    assert (own["align"], own["text"]) == ("joint", "label")


def test_the_start_of_task_adapters_is_refused_where_there_are_none() -> None:
    with pytest.raises(InputError, match="a method without them"):
        changed(METHODS["aim"], MethodChanges(zero_init=False))


@torch.inference_mode()
def test_task_adapter_scores_one_sentence_of_a_label_against_the_mean_frame() -> None:
    method = changed(METHODS["task_adapter"], MethodChanges(text="label"))
    assert (method.stages, method.prompt) == (1, "a photo of action about {spelled}")
    recognizer = tiny_recognizer("task_adapter", **BY_LABEL | {"prompt": "{stage}"})
    text_NAE = tiny_text(recognizer, LABELS[:3])
    assert text_NAE is not None
    query_QTE = torch.randn(2, 8, recognizer.video.tower.features)
    text_QN, stages = recognizer.text_head(query_QTE, text_NAE)
    assert stages is None
    wanted = F.cosine_similarity(query_QTE.mean(dim=1)[:, None], text_NAE[None, :, 0], dim=-1)
    torch.testing.assert_close(text_QN, wanted)
    shuffled, _ = recognizer.text_head(query_QTE.flip(1), text_NAE)
    torch.testing.assert_close(shuffled, text_QN)


def test_aim_is_whole_and_its_cut_adapts_the_top() -> None:
    whole, cut = METHODS["aim"], METHODS["aim_top"]
    assert whole.visual is not None
    assert cut.visual is not None
    assert (whole.visual.blocks, cut.visual.blocks) == (12, 6)
    assert whole.tower_parts == ("last_norm",)
    assert whole.temporal_embedding == "input"
    assert (cut.tower_parts, cut.temporal_embedding) == ((), "first_adapted")
