"""What is left of a Riccati equation, with its terms added up in twice the precision.

With i = bᴴ x e + sᴴ and any k near r⁻¹ i, iᴴ r⁻¹ i = kᴴ i + iᴴ k - kᴴ r k + (i - r k)ᴴ r⁻¹ (i - r k): products, but for the last
term, which is of second order. (In a discrete equation i has a for e, and r + bᴴ x b is in place of r.)
"""

from __future__ import annotations

from typing import Any

from matsign.backends import Backend
from matsign.equations.riccati.newton_kleinman import Gap
from matsign.equations.riccati.problem import Plant
from matsign.linalg.double_word import Twice, adjoint_of, collapsed, minus, plus, product, twice
from matsign.linalg.stacks import adjoint, hermitian, norm

Array = Any


def continuous(be: Backend, p: Plant, x: Array) -> Gap:
    """The gap of aᴴ x e + eᴴ x a + q - iᴴ r⁻¹ i."""
    a, b = twice(p.a), twice(p.b)
    xe = twice(x) if p.e is None else product(be, twice(x), twice(p.e))
    once = product(be, adjoint_of(a), xe)
    inner = _with_cross(p, product(be, adjoint_of(b), xe))
    terms = 2 * norm(be, once.high) + norm(be, p.q)
    return _without_paid(be, p, plus(once, adjoint_of(once)), inner, twice(p.r), terms)


def discrete(be: Backend, p: Plant, x: Array) -> Gap:
    """The gap of aᴴ x a - eᴴ x e + q - iᴴ (r + bᴴ x b)⁻¹ i."""
    a, b = twice(p.a), twice(p.b)
    xa = product(be, twice(x), a)
    moved, inner = product(be, adjoint_of(a), xa), _with_cross(p, product(be, adjoint_of(b), xa))
    kept = twice(x)
    if p.e is not None:
        e = twice(p.e)
        kept = product(be, adjoint_of(e), product(be, kept, e))
    weight = plus(twice(p.r), product(be, adjoint_of(b), product(be, twice(x), b)))
    terms = norm(be, moved.high) + norm(be, kept.high) + norm(be, p.q)
    return _without_paid(be, p, plus(moved, minus(kept)), inner, weight, terms)


def _with_cross(p: Plant, inner: Twice) -> Twice:
    return inner if p.s is None else plus(inner, twice(adjoint(p.s)))


def _without_paid(be: Backend, p: Plant, left: Twice, inner: Twice, weight: Twice, terms: Array) -> Gap:
    gain = be.solve(weight.high, inner.high)
    k = twice(gain)
    rest = plus(inner, minus(product(be, weight, k))).high
    paid = product(be, adjoint_of(inner), k)
    gap = plus(plus(left, twice(p.q)), minus(paid))
    # As small as a rounding of the inner, the rest needs no more than working precision in its products.
    small = adjoint(gain) @ rest + adjoint(rest) @ be.solve(weight.high, rest)
    return Gap(hermitian(collapsed(gap) - small), p.a - p.b @ gain, gain, terms + norm(be, paid.high))
