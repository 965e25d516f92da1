"""Residuals of algebraic Riccati equations in double-word arithmetic.

With i = bᴴ x e + sᴴ and any k near r⁻¹ i, iᴴ r⁻¹ i = kᴴ i + iᴴ k - kᴴ r k + (i - r k)ᴴ r⁻¹ (i - r k): only products, except
the last term, which is of second order. (The discrete equation has i = bᴴ x a + sᴴ and r + bᴴ x b in place of r.)
"""

from __future__ import annotations

from matsign._typing import Array
from matsign.backends import Backend
from matsign.equations.riccati.newton_kleinman import Gap
from matsign.equations.riccati.problem import RiccatiProblem
from matsign.linalg.double_word import DoubleWord, collapse, dw_add, dw_adjoint, dw_neg, dw_product, from_double
from matsign.linalg.stacks import adjoint, hermitian


def continuous(backend: Backend, p: RiccatiProblem, x: Array) -> Gap:
    """The residual aᴴ x e + eᴴ x a + q - iᴴ r⁻¹ i."""
    a, b = from_double(p.a), from_double(p.b)
    xe = from_double(x) if p.e is None else dw_product(backend, from_double(x), from_double(p.e))
    ahxe = dw_product(backend, dw_adjoint(a), xe)
    inner = _with_cross(p, dw_product(backend, dw_adjoint(b), xe))
    terms = 2 * backend.norm(ahxe.high) + backend.norm(p.q)
    return _subtract_quadratic_term(backend, p, dw_add(ahxe, dw_adjoint(ahxe)), inner, from_double(p.r), terms)


def discrete(backend: Backend, p: RiccatiProblem, x: Array) -> Gap:
    """The residual aᴴ x a - eᴴ x e + q - iᴴ (r + bᴴ x b)⁻¹ i."""
    a, b = from_double(p.a), from_double(p.b)
    xa = dw_product(backend, from_double(x), a)
    ahxa, inner = dw_product(backend, dw_adjoint(a), xa), _with_cross(p, dw_product(backend, dw_adjoint(b), xa))
    ehxe = from_double(x)
    if p.e is not None:
        e = from_double(p.e)
        ehxe = dw_product(backend, dw_adjoint(e), dw_product(backend, ehxe, e))
    weight = dw_add(from_double(p.r), dw_product(backend, dw_adjoint(b), dw_product(backend, from_double(x), b)))
    terms = backend.norm(ahxa.high) + backend.norm(ehxe.high) + backend.norm(p.q)
    return _subtract_quadratic_term(backend, p, dw_add(ahxa, dw_neg(ehxe)), inner, weight, terms)


def _with_cross(p: RiccatiProblem, inner: DoubleWord) -> DoubleWord:
    return inner if p.s is None else dw_add(inner, from_double(adjoint(p.s)))


def _subtract_quadratic_term(
    backend: Backend, p: RiccatiProblem, left: DoubleWord, inner: DoubleWord, weight: DoubleWord, terms: Array
) -> Gap:
    gain = backend.solve(weight.high, inner.high)
    k = from_double(gain)
    rest = dw_add(inner, dw_neg(dw_product(backend, weight, k))).high
    quadratic_term = dw_product(backend, dw_adjoint(inner), k)
    gap = dw_add(dw_add(left, from_double(p.q)), dw_neg(quadratic_term))
    # rest is as small as the rounding error of i, so working precision suffices for its products.
    small = adjoint(gain) @ rest + adjoint(rest) @ backend.solve(weight.high, rest)
    return Gap(hermitian(collapse(gap) - small), p.a - p.b @ gain, gain, terms + backend.norm(quadratic_term.high))
