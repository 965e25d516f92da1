"""The Fermi-Dirac function of a matrix by doubling its argument.

With t = tanh(x/2), the occupation 1/(1 + eˣ) is (1 - t)/2. Doubling x takes

    t to 2 t / (1 + t²)    and    log cosh(x/2) to 2 log cosh(x/2) + log(1 + t²),

so that a polynomial for x/2^k of size below 1/4 and k doublings give both functions. Since 1 ≤ 1 + t² ≤ 2, its inverse and its
logarithm are short Chebyshev series of u = 2 t² - 1: with ρ = 3 + √8 and Chebyshev polynomials Tⱼ,

    1/(1 + t²) = (1 + 2 Σ (-ρ)^-j Tⱼ(u)) / √2,    log(1 + t²) = log(ρ/4) - 2 Σ (-ρ)^-j Tⱼ(u) / j.

The first series is cut early, and one Newton-Schulz step squares its error. For traces, Tⱼ up to d suffice for the second one up
to 2d. These are products alone. Sources: Niklasson 2003, Goedecker 1999.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from matsign._typing import Array
from matsign.backends import Backend
from matsign.linalg.conditioning import spectral_norm_bound
from matsign.linalg.stacks import broadcast_scalar, eye, hermitian, inner, scale_to_unit, trace

# tanh y = y (a₀ + a₁ y² + …); for |y| < 1/8 half of the coefficients suffice in single precision.
_TANH = (1, -1 / 3, 2 / 15, -17 / 315, 62 / 2835, -1382 / 155925, 21844 / 6081075, -929569 / 638512875)
_RHO = 3 + math.sqrt(8)
# More doublings than the x of any caller need: for larger x, rounding of x alone moves the occupation.
_MOST = 80


def _is_double(backend: Backend, x: Array) -> bool:
    return backend.eps(x) < 1e-10


def _doublings(backend: Backend, x: Array) -> tuple[Array, Array]:
    """(y, k) with x/2 = 2^k y and the 2-norm of y below 1/8."""
    unit, e = scale_to_unit(backend, x)
    k = backend.exponent(spectral_norm_bound(backend, unit)) + e + 2
    k = backend.xp.minimum(backend.xp.maximum(k, 0 * k), 0 * k + _MOST)
    return backend.ldexp(unit, broadcast_scalar(e - 1 - k)), k


def _initial(backend: Backend, y: Array) -> tuple[Array, Array]:
    """tanh(y) and tr log cosh(y) for the norm of y below 1/8, by six products."""
    a = _TANH if _is_double(backend, y) else _TANH[:4]
    product = backend.hermitian_product
    powers = [eye(backend, y) + 0 * y, hermitian(product(y, y))]
    powers += [product(powers[1], powers[1])]
    powers += [product(powers[2], powers[1]), product(powers[2], powers[2])]
    series = sum(c * x for c, x in zip(a[:4], powers, strict=False))
    if a[4:]:
        series = series + product(powers[4], sum(c * x for c, x in zip(a[4:], powers, strict=False)))
    halves = ((k // 2, k - k // 2) for k in range(1, len(a) + 1))
    logarithm = sum(
        c / (2 * k + 2) * inner(backend, powers[i], powers[j])
        for k, (c, (i, j)) in enumerate(zip(a, halves, strict=True))
    )
    return hermitian(product(y, series)), logarithm


def _double(backend: Backend, t: Array, logarithm: Array) -> tuple[Array, Array]:
    """One doubling of tanh and of tr log cosh, for Hermitian t."""
    degree, n, product = 10 if _is_double(backend, t) else 5, t.shape[-1], backend.hermitian_product
    one, square = eye(backend, t), hermitian(product(t, t))
    before, now = one + 0 * t, 2 * square - one
    first, u = trace(backend, now).real, now
    inverse, sums = before + 2 / -_RHO * now, first / -_RHO
    for j in range(1, degree + 1):
        if j > 1:
            before, now = now, 2 * product(u, now) - before
            inverse = inverse + 2 * (-_RHO) ** -j * now
            odd = 2 * inner(backend, before, now) - first
            sums = sums + (-_RHO) ** (1 - 2 * j) / (2 * j - 1) * odd
        sums = sums + (-_RHO) ** (-2 * j) / (2 * j) * (2 * backend.norm(now) ** 2 - n)
    inverse = inverse / math.sqrt(2)
    inverse = product(inverse, 2 * one - inverse - product(square, inverse))
    return hermitian(product(t, 2 * inverse)), 2 * logarithm + n * math.log(_RHO / 4) - 2 * sums


def occupation_by_products(backend: Backend, x: Array) -> tuple[Array, Array, Array]:
    """1/(1 + eˣ) of Hermitian matrices, its entropy tr(log(2 cosh(x/2)) - x/2 tanh(x/2)), and the number of doublings."""
    y, k = _doublings(backend, x)
    t, logarithm = _initial(backend, y)

    def step(state: tuple[Array, ...]) -> tuple[tuple[Array, ...], Array]:
        t, logarithm, y, left, k = state
        new, more = _double(backend, t, logarithm)
        active = left > 0
        t = backend.xp.where(broadcast_scalar(active), new, t)
        logarithm = backend.xp.where(active, more, logarithm)
        y = backend.xp.where(broadcast_scalar(active), 2 * y, y)
        left = backend.xp.where(active, left - 1, left)
        return (t, logarithm, y, left, k), left > 0

    t, logarithm, y, _, k = backend.loop(step, (t, logarithm, y, k, k), _MOST)
    entropy = x.shape[-1] * math.log(2) + logarithm - inner(backend, y, t)
    return (eye(backend, t) - t) / 2, entropy, k


def occupation_by_inverses(backend: Backend, x: Array, inverse: Callable[[Array], Array]) -> Array:
    """1/(1 + eˣ) of matrices with a real spectrum, such as block triangular ones, by one inverse for each doubling."""
    y, k = _doublings(backend, x)
    square, one = y @ y, eye(backend, y)
    series = _TANH[-1] * one
    for c in _TANH[-2::-1]:
        series = square @ series + c * one
    t = y @ series

    def step(state: tuple[Array, Array]) -> tuple[tuple[Array, Array], Array]:
        t, left = state
        new = 2 * t @ inverse(t @ t + eye(backend, t))
        active = left > 0
        left = backend.xp.where(active, left - 1, left)
        return (backend.xp.where(broadcast_scalar(active), new, t), left), left > 0

    t, _ = backend.loop(step, (t, k), _MOST)
    return (one - t) / 2
