"""Queries of many tasks in one pass: each reads the memory of its own, however they are read."""

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.episode import Memory
from model.views import attend_own, attend_to, query_view, support_view
from service.engine.passes.memory_table import ALIGNED, TableView, kernel_or_none, table_of
from tests.model.tiny import clips, tiny_recognizer

kernel = pytest.importorskip("service.engine.passes.memory_kernel", reason="there is no triton")

ROOT = Path(__file__).parents[2]
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")  # there, by interpretation


def noise(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).to(DEVICE)


def memory(seed: int, sites: int, heads: int, entries: int, width: int) -> Memory:
    shape = (sites, heads, entries, width)
    return Memory(noise(seed, *shape), noise(1000 + seed, *shape))


def of_clips(sites: int, heads: int, count: int, width: int) -> list[Tensor]:
    """Make queries, keys and values as a block does: three views of one product."""
    tokens_PQD = noise(70, sites, count, 3 * heads * width)
    return [
        part.unflatten(-1, (heads, width)).transpose(1, 2) for part in tokens_PQD.chunk(3, dim=-1)
    ]


def test_a_pass_of_many_tasks_gives_each_clip_what_its_own_memory_gives() -> None:
    shared, others = memory(1, 6, 2, 3, 4), [memory(seed, 6, 2, seed, 4) for seed in (2, 3, 4)]
    memories = [shared, *others, None, shared]
    parts = of_clips(6, 2, len(memories), 4)
    alone = [
        attend_to(*(part[:, :, [place]] for part in parts), one)
        for place, one in enumerate(memories)
    ]
    torch.testing.assert_close(attend_own(*parts, memories), torch.cat(alone, dim=2))


@settings(deadline=None, max_examples=25)
@given(
    entries=st.lists(st.integers(0, 5), min_size=1, max_size=4),
    of_clip=st.lists(st.integers(0, 3), min_size=1, max_size=5),
    sites=st.integers(1, 20),
    heads=st.integers(1, 3),
    width=st.sampled_from([4, 5, 8]),
    dense=st.booleans(),
)
def test_the_kernel_reads_memories_where_they_lie_as_torch_reads_them(
    entries: list[int], of_clip: list[int], sites: int, heads: int, width: int, dense: bool
) -> None:
    known = [
        memory(seed, sites, heads, count, width) if count else None
        for seed, count in enumerate(entries)
    ]
    memories = [known[place % len(known)] for place in of_clip]
    parts = of_clips(sites, heads, len(memories), width)
    if dense:  # as normed queries would be
        parts[0] = parts[0].contiguous()
    # Blocks before and behind: rows of a table of several are not dense.
    table_QB3 = table_of([[None, one, None] for one in memories], parts[0]).to(DEVICE)
    got = kernel.attend_by_table(*parts, table_QB3[:, 1], ALIGNED)
    torch.testing.assert_close(got, attend_own(*parts, memories), atol=1e-5, rtol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("context", ["support", "prototype"])
def test_queries_by_table_are_queries_by_memories(context: str) -> None:
    video = tiny_recognizer(query_context=context).eval().to(DEVICE).video
    tokens = video.trunk(clips(8).to(DEVICE))
    memories = []
    for count in (2, 3):
        view = support_view(context, torch.arange(count, device=DEVICE), tokens.dtype)
        video(tokens[:count], view)
        memories.append([view.memories[place] for place in range(len(video.adapted))])
    memories.append([None] * len(video.adapted))
    of_clips = [memories[place] for place in (0, 1, 2, 1, 0)]
    table_QB3 = table_of(of_clips, tokens).to(DEVICE)
    got = video(tokens[3:], TableView(kernel.attend_by_table, table_QB3))
    want = video(tokens[3:], query_view(context, of_clips))
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)


def test_memories_that_the_kernel_would_misread_are_refused() -> None:
    like, good = torch.zeros(1, device=DEVICE), memory(1, 2, 2, 3, 4)
    with pytest.raises(ValueError, match=r"torch\.float64 .* cannot be read by tokens of torch\.f"):
        table_of([[replace(good, values_PHMW=good.values_PHMW.double())]], like)
    with pytest.raises(ValueError, match="on meta cannot be read"):
        table_of([[replace(good, values_PHMW=good.values_PHMW.to("meta"))]], like)
    with pytest.raises(ValueError, match="not dense"):
        table_of([[replace(good, keys_PHMW=good.keys_PHMW.transpose(0, 1))]], like)
    with pytest.raises(ValueError, match="not aligned"):
        table_of([[replace(good, keys_PHMW=noise(1, 49)[1:].view(2, 2, 3, 4))]], like)


def test_a_table_of_other_clips_is_refused() -> None:
    parts = of_clips(2, 2, 3, 4)
    table_QB3 = table_of([[None], [None]], parts[0]).to(DEVICE)
    with pytest.raises(ValueError, match="A table of 2 rows came with 3 clips"):
        kernel.attend_by_table(*parts, table_QB3[:, 0], ALIGNED)


def test_the_kernel_compiles_for_a_gpu_and_loads_sixteen_bytes_at_once(tmp_path: Path) -> None:
    script = ROOT / "tests/service/compile_kernel.py"
    own = {"PYTHONPATH": str(ROOT), "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(script)],
        env=os.environ | own,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loads = Counter(done.stdout.split())
    assert loads.pop("ld.global.b64") == 3  # a row of the table
    assert set(loads) == {"ld.global.v4.b32"}


def test_a_processor_is_served_without_the_kernel() -> None:
    assert kernel_or_none(torch.device("cpu")) is None
