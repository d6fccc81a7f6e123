"""M2-CLIP whole: released values of a training step, sizes, text adapters on and off."""

from pathlib import Path

import open_clip
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from model.adapters.text_adapter import TextAdapter
from model.assembly.recognizer import build_recognizer
from model.backbones.clip import split_clip
from model.config.blocks import TedConfig, TextAdapterConfig
from model.config.method import MethodConfig
from model.config.temporal import ConvolutionConfig
from model.config.towers import OpenClipConfig
from model.methods import METHODS
from model.recognizer import Recognizer
from model.views import Alone
from tests.model.golden_methods import Case, files_of, kind_of
from tests.model.test_assembly import VIT_B, meta_towers, trainable
from tests.model.test_ted import ALONG, PARTS, released
from tests.model.tiny import LABELS, clips, tiny_recognizer, tiny_text
from training.meta.losses.base_classes import VisualClassifier
from training.meta.losses.contrast import multi_hot
from training.meta.losses.masked_words import MaskedWords, word_loss

TEXT_PARTS = {"down": "textad_fc1", "up": "textad_fc2"}
WORD_PARTS = {
    "transform": "transform.dense",
    "norm": "transform.LayerNorm",
}
HEAD_WIDTH = 64


FILES = [file for file in files_of("m2clip") if kind_of(file) == "m2clip"]  # not the adapters alone


@pytest.fixture(scope="module", params=FILES, ids=lambda file: file.stem)
def case(request: pytest.FixtureRequest) -> Case:
    file: Path = request.param
    return Case(file)


def towers_of(case: Case) -> tuple[object, object]:
    """Build open_clip's towers in the sizes of a case."""
    meta = case.meta
    clip = open_clip.CLIP(
        meta["embed"],
        {
            "image_size": meta["size"],
            "patch_size": meta["patch"],
            "width": meta["width"],
            "layers": meta["layers"],
            "head_width": HEAD_WIDTH,
        },
        {
            "context_length": meta["context"],
            "vocab_size": meta["vocabulary"],
            "width": meta["embed"],
            "heads": meta["text_heads"],
            "layers": 12,
        },
        quick_gelu=True,
    )
    return split_clip(clip, open_clip.get_tokenizer(VIT_B.name))


class Step:
    """A method with the weights of a case, and its heads of training."""

    def __init__(self, case: Case) -> None:
        meta = case.meta
        ratio = (meta["text_adapter_width"] + 0.5) / meta["embed"]
        method = MethodConfig(
            backbone=OpenClipConfig(name="of the file"),
            visual=TedConfig(
                blocks=12,
                ratio=(meta["ted_width"] + 0.5) / meta["width"],
                before_attention=meta["pre_attn"],
            ),
            temporal_embedding="none",
            temporal=ConvolutionConfig(),
            text=TextAdapterConfig(blocks=1, ratio=ratio),
            fusion="video",
            frames=meta["frames"],
            stages=1,
        )
        self.recognizer = build_recognizer(method, *towers_of(case))  # type: ignore[arg-type]
        text = self.recognizer.text
        assert text is not None
        self.text = text
        tower = self.recognizer.video.tower
        self.words = MaskedWords(text.tower, meta["words"], ratio=ratio, before_attention=False)
        self.classes = VisualClassifier(tower.width, meta["classes"], tower.pooled)
        fill(case, self)
        self.words.eval()
        self.classes.eval()


def fill(case: Case, step: Step) -> None:
    """Give every part the weights of the file, each once."""
    blocks, places = "transformer.resblocks", range(12)
    names = {f"video.temporal.{n}": f"visual.t_adapter.{r}" for n, r in pairs(ALONG)}
    for place in places:
        ours = released(f"visual.{blocks}.{place}.adapter_pre_mlp", PARTS)
        names |= {f"video.adapted.{place}.before_mlp.{own}": theirs for own, theirs in ours.items()}
    names |= {
        f"text.adapted.0.before_mlp.{own}": f"{blocks}.11.adapter_pre_mlp.{theirs}"
        for own, theirs in pairs(TEXT_PARTS)
    }
    for own, _ in step.recognizer.named_parameters():
        if own.startswith("video.tower.model."):
            names[own] = f"visual.{own.removeprefix('video.tower.model.')}"
        if own.startswith("text.tower.model."):
            names[own] = own.removeprefix("text.tower.model.")
    case.fill(step.recognizer, names)
    names = {
        f"before_mlp.{own}": f"{blocks}.12.adapter_pre_mlp.{theirs}"
        for own, theirs in pairs(TEXT_PARTS)
    }
    names |= {own: f"mlm_adapter.{theirs}" for own, theirs in pairs(WORD_PARTS)}
    names |= {"decode.weight": "mlm_adapter.decoder.weight", "decode.bias": "mlm_adapter.bias"}
    for own, _ in step.words.named_parameters():
        if own.startswith("block."):
            names[own] = f"{blocks}.12.{own.removeprefix('block.')}"
    case.fill(step.words, names)
    kinds = ("weight", "bias")
    case.fill(step.classes, {f"classify.{kind}": f"visual.adapter_fc.{kind}" for kind in kinds})
    case.assert_all_used()


def pairs(parts: dict[str, str]) -> list[tuple[str, str]]:
    return [(f"{o}.{kind}", f"{t}.{kind}") for o, t in parts.items() for kind in ("weight", "bias")]


@pytest.fixture(scope="module")
def step(case: Case) -> Step:
    return Step(case)


@torch.inference_mode()
def test_a_training_step_has_the_released_values_and_every_weight_is_used_once(
    case: Case, step: Step
) -> None:
    recognizer, meta = step.recognizer, case.meta
    made: list[Tensor] = []
    recognizer.video.adapted[-1].register_forward_hook(lambda _m, _g, top: made.append(top))
    tokens = recognizer.video.trunk_of_pixels(case.inputs["clips"])
    frames_BTE = recognizer.video(tokens, Alone())
    case.close(frames_BTE, "frame_features")
    video_BE = F.normalize(frames_BTE.mean(dim=1), dim=-1)
    case.close(video_BE, "video_normalised")
    case.close(step.classes.logits(made[0]), "class_logits")
    labels = torch.tensor(meta["labels"])
    loss_class = F.cross_entropy(step.classes.logits(made[0]), labels)
    case.close(loss_class, "loss_class")
    ids = torch.tensor(meta["text_ids"])
    tokens_BLD = step.text.tokens(ids[:, None])[:, 0]
    want = case.want("text_tokens")
    largest = float(want.abs().max())
    torch.testing.assert_close(tokens_BLD, want, atol=1e-5 * largest, rtol=0)
    text_BE = step.text.stages(ids[:, None])[:, 0]
    case.close(text_BE, "text_features")
    logits = meta["sharpness"] * video_BE @ F.normalize(text_BE, dim=-1).T
    case.close(logits, "logits_video_to_text")
    loss_contrast = multi_hot(logits, labels)
    case.close(loss_contrast, "loss_contrast")
    class_BE = step.text.stages(torch.tensor(meta["class_ids"])[:, None])[:, 0]
    by_text = 100 * video_BE @ F.normalize(class_BE, dim=-1).T
    case.close(by_text, "text_class_logits")
    single, double = (F.cross_entropy(each, labels) for each in (by_text, by_text.softmax(dim=1)))
    case.close(single, "loss_text_class_single")
    case.close(double, "loss_text_class_double")
    words = step.words.logits(tokens_BLD, frames_BTE)
    case.close(words, "word_logits")
    loss_words = word_loss(words, torch.tensor(meta["masked_words"]))
    case.close(loss_words, "loss_masked_words")
    rest = loss_class + 0.1 * loss_words
    case.close((loss_contrast + single) / 2 + rest, "loss_single_softmax")
    case.close((loss_contrast + double) / 2 + rest, "loss_released")


def of_words(recognizer: Recognizer, count: int, *, before_attention: bool) -> int:
    """Count what the word head and the masked-word block learn."""
    assert recognizer.text is not None
    with torch.device("meta"):
        words = MaskedWords(
            recognizer.text.tower, count, ratio=0.75, before_attention=before_attention
        )
    return trainable(words)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("preset", "classes", "words", "want"),
    [("m2clip", 400, 520, 16_138_136), ("m2clip_temporal", 174, 234, 39_524_248)],
)
def test_what_learns_has_the_papers_size(preset: str, classes: int, words: int, want: int) -> None:
    method = METHODS[preset]
    recognizer = build_recognizer(method, *meta_towers(VIT_B.name))
    both = method.text is not None and getattr(method.text, "before_attention", False)
    with torch.device("meta"):
        classifier = VisualClassifier(768, classes, torch.nn.Identity())
    of_heads = trainable(classifier) + of_words(  # type: ignore[arg-type]
        recognizer, words, before_attention=both
    )
    assert trainable(recognizer) + of_heads == want


def test_the_word_head_divides_by_the_released_eps() -> None:
    tower = tiny_recognizer("m2clip").text
    assert tower is not None
    words = MaskedWords(tower.tower, 5, ratio=0.75, before_attention=False)
    assert words.norm.eps == 1e-12
    assert {p for p in words.block.parameters() if p.requires_grad} == set()


@torch.inference_mode()
def test_text_adapters_start_as_no_identity_and_video_adapters_do() -> None:
    fresh = tiny_recognizer("m2clip", trained=False)
    assert fresh.video.is_initial()
    assert fresh.text is not None
    assert not fresh.text.is_initial()
    adapter = TextAdapter(16, 0.75)
    assert not adapter.is_initial()
    assert not torch.allclose(adapter(tokens := torch.randn(2, 3, 16)), tokens)


@torch.inference_mode()
@pytest.mark.parametrize("before_attention", [False, True])
def test_text_adapters_that_are_off_at_evaluation_leave_clips_text_as_it_was(
    before_attention: bool,
) -> None:
    off = TextAdapterConfig(blocks=2, before_attention=before_attention, at_evaluation=False)
    made = {
        name: tiny_recognizer("m2clip", text=text)
        for name, text in {
            "on": TextAdapterConfig(blocks=2, before_attention=before_attention),
            "off": off,
            "none": None,
        }.items()
    }
    for one in made.values():
        assert one.text is not None
        one.text.tower.load_state_dict(made["on"].text.tower.state_dict())  # type: ignore[union-attr]
    texts = {name: tiny_text(one, LABELS[:3]) for name, one in made.items()}
    torch.testing.assert_close(texts["off"], texts["none"])
    assert not torch.allclose(texts["on"], texts["none"], atol=1e-2)  # type: ignore[arg-type]
    assert made["off"].text is not None
    made["off"].text.load_state_dict(made["on"].text.state_dict())  # type: ignore[union-attr]
    made["off"].text.adapted.train()
    torch.testing.assert_close(tiny_text(made["off"], LABELS[:3]), texts["on"])


@torch.inference_mode()
def test_a_clip_alone_and_among_others_scores_the_same() -> None:
    recognizer = tiny_recognizer("m2clip")
    support, query = recognizer.trunk(clips(5)), recognizer.trunk(clips(4, seed=2))
    task = recognizer.encode_support(support, [0, 1, 1, 2, 2], tiny_text(recognizer, LABELS[:3]))
    together = recognizer.match(recognizer.encode_query(query, [task] * 4), [task] * 4)
    for place, score in enumerate(together):
        alone = recognizer.encode_query(query[place : place + 1], [task])
        (one,) = recognizer.match(alone, [task])
        assert one.logits_N == pytest.approx(score.logits_N, abs=1e-4)
        assert one.text_N is not None
