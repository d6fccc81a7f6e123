"""Shortcuts of the encoder: what they leave out changes nothing."""

import pytest
import torch

from model.adapters.aim import ALL
from model.config.method import QueryContext
from model.recognizer import Recognizer
from model.views import alone_view
from tests.model.tiny import clips, tiny_recognizer

CLASSES = torch.tensor([0, 0, 1, 2, 2, 2])
CONTEXTS: tuple[QueryContext, ...] = ("none", "self", "support", "prototype", "joint")


@pytest.fixture(params=CONTEXTS)
def recognizer(request: pytest.FixtureRequest) -> Recognizer:
    return tiny_recognizer("task_adapter", query_context=request.param)


@torch.inference_mode()
def test_tokens_that_nobody_reads_of_the_last_block_change_no_feature(
    recognizer: Recognizer,
) -> None:
    tokens = recognizer.trunk(clips(10))
    episode = tokens[None, :6], CLASSES, tokens[None, 6:]
    short = recognizer.encode_episodes(*episode)
    recognizer.video.adapted[-1].reads = ALL
    whole = recognizer.encode_episodes(*episode)
    torch.testing.assert_close(short, whole, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_queries_of_a_task_keep_only_the_class_token_of_the_last_block() -> None:
    recognizer = tiny_recognizer("task_adapter", query_context="support")
    tokens = recognizer.trunk(clips(6))
    first, last = recognizer.encode_support(tokens, CLASSES.tolist(), None).memories
    assert first is not None
    assert last is not None
    frames, length = tokens.shape[1:3]
    assert len(first.keys_PHMW) == frames * length
    assert len(last.keys_PHMW) == frames


@torch.inference_mode()
def test_episodes_in_one_pass_equal_one_by_one(recognizer: Recognizer) -> None:
    tokens = recognizer.trunk(clips(30)).unflatten(0, (3, 10))
    together = recognizer.encode_episodes(tokens[:, :6], CLASSES, tokens[:, 6:])
    for number in range(3):
        episode = tokens[number : number + 1]
        alone = recognizer.encode_episodes(episode[:, :6], CLASSES, episode[:, 6:])
        for batch, single in zip(together, alone, strict=True):
            torch.testing.assert_close(batch[number], single[0], atol=1e-5, rtol=1e-5)


def test_gradients_of_episodes_in_one_pass_are_the_sum_of_theirs() -> None:
    recognizer = tiny_recognizer("task_adapter", query_context="support")
    video = recognizer.video
    with torch.no_grad():
        tokens = video.trunk(clips(20)).unflatten(0, (2, 10))
    trained = [
        p for p in video.parameters() if p.requires_grad and p is not video.temporal_embedding
    ]

    def gradients(part: torch.Tensor) -> list[torch.Tensor]:
        support, query = recognizer.encode_episodes(part[:, :6], CLASSES, part[:, 6:])
        return list(torch.autograd.grad((support.square().sum() + query.sin().sum()), trained))

    together = gradients(tokens)
    apart = [gradients(tokens[:1]), gradients(tokens[1:])]
    for whole, one, two in zip(together, *apart, strict=True):
        torch.testing.assert_close(whole, one + two, atol=1e-4, rtol=1e-4)


def test_one_clip_rounds_in_bfloat16_as_it_does_in_a_batch() -> None:
    video = tiny_recognizer("task_adapter").video
    with torch.inference_mode():
        for name, parameter in video.named_parameters():
            if name.endswith("bias"):
                parameter.add_(torch.randn_like(parameter))  # added before or after rounding
        video.to(torch.bfloat16)
        tokens = video.trunk(clips(6))
        together = video(tokens, alone_view("support"))
        alone = torch.cat([video(tokens[q : q + 1], alone_view("support")) for q in range(6)])
    assert (alone != together).float().mean() < 0.05  # of nearly all, where one clip stays a view
