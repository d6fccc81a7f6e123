"""What only a CUDA device can show; skipped where there is none.

    python -m pytest tests/cuda

Imports no codec, no web framework and no store, so that a bare machine with torch runs it.
"""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch

from model.config.method import QueryContext
from model.episode import EncodedSupport, MatchScores, Memory, plain
from model.methods import METHODS
from model.recognizer import Recognizer
from model.text import template_stages
from model.views import attend_own
from service.engine.engine import Engine
from service.engine.passes.activations import fuse_activations
from service.engine.passes.choice import open_runtime
from service.engine.passes.memory_table import ALIGNED, kernel_or_none, table_of
from service.engine.passes.recording import CapturedPass
from service.engine.runtimes.bfloat16 import with_bfloat16_video
from service.engine.runtimes.pytorch import TorchRuntime, reduced_torch
from service.errors import SettingsError
from tests.bench.independence import compare, mixed_batches, scored_alone, scored_in_batches
from tests.episodes import score_episode
from tests.model.tiny import LABELS, TOWERS, clips, tiny_recognizer, tiny_text

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

CUDA = torch.device("cuda")
CLASSES = [0, 0, 1, 1, 2]


def frames(count: int, seed: int = 0) -> np.ndarray:
    return clips(count, seed=seed).numpy()


def served(method: str = "task_adapter_pp") -> Recognizer:
    """Give a preset, or a context, as the service has it (convolutions would round as TF32)."""
    context = {"query_context": method} if method in get_args(QueryContext) else {}
    preset = "task_adapter_pp" if context else method
    recognizer = tiny_recognizer(preset, **context).eval().to(CUDA)
    fuse_activations(recognizer.video)
    return recognizer


def captured(recognizer: Recognizer, sizes: list[int]) -> CapturedPass:
    return CapturedPass(recognizer.video.trunk, [clips(1)[0]], CUDA, sizes)


def logits(scores: list[MatchScores]) -> np.ndarray:
    return np.array([score.logits_N for score in scores])


@torch.inference_mode()
def task(runtime: TorchRuntime, seed: int, text: bool = True) -> EncodedSupport:
    tokens = runtime.trunk(frames(len(CLASSES), seed))
    text_NAE = tiny_text(runtime.recognizer, LABELS[:3]) if text else None
    return runtime.encode_support(tokens, CLASSES, text_NAE)


@torch.inference_mode()
@pytest.mark.parametrize("preset", METHODS)
def test_an_episode_scores_on_the_device_as_on_the_processor(preset: str) -> None:
    scores = []
    for device in ("cpu", "cuda"):
        recognizer = tiny_recognizer(preset).eval().to(device)
        tokens = recognizer.trunk(frames(8))
        text_NAE = tiny_text(recognizer, LABELS[:3])
        found = score_episode(recognizer, tokens[:5], CLASSES, tokens[5:], text_NAE)
        scores.append(found.video_QN.cpu())
    torch.testing.assert_close(scores[1], scores[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("preset", METHODS)
def test_gradients_on_the_device_are_those_of_the_processor(preset: str) -> None:
    gradients = []
    for device in ("cpu", "cuda"):
        recognizer = tiny_recognizer(preset).eval().to(device)
        with torch.no_grad():
            tokens = recognizer.trunk(frames(8))
        found = score_episode(recognizer, tokens[:5], CLASSES, tokens[5:], None)
        trained = [p for p in recognizer.parameters() if p.requires_grad]
        if not trained:
            pytest.skip(f"{preset} has nothing to train")
        total = found.video_QN.square().sum()
        found_gradients = torch.autograd.grad(total, trained, allow_unused=True)
        gradients.append([g.cpu() for g in found_gradients if g is not None])
    assert gradients[0]
    for on_device, on_processor in zip(*reversed(gradients), strict=True):
        scale = max(1.0, float(on_processor.abs().max()))
        assert float((on_device - on_processor).abs().max()) < 1e-3 * scale


@torch.inference_mode()
@pytest.mark.parametrize("count", [1, 2, 3, 4, 9])
def test_a_captured_trunk_gives_the_tokens_of_the_plain_one(count: int) -> None:
    recognizer = served()
    want = recognizer.trunk(frames(count))
    got = captured(recognizer, [1, 4])(torch.from_numpy(frames(count)))
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_a_replay_leaves_the_tokens_of_the_last_one_alone() -> None:
    trunk = captured(served(), [2])
    first = trunk(torch.from_numpy(frames(2, seed=1)))
    kept = first.clone()
    trunk(torch.from_numpy(frames(2, seed=2)))
    assert torch.equal(first, kept)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("preset", ["task_adapter", "task_adapter_pp", "aim", "none", "prototype"])
def test_scores_do_not_depend_on_the_batch(preset: str, precision: str) -> None:
    recognizer = served(preset)
    runtime = TorchRuntime(recognizer)
    if precision == "bf16":
        (runtime,) = reduced_torch(recognizer, 64)
        assert runtime.trunk_pass is not None
        assert runtime.adapted_pass is not None
    tasks = [task(runtime, seed, text=seed != 1) for seed in range(3)]
    many = frames(40, seed=9)
    alone = scored_alone(runtime, many, tasks)
    mixed = scored_in_batches(runtime, many, tasks, mixed_batches(len(many), 30, seed=0))
    found = compare((alone[place], scores) for place, scores in mixed)
    assert found["largest_of_cosines"] <= (1e-5 if precision == "fp32" else 5e-3)


@torch.inference_mode()
def test_a_replay_reads_no_memory_of_an_earlier_batch() -> None:
    (runtime,) = reduced_torch(served("support"), 64)
    first, second = task(runtime, 1), task(runtime, 2)
    tokens = runtime.trunk(frames(7, seed=5))
    want = runtime.encode_query(tokens[:5], [second] * 5)
    runtime.encode_query(tokens, [first] * 7)
    for memory in first.memories:
        assert memory is not None
        memory.keys_PHMW.fill_(torch.nan)
        memory.values_PHMW.fill_(torch.nan)
    assert torch.equal(runtime.encode_query(tokens[:5], [second] * 5), want)


@torch.inference_mode()
@pytest.mark.parametrize("entries", [1, 5, 25])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernel_reads_memories_as_torch_does_one_by_one(
    dtype: torch.dtype, entries: int
) -> None:
    kernel = kernel_or_none(CUDA)
    assert kernel is not None
    generator = torch.Generator(CUDA).manual_seed(entries)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, device=CUDA).to(dtype)

    shared, *others = (Memory(noise(197, 3, n, 64), noise(197, 3, n, 64)) for n in (entries, 3, 9))
    memories = [shared, *others, None, shared]
    parts = [
        part.unflatten(-1, (3, 64)).transpose(1, 2) for part in noise(197, 5, 576).chunk(3, dim=-1)
    ]
    table_Q3 = table_of([memories], parts[0])[0].to(CUDA)
    got = kernel(*parts, table_Q3, ALIGNED).float()
    exact = [Memory(m.keys_PHMW.float(), m.values_PHMW.float()) if m else None for m in memories]
    exact[-1] = exact[0]
    want = attend_own(*(part.float() for part in parts), exact)
    torch.testing.assert_close(got, want, atol=2e-2 if dtype == torch.bfloat16 else 1e-5, rtol=1e-2)


def test_bfloat16_keeps_text_and_pixels_in_fp32() -> None:
    half = with_bfloat16_video(tiny_recognizer().to(CUDA))
    assert {p.dtype for p in half.video.parameters()} == {torch.bfloat16}
    assert half.video.normalize.mean.dtype == torch.float32
    assert tiny_text(half, LABELS[:2]).dtype == torch.float32


def test_auto_measures_what_the_device_offers_and_tells_its_buckets() -> None:
    choice = open_runtime(tiny_recognizer().eval().to(CUDA), batch_frames=64)
    assert {"torch-fp32", "torch-bf16"} == {*choice.clips_s, *choice.refused}
    assert "torch-fp32" in choice.clips_s
    if choice.runtime.precision == "bf16":
        assert choice.runtime.buckets == (8, 16, 32, 64)


def test_a_bucket_larger_than_the_device_is_refused_at_start() -> None:
    with pytest.raises(SettingsError, match="KSHOT_BATCH_FRAMES is 800000000"):
        open_runtime(tiny_recognizer().eval().to(CUDA), batch_frames=800_000_000)


async def test_an_engine_answers_as_the_bare_network() -> None:
    recognizer = served()
    (runtime,) = reduced_torch(recognizer, 64)
    engine = Engine(runtime, batch_frames=64)
    await engine.start()
    try:
        text_NAE = await engine.encode_text(
            LABELS[:3], [template_stages(label) for label in LABELS[:3]]
        )
        support = await engine.encode_support(frames(5), CLASSES, text_NAE)
        many = frames(20, seed=3)
        answers = await engine.classify(many, support)
    finally:
        await engine.close()
    with torch.inference_mode():
        tokens = runtime.trunk(many)
        bare = plain(
            runtime.score(
                runtime.encode_query(tokens, [support] * len(many)), [support] * len(many)
            )
        )
    cosines = [
        np.array([score.video_N for score in scores])
        for scores in ([one.scores for one in answers], bare)
    ]
    assert np.abs(cosines[0] - cosines[1]).max() < 5e-3


async def test_a_batch_that_does_not_fit_the_device_is_halved_and_answered() -> None:
    recognizer = wide_recognizer()
    runtime = TorchRuntime(recognizer)
    engine = Engine(runtime, batch_frames=16 * recognizer.config.frames)
    await engine.start()
    many = np.zeros((16, recognizer.config.frames, recognizer.size, recognizer.size, 3), np.uint8)
    try:
        support = await engine.encode_support(many[:2], [0, 1], None)
        want = await engine.classify(many, support)
        peaks = [await peak(engine, many[:count], support) for count in (8, 16)]
        total = torch.cuda.get_device_properties(CUDA).total_memory
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(sum(peaks) / 2 / total)
        got = await engine.classify(many, support)
        assert engine.memory_failures == 0
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        await engine.close()
    found = [logits([one.scores for one in answers]) for answers in (want, got)]
    assert np.allclose(*found, atol=1e-2)


def wide_recognizer() -> Recognizer:
    """Make passes of 16 clips take hundreds of megabytes more than passes of 8."""
    backbone = replace(TOWERS, size=128, patch=8, width=256, heads=4)
    return tiny_recognizer("frozen", backbone=backbone).to(CUDA)


async def peak(engine: Engine, many: np.ndarray, support: EncodedSupport) -> int:
    """Return the memory reserved at most while a batch runs."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    await engine.classify(many, support)
    return torch.cuda.max_memory_reserved()
