"""First derivatives of means A #_t B in decimal arithmetic, for the pairs of `decimal_mean`.

With A = P Pᵀ and B = P Λ Pᵀ, so that A #_t B = P Λ^t Pᵀ,

    dG = P (K_A ∘ P⁻¹ dA P⁻ᵀ + K_B ∘ P⁻¹ dB P⁻ᵀ) Pᵀ,
    K_B = (λᵢ^t - λⱼ^t)/(λᵢ - λⱼ),    K_A = (λᵢ^t + λⱼ^t)/2 - K_B (λᵢ + λⱼ)/2.

The second derivative is NaN.
"""

from __future__ import annotations

import contextlib
import math
from decimal import Decimal
from typing import Any

import numpy as np

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.members import Solution, solution
from matsign.core.operations import Operation, apply, shapes_of
from matsign.functions.means.decimal_mean import Diagonal, diagonalise, enough_digits
from matsign.linalg import decimal_matrices


def decimal_tangent(backend: Backend, a: Array, b: Array, tangents: Arrays, t: float) -> Array:
    """dG."""
    return apply(backend, _TANGENT, a, b, *tangents[:2], t=t)[0]


def decimal_cotangents(backend: Backend, a: Array, b: Array, bar: Array, t: float) -> Arrays:
    return apply(backend, _COTANGENTS, a, b, bar, t=t)


def _kernels(d: Diagonal, t: Decimal) -> tuple[Array, Array]:
    """K_A and K_B."""
    values, powers, n = d.values, d.powers(t), len(d.values)
    of_b = np.empty((n, n), object)
    for i in range(n):
        for j in range(n):
            gap = values[i] - values[j]
            of_b[i, j] = (powers[i] - powers[j]) / gap if gap else t * powers[i] / values[i]
    return ((powers[:, None] + powers) - of_b * (values[:, None] + values)) / 2, of_b


def _host_tangent(a: Array, b: Array, da: Array, db: Array, t: Array) -> Array:
    out = np.full_like(a, np.nan)
    for x, y, dx, dy, weight, target in zip(a, b, da, db, t, out, strict=True):
        with enough_digits(x, y), contextlib.suppress(ArithmeticError):
            d = diagonalise(x, y)
            both = zip(_kernels(d, Decimal(float(weight))), (dx, dy), strict=True)
            inside = sum(k * (d.inverse @ decimal_matrices.from_floats(m) @ d.inverse.T) for k, m in both)
            target[...] = decimal_matrices.to_floats(d.p @ inside @ d.p.T, target)
    return out


def _host_cotangents(a: Array, b: Array, bar: Array, t: Array) -> tuple[Array, Array]:
    out = np.full_like(a, np.nan), np.full_like(a, np.nan)
    for x, y, z, weight, *targets in zip(a, b, bar, t, *out, strict=True):
        with enough_digits(x, y), contextlib.suppress(ArithmeticError):
            d = diagonalise(x, y)
            inside = d.p.T @ decimal_matrices.from_floats(z) @ d.p
            for kernel, target in zip(_kernels(d, Decimal(float(weight))), targets, strict=True):
                cotangent = d.inverse.T @ (kernel * inside) @ d.inverse
                target[...] = decimal_matrices.to_floats(cotangent, target)
    return out


def _without_derivative(backend: Backend, value: Arrays, arrays: Arrays, steps: Arrays, **options: Any) -> Arrays:
    return tuple(backend.xp.full_like(x, math.nan) for x in value)


def _without_cotangent(backend: Backend, value: Arrays, arrays: Arrays, bars: Arrays, **options: Any) -> Arrays:
    return tuple(backend.xp.full_like(x, math.nan) for x in arrays)


def _solve_tangent(backend: Backend, a: Array, b: Array, da: Array, db: Array, *, t: float) -> Solution:
    return solution(backend, (backend.host_callback(_host_tangent, a, a, b, da, db, t * backend.ones(a)),))


def _solve_cotangents(backend: Backend, a: Array, b: Array, bar: Array, *, t: float) -> Solution:
    return solution(backend, backend.host_callback(_host_cotangents, (a, a), a, b, bar, t * backend.ones(a)))


_TANGENT = Operation(
    "derivative of the mean of a graded pair",
    shapes_of("(n,n),(n,n),(n,n),(n,n)"),
    shapes_of("(n,n)"),
    solve=_solve_tangent,
    tangent=_without_derivative,
    cotangent=_without_cotangent,
)
_COTANGENTS = Operation(
    "cotangents of the mean of a graded pair",
    shapes_of("(n,n),(n,n),(n,n)"),
    shapes_of("(n,n),(n,n)"),
    solve=_solve_cotangents,
    tangent=_without_derivative,
    cotangent=_without_cotangent,
)
