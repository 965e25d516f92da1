"""Inverses of Hermitian positive definite matrices by halves, nearly all of it in products.

With a = [b c; cᴴ d], y = b⁻¹ c and the Schur complement e = d - cᴴ y:  a⁻¹ = [b⁻¹ + y e⁻¹ yᴴ, -y e⁻¹; -e⁻¹ yᴴ, e⁻¹]. There are no
pivots: of other matrices the inverse may be anything, or not finite.
"""

from __future__ import annotations

import functools
import operator

from matsign._typing import Array
from matsign.backends import Backend
from matsign.linalg.stacks import adjoint, hermitian

# LAPACK inverts matrices up to this size.
_SIZE = 64
# Up to this size one stack has all shifts.
_SIZE_OF_STACKS = 512


def definite_inverse(backend: Backend, a: Array) -> Array:
    """a⁻¹ by 4/3 n³ flops."""
    if a.shape[-1] <= _SIZE:
        return backend.inv(a)
    first, y, last = _eliminate(backend, a)
    beside = y @ last
    first += beside @ adjoint(y)
    return _assemble(backend, first, beside, last)


def sum_of_inverses(backend: Backend, a: Array, shifts: tuple[float, ...], weights: tuple[float, ...]) -> Array:
    """Σ weight (a + shift I)⁻¹, Hermitian to the last bit; a has at least two rows."""
    if a.shape[-1] > _SIZE_OF_STACKS and len(shifts) > 1:
        terms = (sum_of_inverses(backend, a, (s,), (w,)) for s, w in zip(shifts, weights, strict=True))
        return functools.reduce(operator.iadd, terms)
    xp, count = backend.xp, len(a)
    shifted = backend.add_diagonal(xp.concat([a] * len(shifts)), xp.concat([s * backend.ones(a) for s in shifts]))
    first, y, last = _eliminate(backend, shifted)
    for k, weight in enumerate(weights):
        first[k * count : (k + 1) * count] *= weight
        last[k * count : (k + 1) * count] *= weight
    beside = y @ last
    first += beside @ adjoint(y)
    first, beside, last = (xp.sum(xp.reshape(x, (-1, count, *x.shape[1:])), axis=0) for x in (first, beside, last))
    return _assemble(backend, hermitian(first), beside, hermitian(last))


def _eliminate(backend: Backend, a: Array) -> tuple[Array, Array, Array]:
    """b⁻¹, y and e⁻¹."""
    half = (a.shape[-1] + 1) // 2
    c = a[..., :half, half:]
    first = definite_inverse(backend, a[..., :half, :half])
    y = first @ c
    # Without the Hermitian part rounding errors would grow with the square of the condition number.
    return first, y, definite_inverse(backend, hermitian(a[..., half:, half:] - adjoint(c) @ y))


def _assemble(backend: Backend, first: Array, beside: Array, last: Array) -> Array:
    """The matrix [first, -beside; -besideᴴ, last]."""
    half, n = first.shape[-1], first.shape[-1] + last.shape[-1]
    out = backend.zeros((len(first), n, n), first)
    out[..., :half, :half] = first
    out[..., half:, half:] = last
    out[..., :half, half:] = -beside
    out[..., half:, :half] = -adjoint(beside)
    return out
