"""The controllable and observable part of a model, by orthogonal staircase forms (Rosenbrock 1970, Van Dooren 1981, Varga 1981).

The controllable subspace is the smallest one that contains the range of b and that a maps into itself. Its orthonormal basis
grows by blocks: the range of b, then of what a makes of the last block outside the blocks so far. The unobservable part of the
subspace is that of the dual model (aᴴ, cᴴ) in this basis.

Each rank is decided by singular values. Many steps magnify rounding errors, so that the last values need not be small where the
model is near one that is not controllable. So a larger tolerance comes first; the basis is corrected, and it is accepted if the
model changes by at most the tolerance when the corrected span becomes its controllable subspace.

Decisions do not depend on units: those of the states are balanced (the rows and columns of [[a, b], [c, 0]] get similar norms),
and the columns of b and the rows of c are scaled to length 1.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg

from matsign._typing import NDArray as Array

_SWEEPS = 100  # of balancing; few are needed
_RANGE = 400  # the largest exponent of a unit
_LEVELS = (
    0.25,
    0.375,
    0.5,
    0.625,
    0.75,
    0.875,
    1.0,
)  # the powers of the tolerance with which ranks are decided, in this order
_CORRECTIONS = 4


def subspaces(a: Array, b: Array, c: Array, *, rtol: float | None) -> tuple[Array, Array, Array]:
    """(units, reached, both) for each model.

    The states are 2^units times those in which the orthonormal columns of `reached` span the controllable subspace and those of
    `both` its observable part. Missing columns are zero. For a minimal model the units are 0 and the bases the identity.
    """
    n, eps = a.shape[-1], float(np.finfo(a.dtype).eps)
    limit = default_tolerance(n, eps) if rtol is None else rtol
    units = np.zeros(a.shape[:2], a.real.dtype)
    reached, both = np.zeros_like(a), np.zeros_like(a)
    for k, model in enumerate(zip(a, b, c, strict=True)):
        wide = (x.astype(np.result_type(x.dtype, np.float64)) for x in model)
        e, first, second = _subspaces(*wide, limit=limit)
        minimal = second.shape[1] == n
        units[k] = 0 if minimal else e
        for basis, found in ((reached, first), (both, second)):
            basis[k, :, : found.shape[1]] = np.eye(n) if minimal else found
    return units, reached, both


def default_tolerance(n: int, eps: float) -> float:
    """What counts as zero beside the norm of the model in balanced units."""
    return 10 * n * eps


def _subspaces(a: Array, b: Array, c: Array, *, limit: float) -> tuple[Array, Array, Array]:
    a, b, c = _divide_by_size(a, _largest(a).max(initial=0)), _unit_columns(b), _unit_columns(c.T).T
    e = _balancing_units(a, b, c)
    size = np.exp2(e)
    a, b, c = a * size / size[:, None], b / size[:, None], c * size
    b, c = _unit_columns(b), _unit_columns(c.T).T
    first = _controllable(a, b, limit)
    second = first @ _controllable((first.conj().T @ a @ first).conj().T, (c @ first).conj().T, limit)
    return e, first, second


def _unit_columns(b: Array) -> Array:
    """The columns scaled to length 1; zero columns stay."""
    b = _divide_by_size(b, _largest(b).max(axis=0, initial=0))
    size = np.linalg.norm(b, axis=0)
    return b / np.where(size > 0, size, 1)


def _largest(x: Array) -> Array:
    """The larger one of |re| and |im| of each entry, which does not overflow."""
    return np.maximum(np.abs(x.real), np.abs(x.imag))


def _divide_by_size(x: Array, size: Array) -> Array:
    """x / size up to a factor of 2, also for denormal sizes; unchanged where size is 0."""
    shift = -np.frexp(size)[1]
    return np.ldexp(x.real, shift) + 1j * np.ldexp(x.imag, shift) if np.iscomplexobj(x) else np.ldexp(x, shift)


def _balancing_units(a: Array, b: Array, c: Array) -> Array:
    """Exponents e: the rows of [2^-e a 2^e, 2^-e b] and the columns of [2^-e a 2^e; c 2^e] get similar norms.

    A state whose row or column is zero has no such unit. The other one of the two becomes as small as those of the other states,
    which would seem zero beside it.
    """
    n = len(a)
    within = np.abs(a) * (1 - np.eye(n))
    inputs, outputs = np.abs(b).sum(axis=1), np.abs(c).sum(axis=0)
    e, least = np.zeros(n, np.int64), np.inf
    for _ in range(_SWEEPS):
        before, (least, limit) = e.copy(), (np.inf, least)
        for k in range(n):
            row = (within[k] * np.exp2(e - e[k])).sum() + inputs[k] * np.exp2(-e[k])
            column = (within[:, k] * np.exp2(e[k] - e)).sum() + outputs[k] * np.exp2(e[k])
            if row > 0 and column > 0:
                change, least = np.log2(row / column) / 2, min(least, np.sqrt(row) * np.sqrt(column))
            else:
                change = np.log2(max(row / limit, 1.0)) - np.log2(max(column / limit, 1.0))
            e[k] = np.clip(e[k] + round(change), -_RANGE, _RANGE)
        if (e == before).all() and least == limit:
            break
    return e


def _controllable(a: Array, b: Array, limit: float) -> Array:
    """Orthonormal columns that span the controllable subspace of (a, b), up to changes of `limit` times the norms of both."""
    basis = np.zeros((len(a), 0), a.dtype)
    for power in _LEVELS:
        basis = _staircase(a, b, limit**power)
        if basis.shape[1] == len(a):
            return basis
        basis, change = _corrected_basis(a, b, basis)
        if change <= limit:
            return basis
    return basis


def _staircase(a: Array, b: Array, limit: float) -> Array:
    """The basis, block by block; singular values of at most `limit` times the norm of a or b count as zero."""
    basis, size = np.zeros((len(a), 0), a.dtype), np.linalg.norm(a)
    block, largest = b, np.linalg.norm(b)
    while basis.shape[1] < len(a) and block.shape[1]:
        for _ in range(2):  # once leaves rounding errors in the span of the basis
            block = block - basis @ (basis.conj().T @ block)
        vectors, values, _ = np.linalg.svd(block, full_matrices=False)
        new = vectors[:, values > limit * largest]
        new, _ = np.linalg.qr(new - basis @ (basis.conj().T @ new))
        basis, block, largest = np.hstack([basis, new]), a @ new, size
    return basis


def _corrected_basis(a: Array, b: Array, basis: Array) -> tuple[Array, float]:
    """(basis, change): the nearest basis by Gauss-Newton steps, and the relative change that makes its span controllable."""
    basis, change = basis, _change(a, b, basis)
    for _ in range(_CORRECTIONS if basis.shape[1] else 0):
        rest = np.linalg.qr(basis, mode="complete")[0][:, basis.shape[1] :]
        nearer, _ = np.linalg.qr(basis + rest @ _correction(*_blocks(a, b, basis, rest)))
        smaller = _change(a, b, nearer)
        if not smaller < change:
            break
        basis, change = nearer, smaller
    return basis, change


def _change(a: Array, b: Array, basis: Array) -> float:
    """The larger one of ‖(I - p) a p‖ / ‖a‖ and ‖(I - p) b‖ / ‖b‖ for the projector p on the span."""
    outside = (x - basis @ (basis.conj().T @ x) for x in (a @ basis, b))
    sizes = (np.linalg.norm(x) or 1.0 for x in (a, b))
    return float(max(np.linalg.norm(x) / size for x, size in zip(outside, sizes, strict=True)))


def _blocks(a: Array, b: Array, basis: Array, rest: Array) -> tuple[Array, Array, Array, Array, Array]:
    """The blocks (a11, b1, a21, b2, a22) of the model in these two bases."""
    inner, outer = basis.conj().T, rest.conj().T
    return inner @ a @ basis, inner @ b, outer @ a @ basis, outer @ b, outer @ a @ rest


def _correction(a11: Array, b1: Array, a21: Array, b2: Array, a22: Array) -> Array:
    """z with z a11 - a22 z = a21 and z b1 = b2, a least-squares solution for each row in the Schur vectors of a22.

    The span of basis + rest z is invariant to first order. Each row has a unique solution, because (a11, b1) is controllable.
    """
    t, u = scipy.linalg.schur(a22, output="complex")
    wanted = u.conj().T @ np.hstack([a21, b2])
    z, r = np.zeros((len(a22), len(a11)), u.dtype), len(a11)
    for k in reversed(range(len(a22))):
        right = wanted[k].copy()
        right[:r] += t[k, k + 1 :] @ z[k + 1 :]
        left = np.hstack([a11 - t[k, k] * np.eye(r), b1])
        z[k] = np.linalg.lstsq(left.T, right, rcond=None)[0]
    z = u @ z
    return z if np.iscomplexobj(a22) else z.real
