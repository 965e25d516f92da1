"""Means A #_t B of small definite pairs in decimal arithmetic on the CPU, for pairs that are graded too differently for doubles.

With A = K Kᵀ and the eigenvectors of K⁻¹ B K⁻ᵀ = V Λ Vᵀ by Jacobi's method the mean is K V Λ^t Vᵀ Kᵀ. The condition numbers of A
and B say how many digits this loses, and so many more are used.
"""

from __future__ import annotations

import contextlib
import decimal
import math
from collections.abc import Iterator
from decimal import Decimal
from typing import NamedTuple

import numpy as np

from matsign._typing import Array
from matsign.backends import Backend
from matsign.linalg import decimal_matrices

# Rows, of the real form of complex matrices, up to which a mean takes less than about a second.
_LARGEST = 24
_GUARD, _SWEEPS = 60, 60


def affordable(backend: Backend, a: Array) -> bool:
    """Not for traced arrays, and not for large matrices."""
    return not backend.is_traced(a) and a.shape[-1] * (2 if backend.is_complex(a) else 1) <= _LARGEST


def decimal_means_of(backend: Backend, mask: Array, a: Array, b: Array, t: float) -> Array:
    """The means of the members in `mask`, with all digits; NaN for the others, and where it is not affordable."""
    none = backend.xp.full_like(a, math.nan)
    if not affordable(backend, a):
        return none
    result: Array = backend.masked_cond(
        mask,
        lambda a, b, none: backend.host_callback(_solve, a, a, b, t * backend.ones(a)),
        lambda a, b, none: none,
        *(a, b, none),
    )
    return result


def _solve(a: Array, b: Array, t: Array) -> Array:
    out = np.full_like(a, np.nan)
    for x, y, weight, target in zip(a, b, t, out, strict=True):
        with enough_digits(x, y), contextlib.suppress(ArithmeticError):
            target[...] = decimal_matrices.to_floats(_mean(x, y, Decimal(float(weight))), target)
    return out


@contextlib.contextmanager
def enough_digits(a: Array, b: Array) -> Iterator[None]:
    """Decimal arithmetic with as many digits as a pair needs."""
    with decimal_matrices.precision(_digits(a) + _digits(b) + _GUARD), np.errstate(over="ignore", under="ignore"):
        yield


def _digits(a: Array) -> int:
    """The decimal digits between the largest and the smallest entry of the diagonal."""
    d = np.log10(np.abs(np.diagonal(a).astype(complex)) + 1e-320)
    return math.ceil(d.max() - d.min())


class Diagonal(NamedTuple):
    """P, its inverse and λ with A = P Pᵀ and B = P diag(λ) Pᵀ."""

    p: Array
    inverse: Array
    values: Array

    def powers(self, t: Decimal) -> Array:
        return np.array([value**t for value in self.values], object)


def diagonalise(a: Array, b: Array) -> Diagonal:
    x, y = (decimal_matrices.from_floats(m) for m in (a, b))
    k = _cholesky((x + x.T) / 2)
    inverse = decimal_matrices.inverse(k)
    values, v = _eigenvectors(inverse @ ((y + y.T) / 2) @ inverse.T)
    return Diagonal(k @ v, v.T @ inverse, values)


def _mean(a: Array, b: Array, t: Decimal) -> Array:
    d = diagonalise(a, b)
    return (d.p * d.powers(t)) @ d.p.T


def _cholesky(a: Array) -> Array:
    n, low = len(a), np.full_like(a, Decimal(0))
    for j in range(n):
        pivot = a[j, j] - low[j, :j] @ low[j, :j] if j else a[j, j]
        if pivot <= 0:
            raise decimal.InvalidOperation("not definite")
        low[j, j] = pivot.sqrt()
        for i in range(j + 1, n):
            low[i, j] = (a[i, j] - (low[i, :j] @ low[j, :j] if j else 0)) / low[j, j]
    return low


def _eigenvectors(y: Array) -> tuple[Array, Array]:
    """Eigenvalues and eigenvectors by Jacobi's method, whose rotations stop when all angles are below rounding."""
    y, n = (y + y.T) / 2, len(y)
    v, small = decimal_matrices.eye(n), Decimal(10) ** (_GUARD // 2 - decimal.getcontext().prec)
    for _ in range(_SWEEPS):
        rotated = False
        for p in range(n - 1):
            for q in range(p + 1, n):
                if y[p, q] ** 2 > small**2 * abs(y[p, p] * y[q, q]):
                    _rotate(y, v, p, q)
                    rotated = True
        if not rotated:
            break
    values = np.diagonal(y)
    if rotated or min(values) <= 0:
        raise decimal.InvalidOperation("not definite")
    return values, v


def _rotate(y: Array, v: Array, p: int, q: int) -> None:
    """The rotation of the planes p, q that makes y_pq zero, in place."""
    slope = (y[q, q] - y[p, p]) / (2 * y[p, q])
    tangent = (1 if slope >= 0 else -1) / (abs(slope) + (slope**2 + 1).sqrt())
    cosine = 1 / (tangent**2 + 1).sqrt()
    sine = tangent * cosine
    for m in (y.T, y, v.T):
        m[p], m[q] = cosine * m[p] - sine * m[q], sine * m[p] + cosine * m[q]
