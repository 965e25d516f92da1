"""Symmetric products on a GPU by Triton: one triangle is computed, the other is its mirror image.

That is half the work of a general product. Sums are in float32. Offsets between members are 64-bit integers, because a stack
may have more than 2³¹ entries.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

Array = torch.Tensor


# Triton's compiler reads the annotations of a kernel, and knows no others than its own.
@triton.jit
def _triangle(  # type: ignore[no-untyped-def]
    a,
    b,
    out,
    n,
    k,
    shift,
    tiles,
    a_member,
    a_row,
    a_column,
    b_member,
    b_row,
    b_column,
    out_member,
    out_row,
    TILE: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """The tile (i, j), i ≥ j, of a bᵀ + shift I for one member, and its mirror image. Tiles of the lower triangle are
    numbered by rows.
    """
    member = (tl.program_id(0) // tiles).to(tl.int64)
    tile = tl.program_id(0) % tiles
    i = ((tl.sqrt(8.0 * tile.to(tl.float32) + 1.0) - 1.0) / 2.0).to(tl.int32)
    # The square root may have been rounded past an integer.
    i = tl.where(i * (i + 1) // 2 > tile, i - 1, i)
    i = tl.where((i + 1) * (i + 2) // 2 <= tile, i + 1, i)
    j = tile - i * (i + 1) // 2

    rows, columns, inner = i * TILE + tl.arange(0, TILE), j * TILE + tl.arange(0, TILE), tl.arange(0, DEPTH)
    x = a + member * a_member + rows[:, None].to(tl.int64) * a_row + inner[None, :].to(tl.int64) * a_column
    y = b + member * b_member + columns[:, None].to(tl.int64) * b_row + inner[None, :].to(tl.int64) * b_column
    total = tl.zeros((TILE, TILE), dtype=tl.float32)
    for start in range(0, k, DEPTH):
        there = (start + inner)[None, :] < k
        left = tl.load(x, mask=(rows[:, None] < n) & there, other=0.0)
        right = tl.load(y, mask=(columns[:, None] < n) & there, other=0.0)
        total = tl.dot(left, tl.trans(right), total, input_precision="ieee")
        x += DEPTH * a_column
        y += DEPTH * b_column

    total += tl.where(rows[:, None] == columns[None, :], shift, 0.0)
    value = total.to(out.dtype.element_ty)
    below = (rows[:, None] < n) & (columns[None, :] <= rows[:, None])
    out += member * out_member
    at = rows[:, None].to(tl.int64) * out_row + columns[None, :]
    tl.store(out + at, value, mask=below)
    # The mirror image is transposed first, so that neighbours in a row are written together.
    mirrored = columns[:, None].to(tl.int64) * out_row + rows[None, :]
    above = (rows[None, :] < n) & (columns[:, None] < rows[None, :])
    tl.store(out + mirrored, tl.trans(value), mask=above)


def symmetric_product(a: Array, b: Array, shift: float = 0.0, out: Array | None = None) -> Array:
    """a bᵀ + shift I for stacks (B, n, k) of float32, float16 or bfloat16 whose product is symmetric."""
    count, n, k = a.shape
    if out is None:
        out = torch.empty((count, n, n), dtype=a.dtype, device=a.device)
    tile = 128 if n > 256 else 64 if n > 64 else 32
    tiles = -(-n // tile) * (-(-n // tile) + 1) // 2
    if count:
        _triangle[(count * tiles,)](
            *(a, b, out, n, k, float(shift), tiles),
            *(*a.stride(), *b.stride(), out.stride(0), out.stride(1)),
            TILE=tile,
            DEPTH=64 if tile == 128 and a.element_size() == 2 else 32,
            num_warps=8 if tile == 128 else 4,
        )
    return out
