"""Algebraic Riccati equations by doubling in decimal arithmetic: for small plants on the CPU, after other methods failed.

Strongly unstable plants with few inputs have solutions whose eigenvalues differ by factors of 1e10 to 1e50. The large entries
are well conditioned, but the closed loop of the rounded solution is unstable, so Newton's method in working precision cannot
start. Doubling (Chu, Fan, Lin & Wang 2004) loses the same digits; it is repeated with twice as many until two results agree.

Anti-stabilising solutions are minus the stabilising ones of the problem with time reversed, here with the inverse of a: for
v⁺ = a v - g p⁺, p = q v + aᴴ p⁺ read backwards, with -p in place of p,

    a₁ = (a + g a⁻ᴴ q)⁻¹,    g₁ = a⁻¹ g a₁ᴴ,    q₁ = a₁ᴴ q a⁻¹.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np

from matsign._typing import Array
from matsign.linalg import decimal_matrices
from matsign.linalg.decimal_matrices import eye, from_floats, inverse, size

# The largest digits × n³ that is tried, one or two seconds: a doubling step has about ten products of n³ multiplications
# of 0.1 µs, more with more digits.
_BUDGET = 1 << 22
_FIRST = 64
_AGREED = Decimal("1e-18")
# An eigenvalue one rounding away from the boundary needs 53 doublings; for one on the boundary each halves the error.
_STEPS = 72


class DecimalSolution(NamedTuple):
    """x, closed loop a - b k, gain k, number of doublings until the powers of the closed loop vanished, whether x is right to
    working precision.
    """

    x: Array
    closed: Array
    gain: Array
    doublings: Array
    found: Array

    @property
    def stable(self) -> Array:
        """Whether the closed loop is stable."""
        return self.doublings < _STEPS


def affordable(n: int, *, is_complex: bool, times: int = 1) -> bool:
    """Whether the budget allows `times` solutions, each in two precisions, of plants of size n."""
    return times * 2 * _FIRST * (2 * n if is_complex else n) ** 3 <= _BUDGET


def solve(
    discrete: bool,
    backwards: bool,
    a: Array,
    b: Array,
    q: Array,
    r: Array | None,
    e: Array | None,
    s: Array | None,
) -> tuple[Array, Array, Array, Array, Array]:
    """The `DecimalSolution` of a stack; NaN for members where no two precisions agree.

    `backwards`: the anti-stabilising solutions.
    """
    count = len(a)
    x, closed, gain = (np.full_like(m, np.nan) for m in (q, a, b.swapaxes(-1, -2)))
    out = DecimalSolution(x, closed, gain, np.zeros(count, np.int32), np.zeros(count, bool))
    for k in range(len(a)):
        plant = [None if m is None else m[k] for m in (a, b, q, r, e, s)]
        result = _agreement(discrete, backwards, plant)
        if result is not None:
            for target, y in zip(out[:3], result[:3], strict=True):
                with np.errstate(over="ignore"):
                    target[k] = decimal_matrices.to_floats(y, target[k])
            out.doublings[k] = result[3]
            out.found[k] = bool(np.isfinite(out.x[k]).all())
    return out


def _agreement(discrete: bool, backwards: bool, plant: list[Any]) -> tuple[Array, Array, Array, int] | None:
    """(x, closed loop, gain, doublings) on which two precisions agree, or None."""
    previous: Array | None = None
    for count in _precisions(len(plant[0]), is_complex=any(np.iscomplexobj(m) for m in plant)):
        with decimal_matrices.precision(count):
            try:
                x, closed, gain, steps = _double_problem(
                    discrete, backwards, [None if m is None else from_floats(m) for m in plant]
                )
            except ArithmeticError:  # a matrix is singular at this precision
                previous = None
                continue
            if previous is not None and size(x - previous) <= _AGREED * size(x):
                return x, closed, gain, steps
            previous = x
    return None


def _precisions(n: int, *, is_complex: bool) -> Iterator[int]:
    n, count = 2 * n if is_complex else n, _FIRST
    while count * n**3 <= _BUDGET and count <= 16 * _FIRST:
        yield count
        count *= 2


def _double_problem(discrete: bool, backwards: bool, plant: list[Any]) -> tuple[Array, Array, Array, int]:
    """(x, closed loop, gain, doublings) at the current precision; a descriptor e is inverted first."""
    a, b, q, r, e, s = plant
    s = 0 * b if s is None else s
    e_inverse = eye(len(a)) if e is None else inverse(e)
    if e is not None:
        a, q, s = a @ e_inverse, e_inverse.T @ q @ e_inverse, e_inverse.T @ s
    x, steps = (_discrete if discrete else _continuous)(backwards, a, b, q, r, s)
    gain = _gain(x @ a if discrete else x, discrete, x, b, r, s)
    closed = a - b @ gain
    return (x, closed, gain, steps) if e is None else (x, closed @ e, gain @ e, steps)


def _gain(right: Array, discrete: bool, x: Array, b: Array, r: Array | None, s: Array) -> Array:
    """k with `right` = x or x a; b = g if r is None."""
    if r is None:
        return inverse(eye(len(x)) + x @ b) @ right if discrete else right
    return inverse(r + b.T @ x @ b if discrete else r) @ (b.T @ right + s.T)


def _continuous(backwards: bool, a: Array, b: Array, q: Array, r: Array | None, s: Array) -> tuple[Array, int]:
    """By a Cayley transform, as in working precision; its point γ need not be chosen carefully here."""
    a, g, q = _without_cross(a, b, q, r, s)
    a = -a if backwards else a
    n = len(a)
    gamma = max(size(a), (size(g) * size(q)).sqrt()) / Decimal(n).sqrt() * Decimal("1.1") or Decimal(1)
    v = inverse(a - gamma * eye(n))
    w = inverse(a.T - gamma * eye(n) + q @ v @ g)
    x, steps = _double(eye(n) + 2 * gamma * w.T, 2 * gamma * (v @ g @ w), 2 * gamma * (w @ q @ v))
    return (-x if backwards else x), steps


def _discrete(backwards: bool, a: Array, b: Array, q: Array, r: Array | None, s: Array) -> tuple[Array, int]:
    """By doubling; if r is singular, for y = x - γI, which has r + γ bᴴb in place of r."""
    try:
        return _double_from(backwards, *_without_cross(a, b, q, r, s))
    except ArithmeticError:
        if r is None:
            raise
        g = size(q) or Decimal(1)
        shifted = b, q + g * (a.T @ a - eye(len(a))), r + g * (b.T @ b), s + g * (a.T @ b)
        y, steps = _double_from(backwards, *_without_cross(a, *shifted))
        return y + g * eye(len(a)), steps


def _without_cross(a: Array, b: Array, q: Array, r: Array | None, s: Array) -> tuple[Array, Array, Array]:
    if r is None:
        return a, b, q
    r = inverse(r)
    return a - b @ r @ s.T, b @ r @ b.T, q - s @ r @ s.T


def _double_from(backwards: bool, a: Array, g: Array, q: Array) -> tuple[Array, int]:
    if not backwards:
        return _double(a, g, q)
    ai = inverse(a)
    a1h = inverse(a.T + q @ ai @ g)
    y, steps = _double(a1h.T, ai @ g @ a1h, a1h @ q @ ai)
    return -y, steps


def _double(a: Array, g: Array, h: Array) -> tuple[Array, int]:
    """(h, number of doublings until a vanished) for the symplectic pencil [[a, 0], [-h, I]] - λ [[I, g], [0, aᵀ]]."""
    one, half, small = eye(len(a)), Decimal("0.5"), Decimal("1e-20")
    for k in range(_STEPS):
        w = inverse(one + g @ h)
        aw = a @ w
        increment = a.T @ (h @ (w @ a))
        g, h, a = _symmetric(g + aw @ g @ a.T, half), _symmetric(h + increment, half), aw @ a
        if size(increment) <= small * size(h) and size(a) < 1e-10:
            return h, k
    return h, _STEPS


def _symmetric(x: Array, half: Decimal) -> Array:
    return (x + x.T) * half
