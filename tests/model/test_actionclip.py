"""ActionCLIP: released values, sizes and starts of its heads, templates, shift, dependence."""

from pathlib import Path

import pytest
import torch
from torch import nn

from model.adapters.shift import shifted
from model.assembly.recognizer import build_recognizer
from model.assembly.temporal import build_temporal
from model.config.blocks import ShiftedConfig
from model.config.fusion import ConvexFusion
from model.config.method import MethodConfig
from model.config.temporal import (
    LstmConfig,
    MeanConfig,
    ShiftConfig,
    TemporalConfig,
    TokenTransformerConfig,
    TransformerConfig,
)
from model.errors import MethodError
from model.matching.stages import TemplateText
from model.slots import Temporal
from model.text import TEMPLATES, prompts, template_stages
from model.views import Alone
from tests.episodes import score_episode
from tests.model.golden_methods import Case, files_of
from tests.model.test_assembly import VIT_B, meta_towers, trainable
from tests.model.tiny import LABELS, clips, tiny_recognizer, tiny_text

UNUSED = {"Conv_1D", "LSTM", "Transf_cls"}  # carry places that nothing reads
HEADS: dict[str, TemporalConfig] = {
    "meanP": MeanConfig(),
    "Conv_1D": ShiftConfig(),
    "LSTM": LstmConfig(),
    "Transf": TransformerConfig(),
    "Transf_cls": TokenTransformerConfig(),
}
OURS = {  # the beginnings of our names, of the released ones
    "Conv_1D": {"shift.": "shift."},
    "LSTM": {"lstm.": "lstm_visual."},
    "Transf": {"places": "frame_position_embeddings.weight", "blocks.": "transformer.resblocks."},
    "Transf_cls": {
        "token": "transformer.cls_token",
        "places": "transformer.pos_embed",
        "encoder.": "transformer.transformer_enc.",
    },
}


@pytest.fixture(params=files_of("actionclip"), ids=lambda file: file.stem)
def case(request: pytest.FixtureRequest) -> Case:
    file: Path = request.param
    return Case(file)


def head_of(case: Case, name: str) -> Temporal:
    """Build a head with the weights of a case."""
    config = HEADS[name]
    features, frames = case.meta["features"], case.meta["frames"]
    if isinstance(config, TransformerConfig):
        config = TransformerConfig(head_width=features // case.meta["heads"])
    head = build_temporal(config, features, frames)
    assert isinstance(head, nn.Module)
    names = {
        own: f"{name}." + theirs + own.removeprefix(ours)
        for own, _ in head.named_parameters()
        for ours, theirs in OURS.get(name, {}).items()
        if own.startswith(ours)
    }
    case.fill(head, names)
    return head.eval()


@torch.inference_mode()
def test_every_head_gives_the_released_values_and_every_weight_is_used_once(case: Case) -> None:
    for name in HEADS:
        got_BE = head_of(case, name)(case.inputs["frames"])[:, 0]
        ending = "_intended" if name == "Conv_1D" else ""
        case.close(got_BE, f"video_{name}{ending}")
    places = {f"{name}.frame_position_embeddings.weight" for name in UNUSED}
    assert {name for name, count in case.used.items() if count != 1} == places


@torch.inference_mode()
def test_probabilities_are_averaged_over_templates_and_not_embeddings(case: Case) -> None:
    meta = case.meta
    video_BTE = head_of(case, "Transf")(case.inputs["frames"])
    text_ANE = case.inputs["text"].unflatten(0, (meta["templates"], meta["classes"]))
    head = TemplateText(meta["sharpness"])
    got_BN, stages = head(video_BTE, text_ANE.transpose(0, 1))
    case.close(got_BN.exp(), "probabilities")
    assert stages is None
    of_mean_BN, _ = head(video_BTE, text_ANE.mean(dim=0)[:, None])
    assert not torch.allclose(of_mean_BN.exp(), case.want("probabilities"), atol=0.05)


def test_shifted_tokens_are_the_released_ones(case: Case) -> None:
    case.close(shifted(case.inputs["tokens"], 0.125), "tokens_shifted")


def parameters(module: object) -> int:
    assert isinstance(module, nn.Module)
    return sum(parameter.numel() for parameter in module.parameters())


PLACES = 77 * 512


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("meanP", 0),
        ("Conv_1D", 1_536),
        ("LSTM", 2_140_672 - PLACES),
        ("Transf", 18_953_728),
        ("Transf_cls", 18_959_872 - PLACES),
    ],
)
def test_heads_have_the_released_sizes_without_places_that_nothing_reads(
    name: str, want: int
) -> None:
    with torch.device("meta"):
        assert parameters(build_temporal(HEADS[name], 512, 8)) == want


def test_layer_norms_divide_by_the_released_eps() -> None:
    for name, eps in (("Transf", 1e-12), ("Transf_cls", 1e-5)):
        head = build_temporal(HEADS[name], 64, 8)
        assert isinstance(head, nn.Module)
        norms = [module for module in head.modules() if isinstance(module, nn.LayerNorm)]
        assert norms
        assert {norm.eps for norm in norms} == {eps}


@torch.inference_mode()
def test_the_convolution_starts_as_a_shift() -> None:
    head = build_temporal(ShiftConfig(), 8, 4)
    assert head is not None
    features = torch.randn(2, 4, 8)
    moved = torch.zeros_like(features)
    moved[:, 1:, :2] = features[:, :-1, :2]
    moved[..., 2:6] = features[..., 2:6]
    moved[:, :-1, 6:] = features[:, 1:, 6:]
    torch.testing.assert_close(head(features), (features + moved).mean(dim=1, keepdim=True))


def test_transformers_start_as_released() -> None:
    torch.manual_seed(0)
    plain, token = (build_temporal(HEADS[name], 128, 8) for name in ("Transf", "Transf_cls"))
    assert isinstance(plain, nn.Module)
    assert isinstance(token, nn.Module)
    for head in (plain, token):
        for module in head.modules():
            if isinstance(module, nn.Linear):
                assert module.weight.std().item() == pytest.approx(0.02, rel=0.2)
                assert not module.bias.any()
    assert max(p.abs().max().item() for p in (token.places, token.token)) <= 0.04
    assert plain.places.std().item() == pytest.approx(0.02, rel=0.1)
    assert plain.blocks[0].attn.in_proj_weight.std().item() > 0.04  # PyTorch's, by Xavier


@pytest.mark.parametrize("name", ["Transf", "Transf_cls"])
def test_another_number_of_frames_than_learned_is_refused(name: str) -> None:
    head = build_temporal(HEADS[name], 64, 8)
    assert head is not None
    with pytest.raises(MethodError, match=r"A clip has 9 frames.*sample 8"):
        head(torch.zeros(1, 9, 64))


def test_values_are_dropped_in_training_alone() -> None:
    head = build_temporal(TokenTransformerConfig(depth=1, hidden=32), 64, 8)
    assert isinstance(head, nn.Module)
    features = torch.randn(2, 8, 64)
    assert torch.equal(head.eval()(features), head(features))
    head.train()
    assert not torch.equal(head(features), head(features))


@torch.inference_mode()
@pytest.mark.parametrize("name", HEADS)
def test_a_clip_is_one_feature_whoever_is_beside_it(name: str) -> None:
    config = HEADS[name]
    if isinstance(config, TransformerConfig | TokenTransformerConfig):
        config = type(config)(depth=2)
    if isinstance(config, TransformerConfig):
        config = TransformerConfig(depth=2, head_width=16)
    recognizer = tiny_recognizer("actionclip", temporal=config)
    assert recognizer.video.feature_instants == 1
    support, query = recognizer.trunk(clips(4)), recognizer.trunk(clips(5, seed=2))
    text = tiny_text(recognizer, LABELS[:3])
    task = recognizer.encode_support(support, [0, 1, 2, 2], text)
    assert task.classes.prototype_NTE.shape[1] == 1
    features_QTE = recognizer.encode_query(query, [task] * 5)
    together = recognizer.match(features_QTE, [task] * 5)
    order = [4, 4, 0]
    mixed = recognizer.encode_query(query[order], [task] * 3)
    for place, score in zip(order, recognizer.match(mixed, [task] * 3), strict=True):
        assert score.logits_N == pytest.approx(together[place].logits_N, abs=1e-4)


@torch.inference_mode()
def test_permuted_classes_permute_logits() -> None:
    recognizer = tiny_recognizer("actionclip")
    support, query = recognizer.trunk(clips(3)), recognizer.trunk(clips(2, seed=2))
    text = tiny_text(recognizer, LABELS[:3])
    assert text is not None
    want = score_episode(recognizer, support, [0, 1, 2], query, text).logits_QN
    order = torch.tensor([2, 0, 1])
    got = score_episode(recognizer, support[order], [0, 1, 2], query, text[order]).logits_QN
    torch.testing.assert_close(got, want[:, order], atol=1e-4, rtol=1e-4)
    assert got.exp().sum(dim=1).tolist() == pytest.approx([1, 1], abs=1e-5)


def test_a_class_has_a_text_of_each_template() -> None:
    recognizer = tiny_recognizer("actionclip")
    assert recognizer.config.texts == len(TEMPLATES) == len(set(TEMPLATES)) == 16
    text_NAE = tiny_text(recognizer, LABELS[:3])
    assert text_NAE is not None
    assert text_NAE.shape[:2] == (3, 16)
    texts = prompts("brush_hair", template_stages("brush_hair", 1), TEMPLATES)
    assert texts[0] == "a photo of action brush hair"
    assert texts[7] == "brush hair"
    assert texts[11] == "Can you recognize the action of brush hair?"


def test_the_preset_learns_both_towers_and_its_head() -> None:
    method = MethodConfig(
        backbone=VIT_B,
        tune="towers",
        temporal=TransformerConfig(),
        fusion=ConvexFusion(),
        stages=1,
        prompt=TEMPLATES,
    )
    recognizer = build_recognizer(method, *meta_towers(VIT_B.name))
    assert trainable(recognizer) == 149_620_737 + 18_953_728


@torch.inference_mode()
def test_shifted_blocks_mix_frames_of_a_clip_and_no_clips() -> None:
    video = tiny_recognizer("actionclip", visual=ShiftedConfig(blocks=3)).video
    assert not video.is_initial()
    tokens = video.trunk(clips(3))
    together = video(tokens, Alone())
    for place in range(3):
        alone = video(tokens[place : place + 1], Alone())
        torch.testing.assert_close(alone[0], together[place], atol=1e-5, rtol=1e-5)
    moved = tokens.clone()
    moved[0, 3, 1] += 1
    before, after = (video.adapted[0](each, Alone().at(0)) for each in (tokens, moved))
    differs_T = (before - after)[0].abs().amax(dim=(1, 2)) > 1e-5
    assert differs_T.nonzero().flatten().tolist() == [2, 3, 4]


def test_a_method_without_a_prompt_is_refused() -> None:
    with pytest.raises(MethodError, match="no prompt"):
        tiny_recognizer("actionclip", prompt=())
