"""Runtimes: one call, the same scores, a choice by speed that never costs a score."""

import json
import os
import shutil
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from model.checkpoint import load_recognizer
from model.config.method import QueryContext
from model.episode import EncodedSupport, plain
from model.export.manifest import MANIFEST, read_manifest, sha256_of
from model.export.parity import factors
from model.export.writing import export
from model.recognizer import Recognizer
from model.views import alone_view
from service.engine.passes.activations import fuse_activations
from service.engine.passes.choice import choose, onnx_folder, open_runtime
from service.engine.passes.recording import TracedPass, bucket_clips, traced_or_none
from service.engine.runtimes.bfloat16 import has_bfloat16, with_bfloat16_video
from service.engine.runtimes.onnx import onnx_runtime
from service.engine.runtimes.protocol import Precision, Runtime
from service.engine.runtimes.pytorch import (
    TorchRuntime,
    plain_torch,
)
from service.errors import SettingsError
from service.settings import Settings
from tests.forked import ForkedCommand
from tests.model.tiny import TOWERS, clips, tiny_method, tiny_recognizer, tiny_text
from tests.serving import classify, register, serving, tiny_checkpoint

# `KSHOT_TEST_CLIPS=200 KSHOT_TEST_BATCHES=100` is the full measure of invariant 1.
CLIPS = int(os.environ.get("KSHOT_TEST_CLIPS", "12"))
BATCHES = int(os.environ.get("KSHOT_TEST_BATCHES", "6"))


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny checkpoint whose clips see nobody else, and its ONNX folder with every graph."""
    folder = tiny_checkpoint(tmp_path_factory.mktemp("exported"), query_context="self")
    export(load(folder), folder / "onnx")
    return folder, folder / "onnx"


def load(folder: Path) -> Recognizer:
    return load_recognizer(str(folder))


def runtime_of(kind: str, exported: tuple[Path, Path]) -> Runtime:
    recognizer = load(exported[0])
    if kind == "onnx-fp32":
        manifest = read_manifest(exported[1])
        return onnx_runtime(recognizer, exported[1], manifest, threads=1)
    fuse_activations(recognizer.video)
    if kind == "torch-bf16":
        return TorchRuntime(with_bfloat16_video(recognizer), precision="bf16")
    return TorchRuntime(recognizer)


@torch.inference_mode()
def supports_of(runtime: Runtime, seed: int) -> EncodedSupport:
    text = tiny_text(runtime, ("jump", "wave"))  # type: ignore[arg-type]
    return runtime.encode_support(runtime.trunk(clips(3, seed=seed)), [0, 1, 1], text)


@torch.inference_mode()
def seen_by(runtime: Runtime, support: EncodedSupport) -> np.ndarray:
    return runtime.saliency(clips(1, seed=9)[0].numpy(), support, 1)


@pytest.mark.parametrize("kind", ["onnx-fp32", "torch-bf16"])
def test_every_runtime_tells_where_an_answer_was_seen(
    kind: str, exported: tuple[Path, Path]
) -> None:
    """By torch, since it needs gradients; in half precision about the same cells stand out."""
    plain, other = runtime_of("torch-fp32", exported), runtime_of(kind, exported)
    want_TSS, got_TSS = (seen_by(each, supports_of(each, 1)) for each in (plain, other))
    assert want_TSS.max() == got_TSS.max() == 1
    np.testing.assert_allclose(got_TSS, want_TSS, atol=1e-4 if kind == "onnx-fp32" else 0.1)


@torch.inference_mode()
def scored(runtime: Runtime, frames: Tensor, supports: list[EncodedSupport]) -> Tensor:
    """Video and text factors [clip, class of both]."""
    features = runtime.encode_query(runtime.trunk(frames), supports)
    return factors(plain(runtime.score(features, supports)))


def test_onnx_scores_text_and_supports_are_torchs(exported: tuple[Path, Path]) -> None:
    torch_fp32 = TorchRuntime(load(exported[0]))
    onnx = runtime_of("onnx-fp32", exported)
    one, other = supports_of(torch_fp32, 1), supports_of(onnx, 1)
    prototypes = [task.classes.prototype_NTE for task in (one, other)]
    torch.testing.assert_close(*prototypes, atol=1e-4, rtol=1e-5)
    assert one.text_NAE is not None
    assert other.text_NAE is not None
    torch.testing.assert_close(one.text_NAE, other.text_NAE, atol=1e-4, rtol=1e-5)
    frames = clips(5, seed=2)
    gap = scored(torch_fp32, frames, [one] * 5) - scored(onnx, frames, [other] * 5)
    assert gap.abs().max() <= 1e-5


@pytest.mark.parametrize(
    ("kind", "most"), [("torch-fp32", 1e-5), ("onnx-fp32", 1e-5), ("torch-bf16", 5e-3)]
)
def test_a_clip_scores_alone_as_in_any_batch(
    kind: str, most: float, exported: tuple[Path, Path]
) -> None:
    runtime = runtime_of(kind, exported)
    tasks = [supports_of(runtime, seed) for seed in (1, 2, 3)]
    frames = clips(CLIPS, seed=9)
    rng = np.random.default_rng(0)
    owner = rng.integers(len(tasks), size=CLIPS)
    alone = torch.cat([scored(runtime, frames[k : k + 1], [tasks[owner[k]]]) for k in range(CLIPS)])
    for _ in range(BATCHES):
        chosen = rng.permutation(CLIPS)[: rng.integers(2, CLIPS + 1)]
        mixed = scored(runtime, frames[chosen], [tasks[owner[k]] for k in chosen])
        assert (mixed - alone[chosen]).abs().max() <= most
        torch.testing.assert_close(mixed[:, :2].argmax(1), alone[chosen, :2].argmax(1))


class Timed(TorchRuntime):
    """A real runtime that pretends to be another one, of a known speed and a known error."""

    def __init__(self, precision: Precision, pass_s: float, error: float = 0.0) -> None:
        super().__init__(tiny_recognizer(), precision=precision)
        self.pass_s, self.error, self.passes = pass_s, error, 0

    def trunk(self, frames_BTHWC: np.ndarray | Tensor) -> Tensor:
        self.passes += 1
        time.sleep(self.pass_s)
        tokens = super().trunk(frames_BTHWC)
        return tokens + self.error * tokens.roll(1, dims=0)


@pytest.mark.parametrize("context", ["none", "self", "support"])
@pytest.mark.parametrize("half", [False, True])
def test_traced_passes_give_the_values_of_the_plain_ones(context: QueryContext, half: bool) -> None:
    recognizer = tiny_recognizer(query_context=context).eval().requires_grad_(False)
    fuse_activations(recognizer.video)
    if half:
        recognizer = with_bfloat16_video(recognizer)
    traced = plain_torch(recognizer)
    assert traced.trunk_pass is not None
    assert (traced.adapted_pass is not None) == (context != "support")
    with torch.inference_mode():
        for count in (1, 2, 3, 20):
            tokens = recognizer.trunk(clips(count, seed=count))
            assert torch.equal(traced.trunk(clips(count, seed=count)), tokens)
            if traced.adapted_pass is not None:
                adapted = recognizer.video(tokens, alone_view(context))
                assert torch.equal(traced.adapted_pass(tokens), adapted)


def shallow(preset: str) -> Recognizer:
    """Build a method on as few blocks as show it: an export takes seconds a block."""
    method = tiny_method(preset)
    assert TOWERS.text is not None
    fewer = replace(TOWERS, depth=2, text=replace(TOWERS.text, layers=1))
    visual = replace(method.visual, blocks=1) if method.visual else None
    text = replace(method.text, blocks=1) if method.text else None
    return tiny_recognizer(preset, backbone=fewer, visual=visual, text=text)


@torch.inference_mode()
@pytest.mark.parametrize("preset", ["ted", "clip_fsar"])
def test_methods_of_other_parts_are_traced_and_exported_to_the_same_scores(
    preset: str, tmp_path: Path
) -> None:
    export(shallow(preset), tmp_path)
    exported = onnx_runtime(shallow(preset), tmp_path, read_manifest(tmp_path), threads=1)
    traced = plain_torch(shallow(preset))
    assert traced.trunk_pass is not None
    assert traced.adapted_pass is not None
    found = []
    for runtime in (TorchRuntime(shallow(preset)), traced, exported):
        task = supports_of(runtime, 1)
        features = runtime.encode_query(runtime.trunk(clips(3, seed=2)), [task] * 3)
        found.append([score.logits_N for score in plain(runtime.score(features, [task] * 3))])
    want, *others = map(torch.tensor, found)
    for got in others:
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-5)


def test_what_serves_on_a_processor_is_traced() -> None:
    runtime = open_runtime(tiny_recognizer(), wanted="torch").runtime
    assert isinstance(runtime, TorchRuntime)
    assert isinstance(runtime.trunk_pass, TracedPass)


def test_a_trace_runs_on_while_another_thread_keeps_the_interpreter() -> None:
    def run(given: Tensor) -> Tensor:
        made = given.add_(1)
        for _ in range(50):
            made = (made @ made).tanh()
        return given.copy_(made)

    traced = TracedPass(run, torch.rand(400, 400))
    given = torch.full((8, 400, 400), 5.0)
    seen = given.numpy()  # to be read without torch, which would let the interpreter go
    thread = threading.Thread(target=traced, args=(given,))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(60.0)
    try:
        thread.start()
        while seen[-1, -1, -1] == 5.0:
            time.sleep(0.001)
        until = time.monotonic() + 20
        while seen[-1, -1, -1] == 6.0 and time.monotonic() < until:
            pass  # without leaving it the interpreter
        assert seen[-1, -1, -1] < 2.0
    finally:
        sys.setswitchinterval(interval)
        thread.join()


def test_a_pass_that_counts_its_clips_is_not_traced(caplog: pytest.LogCaptureFixture) -> None:
    assert traced_or_none(lambda given: given * len(given), torch.ones(2, 3)) is None
    assert "operation by operation" in caplog.text


def test_auto_keeps_the_fastest_that_agrees() -> None:
    fp32, bf16, wrong = Timed("fp32", 0.03), Timed("bf16", 0.01), Timed("bf16", 0.0, error=2.0)
    wrong.kind = "onnx"
    choice = choose(fp32, [fp32, bf16, wrong])
    assert choice.runtime is bf16
    assert choice.clips_s["torch-bf16"] > choice.clips_s["torch-fp32"]
    assert "onnx-bf16" in choice.refused
    assert "torch-bf16" in choice.why


def test_a_small_model_is_measured_no_longer_than_a_median_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.engine.passes.choice.MEASURE_S", 60.0)
    quick, slower = Timed("fp32", 0.0), Timed("bf16", 0.004)
    assert choose(quick, [quick, slower]).runtime is quick
    assert quick.passes < 40


def test_a_runtime_that_disagrees_is_never_served() -> None:
    with pytest.raises(SettingsError, match=r"bf16: (its scores differ|it gives other labels)"):
        choose(Timed("fp32", 0.0), [Timed("bf16", 0.0, error=2.0)])


def test_onnx_without_a_folder_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"run `python -m model\.export`"):
        open_runtime(tiny_recognizer(), wanted="onnx")


def test_the_checkpoints_own_folder_serves_unless_another_one_is_named(tmp_path: Path) -> None:
    checkpoint, named = tmp_path / "mine", tmp_path / "named"
    assert onnx_folder(None, str(checkpoint)) is None
    assert onnx_folder(named, str(checkpoint)) == named
    (checkpoint / "onnx").mkdir(parents=True)
    assert onnx_folder(None, str(checkpoint)) == checkpoint / "onnx"
    assert onnx_folder(named, str(checkpoint)) == named
    assert onnx_folder(None, "timm:vit_tiny_patch16_224") is None


def test_a_folder_of_other_weights_is_refused(exported: tuple[Path, Path], tmp_path: Path) -> None:
    other = load(tiny_checkpoint(tmp_path, "aim"))
    with pytest.raises(SettingsError, match="was exported from weights"):
        open_runtime(other, folder=exported[1])


@pytest.mark.parametrize("fault", ["torn", "missing", "no manifest", "foreign bytes"])
def test_a_broken_folder_is_refused(
    fault: str, exported: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(exported[1], tmp_path / "onnx"))
    trunk = folder / "trunk.onnx"
    match fault:
        case "torn":
            trunk.write_bytes(trunk.read_bytes()[:1000])
        case "missing":
            trunk.unlink()
        case "no manifest":
            (folder / MANIFEST).unlink()
        case "foreign bytes":
            trunk.write_bytes(b"not ONNX")
            told = json.loads((folder / MANIFEST).read_bytes())
            told["graphs"]["trunk"]["sha256"] = sha256_of(trunk)
            (folder / MANIFEST).write_text(json.dumps(told))
    with pytest.raises(SettingsError, match=r"ONNX folder .*export"):
        open_runtime(load(exported[0]), folder=folder)


def test_onnx_that_is_not_installed_is_refused_when_asked_for_and_passed_over_by_auto(
    exported: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SettingsError, match="onnxruntime is not installed"):
        open_runtime(load(exported[0]), wanted="onnx", folder=exported[1])
    choice = open_runtime(load(exported[0]), folder=exported[1])
    assert choice.runtime.kind == "torch"
    assert "not installed" in choice.refused["onnx"]


def test_onnx_runtime_reports_to_nobody(tmp_path: Path) -> None:
    """Its telemetry begins with a session id in the temporary folder."""
    opening = ForkedCommand("tests.service.onnx_opening", env={"TMPDIR": str(tmp_path)})
    assert opening.wait() == 0
    assert list(tmp_path.iterdir()) == []


def test_a_pass_larger_than_memory_is_refused() -> None:
    with pytest.raises(SettingsError, match="KSHOT_BATCH_FRAMES is 1000000000"):
        open_runtime(tiny_recognizer(), batch_frames=10**9)


def test_buckets_are_clips_of_t_frames_up_to_the_largest_pass() -> None:
    assert bucket_clips(8, 256) == [1, 2, 4, 8, 16, 32]
    assert bucket_clips(8, 96) == [1, 2, 4, 8, 12]
    assert bucket_clips(16, 64) == [1, 2, 4]


def test_bfloat16_is_offered_by_the_processors_flags(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("flags : fpu avx2 avx512f")
    assert not has_bfloat16(torch.device("cpu"), cpuinfo)
    cpuinfo.write_text("flags : fpu avx512_bf16 amx_tile")
    assert has_bfloat16(torch.device("cpu"), cpuinfo)


def test_the_service_answers_through_onnx_and_says_so(
    exported: tuple[Path, Path], clips: dict[str, list[bytes]], clip: bytes, tmp_path: Path
) -> None:
    found = {}
    for runtime in ("torch", "onnx"):
        settings = Settings(
            checkpoint=str(exported[0]),
            store=f"sqlite:{tmp_path / runtime}",
            threads=1,
            decode_workers=1,
            runtime=runtime,
            onnx=exported[1],
        )
        with serving(settings) as client:
            told = client.get("/info").json()["runtime"]
            assert told["kind"] == runtime
            assert told["why"]
            answer = classify(client, register(client, clips)["id"], clip)
            found[runtime] = {
                entry["label"]: entry["video"] for entry in answer["results"][0]["ranking"]
            }
    assert found["torch"] == pytest.approx(found["onnx"], abs=1e-4)
