"""Residuals of algebraic Riccati equations in double-word arithmetic.

With i = bᴴ x e + sᴴ and any k near r⁻¹ i, iᴴ r⁻¹ i = kᴴ i + iᴴ k - kᴴ r k + (i - r k)ᴴ r⁻¹ (i - r k): only products, except
the last term, which is of second order. (The discrete equation has i = bᴴ x a + sᴴ and r + bᴴ x b in place of r.) For the
matrix g in place of b and r, i = g x e and k = x e; in discrete time k is near the solution of (I + x g) k = x a, and
i - r k = g (x a - (I + x g) k).
"""

from __future__ import annotations

from matsign._typing import Array
from matsign.backends import Backend
from matsign.equations.riccati.newton_kleinman import Gap
from matsign.equations.riccati.problem import RiccatiProblem
from matsign.linalg.double_word import DoubleWord, collapse, dw_add, dw_adjoint, dw_neg, dw_product, from_double
from matsign.linalg.stacks import adjoint, eye, hermitian


def continuous(backend: Backend, p: RiccatiProblem, x: Array) -> Gap:
    """The residual aᴴ x e + eᴴ x a + q - iᴴ r⁻¹ i."""
    a, b = from_double(p.a), from_double(p.b)
    xe = from_double(x) if p.e is None else dw_product(backend, from_double(x), from_double(p.e))
    ahxe = dw_product(backend, dw_adjoint(a), xe)
    inner = _with_cross(p, dw_product(backend, dw_adjoint(b), xe))
    terms = 2 * backend.norm(ahxe.high) + backend.norm(p.q)
    left = dw_add(ahxe, dw_adjoint(ahxe))
    if p.r is None:
        return _subtract(backend, p, left, dw_product(backend, dw_adjoint(inner), xe), xe.high, terms)
    return _subtract_quadratic_term(backend, p, left, inner, from_double(p.r), terms)


def discrete(backend: Backend, p: RiccatiProblem, x: Array) -> Gap:
    """The residual aᴴ x a - eᴴ x e + q - iᴴ (r + bᴴ x b)⁻¹ i."""
    a, b = from_double(p.a), from_double(p.b)
    xa = dw_product(backend, from_double(x), a)
    ahxa, inner = dw_product(backend, dw_adjoint(a), xa), _with_cross(p, dw_product(backend, dw_adjoint(b), xa))
    ehxe = from_double(x)
    if p.e is not None:
        e = from_double(p.e)
        ehxe = dw_product(backend, dw_adjoint(e), dw_product(backend, ehxe, e))
    xb = dw_product(backend, from_double(x), b)
    terms = backend.norm(ahxa.high) + backend.norm(ehxe.high) + backend.norm(p.q)
    left = dw_add(ahxa, dw_neg(ehxe))
    if p.r is None:
        weight = dw_add(from_double(eye(backend, x) + 0 * x), xb)
        return _subtract_term_of_g(backend, p, left, inner, weight, xa, terms)
    weight = dw_add(from_double(p.r), dw_product(backend, dw_adjoint(b), xb))
    return _subtract_quadratic_term(backend, p, left, inner, weight, terms)


def _with_cross(p: RiccatiProblem, inner: DoubleWord) -> DoubleWord:
    return inner if p.s is None else dw_add(inner, from_double(adjoint(p.s)))


def _subtract_quadratic_term(
    backend: Backend, p: RiccatiProblem, left: DoubleWord, inner: DoubleWord, weight: DoubleWord, terms: Array
) -> Gap:
    gain, rest = _solve(backend, weight, inner)
    # rest is as small as the rounding error of i, so working precision suffices for its products.
    small = adjoint(gain) @ rest + adjoint(rest) @ backend.solve(weight.high, rest)
    return _subtract(backend, p, left, dw_product(backend, dw_adjoint(inner), from_double(gain)), gain, terms, small)


def _subtract_term_of_g(
    backend: Backend,
    p: RiccatiProblem,
    left: DoubleWord,
    inner: DoubleWord,
    weight: DoubleWord,
    xa: DoubleWord,
    terms: Array,
) -> Gap:
    gain, rest = _solve(backend, weight, xa)
    g_rest = p.b @ rest
    small = adjoint(gain) @ g_rest + adjoint(g_rest) @ backend.solve(weight.high, rest)
    return _subtract(backend, p, left, dw_product(backend, dw_adjoint(inner), from_double(gain)), gain, terms, small)


def _solve(backend: Backend, weight: DoubleWord, right: DoubleWord) -> tuple[Array, Array]:
    """(k near weight⁻¹ right in working precision, right - weight k)."""
    k = backend.solve(weight.high, right.high)
    return k, dw_add(right, dw_neg(dw_product(backend, weight, from_double(k)))).high


def _subtract(
    backend: Backend,
    p: RiccatiProblem,
    left: DoubleWord,
    quadratic_term: DoubleWord,
    gain: Array,
    terms: Array,
    small: Array | float = 0.0,
) -> Gap:
    """left + q - quadratic term - small."""
    gap = collapse(dw_add(dw_add(left, from_double(p.q)), dw_neg(quadratic_term))) - small
    return Gap(hermitian(gap), p.a - p.b @ gain, gain, terms + backend.norm(quadratic_term.high))
