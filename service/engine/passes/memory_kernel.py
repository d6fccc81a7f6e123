"""Attention to the memories of many tasks in one CUDA kernel, each read where it lies.

Importing it needs triton, running it a C compiler.

Dimensions: Q clips, P sites, H heads, M memory entries, E width of a head; R rows (site, head) and
C columns of a program.
"""

import triton
import triton.language as tl
from torch import Tensor

ROWS = 16  # of a program; about the fastest on an H100 (`tests/bench/figures/h100.md`)


def attend_by_table(
    query_PHQE: Tensor, key_PHQE: Tensor, value_PHQE: Tensor, table_Q3: Tensor, aligned: int
) -> Tensor:
    """Let each clip attend to the memory that its row names, and itself: attended_PHQE.

    Sums are fp32. What a clip gets does not depend on the others.

    Args:
        query_PHQE: Of one type with the others and the memories, on the device.
        key_PHQE: The clips' own.
        value_PHQE: Likewise.
        table_Q3: One block's rows of `table_of`, on the device.
        aligned: Bytes; every memory begins at a multiple.

    Raises:
        ValueError: The table has not a row for each clip.
    """
    sites, heads, clips, width = query_PHQE.shape
    if len(table_Q3) != clips:
        raise ValueError(f"A table of {len(table_Q3)} rows came with {clips} clips.")
    parts = [query_PHQE, key_PHQE, value_PHQE]
    if len({part.stride() for part in parts}) > 1 or query_PHQE.stride(3) != 1:
        parts = [part.contiguous() for part in parts]
    attended_PQHE = query_PHQE.new_empty(sites, clips, heads, width)
    _attend[(clips, triton.cdiv(sites * heads, ROWS))](
        *parts,
        attended_PQHE,
        table_Q3,
        table_Q3.stride(0),
        sites,
        heads,
        width,
        width**-0.5,
        *parts[0].stride()[:3],
        ROWS=ROWS,
        COLUMNS=triton.next_power_of_2(width),
        ALIGNED=aligned,
    )
    return attended_PQHE.transpose(1, 2)


@triton.jit  # type: ignore[untyped-decorator]
def _attend(  # type: ignore[no-untyped-def]
    query,
    key,
    value,
    attended,
    table,
    table_clip,
    sites,
    heads,
    width,
    scale,
    by_site,
    by_head,
    by_clip,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    ALIGNED: tl.constexpr,
):  # a compiler reads this, and takes annotations for code
    # One memory entry after the other, by the running softmax of FlashAttention (arXiv 2205.14135).
    clip = tl.program_id(0).to(tl.int64)  # varies fastest: clips of one memory find it in the cache
    row_R = (tl.program_id(1) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    site_R, head_R = row_R // heads, row_R % heads
    column_C = tl.arange(0, COLUMNS)[None, :]
    inside_RC = (site_R < sites)[:, None] & (column_C < width)

    at_RC = (site_R * by_site + head_R * by_head + clip * by_clip)[:, None] + column_C
    query_RC = tl.load(query + at_RC, mask=inside_RC, other=0.0).to(tl.float32) * scale
    key_RC = tl.load(key + at_RC, mask=inside_RC, other=0.0).to(tl.float32)
    sum_RC = tl.load(value + at_RC, mask=inside_RC, other=0.0).to(tl.float32)
    most_R = tl.sum(query_RC * key_RC, axis=1)
    total_R = tl.full([ROWS], 1.0, tl.float32)

    of_clip = table + clip * table_clip
    pointer = tl.pointer_type(query.dtype.element_ty)
    keys = tl.multiple_of(tl.load(of_clip).to(pointer), ALIGNED)
    values = tl.multiple_of(tl.load(of_clip + 1).to(pointer), ALIGNED)
    entries = tl.load(of_clip + 2)
    at_RC = (row_R * entries * width)[:, None] + column_C
    for entry in range(entries):
        key_RC = tl.load(keys + at_RC + entry * width, mask=inside_RC, other=0.0).to(tl.float32)
        value_RC = tl.load(values + at_RC + entry * width, mask=inside_RC, other=0.0).to(tl.float32)
        logit_R = tl.sum(query_RC * key_RC, axis=1)
        higher_R = tl.maximum(most_R, logit_R)
        kept_R, weight_R = tl.exp(most_R - higher_R), tl.exp(logit_R - higher_R)
        total_R = total_R * kept_R + weight_R
        sum_RC = sum_RC * kept_R[:, None] + weight_R[:, None] * value_RC
        most_R = higher_R

    clips = tl.num_programs(0)
    at_RC = (((site_R * clips + clip) * heads + head_R) * width)[:, None] + column_C
    found_RC = (sum_RC / total_R[:, None]).to(attended.dtype.element_ty)
    tl.store(attended + at_RC, found_RC, mask=inside_RC)
