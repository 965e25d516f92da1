"""Backward errors and correction steps of powers, roots and the logarithm.

The backward error of X = A^t is that of A = X^{1/t} for |t| ≤ 1. For a larger t it takes two steps, Y = A^{t/m} and X = Y^m; that
of an integer power is the residual of a product. The forward error is the derivative of f at A in the direction of the residual.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import scipy

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core.public import Residual
from matsign.core.scaling import at_least_rounded
from matsign.core.tolerances import rank_tolerance
from matsign.functions.powers.power_derivatives import solve_frechet
from matsign.functions.powers.power_methods import Units, balance_units, matrix_function, scale_units
from matsign.functions.powers.root_corrections import probes
from matsign.linalg.scalar_powers import LOGARITHM, Exponent, exponent
from matsign.linalg.stacks import eye, is_hermitian, safe_divisor

# Reciprocals of smaller exponents overflow.
_LARGEST_POWER = Fraction(10**300)


def in_units(backend: Backend, a: Array) -> tuple[Units, Array]:
    """Units in which a has size 1; balanced, unless a member is Hermitian, which must stay so."""
    if not backend.is_traced(a) and backend.all_true(~is_hermitian(a)):
        return balance_units(backend, a)
    return scale_units(backend, a)


def steps(
    backend: Backend, a: Array, gap: Array, *, power: Exponent, rtol: float | None, more: tuple[Array, ...] = ()
) -> Array:
    """L(a, e) for the residual and for a few changes of a by rounding, and `more` steps, (B, k, n, n)."""
    noise = probes(backend, a, backend.norm(a))
    directions = [gap, *(noise[:, k] + 0 * a for k in range(noise.shape[1]))]
    changes = [solve_frechet(backend, a, e, power=power, rtol=rtol).value[0] for e in directions]
    return backend.xp.concat([x[:, None] for x in (*changes, *more)], axis=1)


def relative_norm(backend: Backend, gap: Array, *terms: Array) -> Array:
    return backend.norm(gap) / safe_divisor(backend, sum(backend.norm(x) for x in terms))


def power_residual(backend: Backend, x: Array, a: Array, *, t: Fraction, rtol: float | None) -> Residual:
    """The residual of X = A^t, for the exact exponent t."""
    power = exponent(t)
    units, a = in_units(backend, a)
    value, x = x, units.inward(backend, x, power)
    if t.denominator == 1:
        backward, correction = _integer_residual(backend, x, a, power, rtol)
    else:
        backward, correction = _fractional_residual(backend, x, a, t, rtol)
    outward = [units.outward(backend, correction[:, k], power)[:, None] for k in range(correction.shape[1])]
    return Residual(backward, (at_least_rounded(backend, backend.xp.concat(outward, axis=1), value[:, None]),))


def _fractional_residual(backend: Backend, x: Array, a: Array, t: Fraction, rtol: float | None) -> tuple[Array, Array]:
    """The backward error, and the steps for the residual and for rounding."""
    parts = math.ceil(abs(t))
    # For a small t the derivative is small, but the entries of X, which is near I, are rounded.
    more: tuple[Array, ...] = (backend.eps(a) * x,)
    root, backward = x, 0 * backend.norm(a)
    if parts > 1:
        root = _function(backend, a, t / parts, rtol)
        whole = _function(backend, root, Fraction(parts), rtol)
        backward, more = relative_norm(backend, x - whole, x, whole), (*more, x - whole)
    # The eigenvalues of the root that are not zero are above rtol^t; those that are, are zero to rounding.
    fine = rank_tolerance(backend, a, rtol) ** max(0.5, min(1.0, float(abs(t)) / parts))
    back = _function(backend, root, parts / t, max(fine, a.shape[-1] * backend.eps(a)))
    backward = backend.xp.maximum(backward, relative_norm(backend, a - back, a, back))
    return backward, steps(backend, a, a - back, power=exponent(t), rtol=rtol, more=more)


def _integer_residual(backend: Backend, x: Array, a: Array, power: Exponent, rtol: float | None) -> tuple[Array, Array]:
    """X = A A^{k-1}, or Aᵏ X Aᵏ = Aᵏ for the inverse power, also where it is the inverse on the range."""
    k = round(power.value)
    if k == 0:
        gap = eye(backend, a) - x
        correction, backward = gap[:, None], relative_norm(backend, gap, x)
    elif k > 0:
        product = a @ _function(backend, a, Fraction(k - 1), rtol)
        backward = relative_norm(backend, x - product, x, product)
        correction = steps(backend, a, 0 * a, power=power, rtol=rtol, more=(x - product,))
    else:
        whole = _function(backend, a, Fraction(-k), rtol)
        again = whole @ x @ whole
        backward = relative_norm(backend, whole - again, whole, again)
        correction = steps(backend, a, 0 * a, power=power, rtol=rtol, more=(x @ (whole - again) @ x,))
    return backward, correction


def _function(backend: Backend, a: Array, t: Fraction, rtol: float | None) -> Array:
    power = exponent(max(min(t, _LARGEST_POWER), -_LARGEST_POWER))
    return matrix_function(backend, a, power=power, rtol=rtol, method="auto").value[0]


def logarithm_residual(backend: Backend, value: tuple[Array], a: Array, *, rtol: float | None) -> Residual:
    """exp(X) = A."""
    units, a = in_units(backend, a)
    x = units.inward(backend, value[0], LOGARITHM)
    back = backend.host_callback(_exponential, a, x)
    correction = steps(backend, a, a - back, power=LOGARITHM, rtol=rtol)
    changes = [units.balance_direction(backend, correction[:, k], 1)[:, None] for k in range(correction.shape[1])]
    return Residual(relative_norm(backend, a - back, a, back), (backend.xp.concat(changes, axis=1),))


def _exponential(stack: Array) -> Array:
    """exp(Q X Q) for a reflection Q: for triangular X SciPy divides by differences of eigenvalues, which may be tiny."""
    n = stack.shape[-1]
    v = np.arange(1.0, n + 1) / math.sqrt(n * (n + 1) * (2 * n + 1) / 6)
    q = np.eye(n) - 2 * np.outer(v, v)
    with np.errstate(all="ignore"):
        finite = np.isfinite(stack).all((-1, -2))
        x = np.where(finite[:, None, None], stack, 0 * np.nan_to_num(stack))
        double = x.astype(complex if np.iscomplexobj(x) else float)
        value = q @ scipy.linalg.expm(q @ double @ q) @ q
        return np.where(finite[:, None, None], value, np.nan).astype(stack.dtype)


def is_singular(backend: Backend, a: Array) -> Array:
    """Where a has a zero eigenvalue to working precision: roots and inverses have no derivative there."""
    _, values, _ = backend.svd(scale_units(backend, a)[1])
    return values[:, -1] <= a.shape[-1] * backend.eps(a) * values[:, 0]
