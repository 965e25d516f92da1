"""Eigenvectors of many symmetric matrices with two to four rows, by Jacobi rotations of all of them together.

LAPACK is called once for each matrix, and for so small ones this takes longer than the arithmetic. Here an array holds one entry
of all matrices, and a rotation of the rows and columns p < q of all matrices is a few operations on such arrays:

    A <- Rᵀ A R,  V <- V R,  tan φ = sign τ / (|τ| + √(1 + τ²)),  τ = (a_qq - a_pp) / (2 a_pq).

A sweep rotates each pair once. The entries off the diagonal converge quadratically; the number of sweeps is fixed, so that the
result of a matrix does not depend on the others. A matrix for which it does not suffice is left to LAPACK.

Source: Golub & Van Loan 2013, section 8.5.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

from matsign._typing import Array
from matsign.backends import Backend, load
from matsign.linalg.stacks import adjoint, hermitian

_MAX_ROWS = 4  # for five rows rotations of all members gain little, for eight they are slower than LAPACK
# For fewer members LAPACK is faster: the time of an operation is then that of its start.
_LEAST, _LEAST_ON_GPU = 512, 1 << 17
# The members whose entries fit the cache, or leave room in the memory of a GPU.
_CHUNK, _CHUNK_ON_GPU = 1 << 12, 1 << 20

Entries = dict[tuple[int, int], Array]


def are_many_small(backend: Backend, a: Array) -> bool:
    """Whether rotations of all members together take less time than LAPACK for each."""
    if a.ndim != 3 or not 2 <= a.shape[-1] <= _MAX_ROWS or backend.is_complex(a):
        return False
    if backend.name not in ("numpy", "torch") or backend.is_traced(a) or backend.products_only(a):
        return False
    return len(a) >= (_LEAST if backend.on_cpu(a) else _LEAST_ON_GPU)


def eigenvectors(backend: Backend, a: Array) -> tuple[Array, Array]:
    """(values, vectors) of Hermitian members with entries up to 1, values ascending."""
    if not are_many_small(backend, a):
        return backend.eigh(a)
    if backend.on_cpu(a):
        values, vectors, right = backend.host_callback(_by_numpy, (a[:, 0], a, a[:, 0, 0] > 0), a)
    else:
        values, vectors, right = _in_chunks(backend, a, _CHUNK_ON_GPU)
    if backend.all_true(right):
        return values, vectors
    found: tuple[Array, Array] = backend.masked_cond(
        right, lambda a, *found: found, lambda a, *_: tuple(backend.eigh(a)), a, values, vectors
    )
    return found


def spectral_product(backend: Backend, vectors: Array, f: Array) -> Array:
    """V diag(f) Vᴴ for real f, exactly Hermitian."""
    if not are_many_small(backend, vectors):
        return hermitian((vectors * f[..., None, :]) @ adjoint(vectors))
    n = vectors.shape[-1]
    rows = [[vectors[:, i, k] for k in range(n)] for i in range(n)]
    scaled = [[x * f[:, k] for k, x in enumerate(row)] for row in rows]
    upper = {(i, j): sum(map(_times, scaled[i], rows[j])) for i in range(n) for j in range(i, n)}
    entries = [upper[min(i, j), max(i, j)] for i in range(n) for j in range(n)]
    return backend.xp.stack(entries, axis=-1).reshape(vectors.shape)


def _times(x: Array, y: Array) -> Array:
    return x * y


def _by_numpy(a: Array) -> tuple[Array, ...]:
    return _in_chunks(load("numpy"), a, _CHUNK)


def _in_chunks(backend: Backend, a: Array, chunk: int) -> tuple[Array, ...]:
    pieces = [_rotate_to_diagonal(backend, a[k : k + chunk]) for k in range(0, len(a), chunk)]
    return pieces[0] if len(pieces) == 1 else tuple(backend.xp.concat(x) for x in zip(*pieces, strict=True))


def _rotate_to_diagonal(backend: Backend, a: Array) -> tuple[Array, Array, Array]:
    """(values, vectors, where the entries off the diagonal have become negligible), computed in double precision."""
    xp, n, dtype = backend.xp, a.shape[-1], a.dtype
    entries = {(i, j): xp.astype(a[:, i, j], xp.float64, copy=True) for i in range(n) for j in range(i, n)}
    zero = xp.zeros_like(entries[0, 0])
    columns = [[zero + (i == j) for i in range(n)] for j in range(n)]
    pairs = list(combinations(range(n), 2))
    for p, q in (n + 1) * pairs:
        c, s = _rotate(xp, entries, p, q, zero)
        columns[p], columns[q] = _combine(columns[p], columns[q], c, s)
    off = sum(xp.abs(entries[pair]) for pair in pairs)
    values = [entries[i, i] for i in range(n)]
    right = off <= backend.eps(zero) * sum(map(xp.abs, values))
    _sort(xp, values, columns)
    vectors = xp.permute_dims(xp.stack([xp.stack(column) for column in columns]), (2, 1, 0))
    return xp.astype(xp.stack(values).T, dtype, copy=False), xp.astype(vectors, dtype, copy=False), right


def _rotate(xp: Any, a: Entries, p: int, q: int, zero: Array) -> tuple[Array, Array]:
    """Make a_pq zero; (cos φ, sin φ)."""
    tau = (a[q, q] - a[p, p]) / (2 * a[p, q])
    t = xp.copysign(1 / (xp.abs(tau) + xp.sqrt(1 + tau * tau)), tau)
    t = xp.where(a[p, q] == 0, zero, t)
    c = 1 / xp.sqrt(1 + t * t)
    s = t * c
    change = t * a[p, q]
    a[p, p], a[q, q], a[p, q] = a[p, p] - change, a[q, q] + change, zero
    for r in {i for pair in a for i in pair} - {p, q}:
        rp, rq = (min(r, p), max(r, p)), (min(r, q), max(r, q))
        (a[rp],), (a[rq],) = _combine([a[rp]], [a[rq]], c, s)
    return c, s


def _combine(x: list[Array], y: list[Array], c: Array, s: Array) -> tuple[list[Array], list[Array]]:
    """The vectors c x - s y and s x + c y."""
    pairs = list(zip(x, y, strict=True))
    return [c * u - s * v for u, v in pairs], [s * u + c * v for u, v in pairs]


def _sort(xp: Any, values: list[Array], columns: list[list[Array]]) -> None:
    """Sort values in place, and the columns with them, by exchanging neighbours."""
    for last in range(len(values) - 1, 0, -1):
        for k in range(last):
            low, high = values[k : k + 2]
            swap = low > high
            values[k : k + 2] = xp.minimum(low, high), xp.maximum(low, high)
            pairs = list(zip(*columns[k : k + 2], strict=True))
            columns[k : k + 2] = [xp.where(swap, y, x) for x, y in pairs], [xp.where(swap, x, y) for x, y in pairs]
