"""Block triangular Sylvester equations r x + x s = f, solved along block diagonals (wavefronts).

Block (i, j) of x depends on the blocks below it and left of it, so all blocks with the same i - j are solved together: one
batched solve of small systems and two batched products per wavefront, few calls, as accelerators need. All blocks are padded
to one size; the padding of r and s is diagonal, and the padding of x stays zero.
"""

from __future__ import annotations

import itertools

import numpy as np

from matsign._typing import Array
from matsign.backends import Backend
from matsign.linalg.stacks import broadcast_scalar, eye, largest

Edges = tuple[int, ...]


def kronecker(backend: Backend, a: Array, b: Array, q: Array) -> Array:
    """x with a x + x b = q of a stack, by one linear system for n m unknowns: (a ⊗ I + I ⊗ bᵀ) vec(x), row by row."""
    (count, n, m), xp = q.shape, backend.xp
    system = a[:, :, None, :, None] * eye(backend, b)[:, None, :, None, :]
    system = system + eye(backend, a)[:, :, None, :, None] * b.mT[:, None, :, None, :]
    system = xp.reshape(system, (count, n * m, n * m))
    return xp.reshape(backend.solve(system, xp.reshape(q, (count, n * m, 1))), (count, n, m))


def widest(edges: Edges) -> int:
    """The size of the largest block."""
    return max(end - start for start, end in itertools.pairwise(edges))


def solve(backend: Backend, r: Array, rows: Edges, s: Array, columns: Edges, f: Array) -> Array:
    """x of one member, for r and s block upper triangular; `rows` and `columns` are the edges of their blocks."""
    xp, p, o = backend.xp, widest(rows), widest(columns)
    k, h = len(rows) - 1, len(columns) - 1
    embed_r, embed_s = _padding(backend, rows, p, r), _padding(backend, columns, o, s)
    far = 2 * k * p * largest(backend, r) + 2 * h * o * largest(backend, s)
    diagonal_r, r = _split_diagonal(backend, _pad_blocks(backend, r, embed_r, far), k)
    diagonal_s, s = _split_diagonal(backend, _pad_blocks(backend, s, embed_s, far), h)
    f = _blocks(backend, embed_r.mT @ f @ embed_s, k, h)
    r = xp.reshape(r, (k, p, k * p))
    s = xp.permute_dims(xp.reshape(s, (h * o, h, o)), (1, 0, 2))
    x = 0 * f
    for wave in range(k + h - 1):
        # The w blocks (i + t, j + t) with i - j = k - 1 - wave.
        i, j = max(0, k - 1 - wave), max(0, wave - k + 1)
        w = min(k - i, h - j)
        below = xp.reshape(xp.permute_dims(x[:, j : j + w], (1, 0, 2, 3)), (w, k * p, o))
        left = xp.reshape(xp.permute_dims(x[i : i + w], (0, 2, 1, 3)), (w, p, h * o))
        here = xp.stack([f[i + t, j + t] for t in range(w)])
        here = here - r[i : i + w] @ below - left @ s[j : j + w]
        new = kronecker(backend, diagonal_r[i : i + w], diagonal_s[j : j + w], here)
        x = _place(backend, x, new, i, j)
    x = xp.reshape(xp.permute_dims(x, (0, 2, 1, 3)), (1, k * p, h * o))
    return embed_r @ x @ embed_s.mT


def _padding(backend: Backend, edges: Edges, p: int, like: Array) -> Array:
    """The identity with zero columns inserted, (1, n, k p): x ↦ `_padding`ᵀ x pads each block of rows to p."""
    k, n = len(edges) - 1, edges[-1]
    out = np.zeros((n, k * p))
    for i, (start, end) in enumerate(itertools.pairwise(edges)):
        out[start:end, i * p : i * p + end - start] = np.eye(end - start)
    return backend.astype(backend.asarray(out, like), backend.dtype_name(like))[None]


def _pad_blocks(backend: Backend, r: Array, embedding: Array, far: Array) -> Array:
    """r with padded blocks; the diagonal of the padding is `far`, so large that no system becomes singular."""
    empty = eye(backend, embedding) * (1 - backend.xp.sum(embedding, axis=-2)[:, None, :])
    return embedding.mT @ r @ embedding + broadcast_scalar(far) * empty


def _split_diagonal(backend: Backend, r: Array, k: int) -> tuple[Array, Array]:
    """(the diagonal blocks (k, p, p), r with these blocks set to 0)."""
    p = r.shape[-1] // k
    blocks = backend.xp.concat([r[:, i * p : (i + 1) * p, i * p : (i + 1) * p] for i in range(k)])
    mask = backend.astype(backend.asarray(np.kron(np.eye(k), np.ones((p, p))), r), backend.dtype_name(r))[None]
    return blocks, r * (1 - mask)


def _blocks(backend: Backend, f: Array, k: int, h: int) -> Array:
    """One member (1, k p, h o) as blocks (k, h, p, o)."""
    _, n, m = f.shape
    return backend.xp.permute_dims(backend.xp.reshape(f, (k, n // k, h, m // h)), (0, 2, 1, 3))


def _place(backend: Backend, x: Array, new: Array, i: int, j: int) -> Array:
    """x with the blocks `new` at (i, j), (i + 1, j + 1), …"""
    k, h, p, o = x.shape
    w = len(new)
    rows, columns = np.arange(k)[:, None], np.arange(h)[None]
    mask = backend.asarray((rows - i == columns - j) & (rows >= i) & (rows < i + w), x)
    around = [backend.zeros((i, p, o), x), new, backend.zeros((k - i - w, p, o), x)]
    return backend.xp.where(mask[:, :, None, None], backend.xp.concat(around)[:, None], x)
