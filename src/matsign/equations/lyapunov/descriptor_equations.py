"""Lyapunov equations a x eᴴ + e x aᴴ = q and Stein equations a x aᴴ - e x eᴴ + q = 0: their terms, scaling and transforms.

The Cayley transform of the pencil, w = a - p e and c = I + 2p w⁻¹ e, gives x - c x cᴴ = -2p w⁻¹ q w⁻ᴴ, whose solution is a sum by
doubling (`iterations.smith`). It needs the LU factors of w alone, so an ill-conditioned e costs no digits. For the Stein equation
w = e and c = w⁻¹ a, or w = a and c = w⁻¹ e if the eigenvalues lie outside the unit circle. An inverse in place of the factors
would lose the digits of equations that are ill-conditioned by their rows alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.failures import Failure
from matsign.direct import descriptor_lyapunov
from matsign.iterations import few_unknowns
from matsign.linalg.double_word import DoubleWord, dw_add, dw_adjoint, dw_neg, dw_product
from matsign.linalg.equilibration import equilibrating_exponents, rescale, scale_to_representable
from matsign.linalg.separation import ROUNDINGS
from matsign.linalg.stacks import adjoint, all_false, broadcast_scalar, entry_exponents, plus_identity, random_probe


class ScaledEquation(NamedTuple):
    """An equation with entries near 1.

    The caller's x is 2^(outer + scale) times this x, the caller's operator 2^size times this one in the caller's units, and the
    residual there 2^right times this one, entry by entry.
    """

    a: Array
    q: Array
    e: Array
    outer: Array
    right: Array
    scale: Array
    size: Array


class Transform(NamedTuple):
    """The equation x - c x cᴴ = factor w⁻¹ q w⁻ᴴ for the same x; rounding in a and e changes its operator by eps `rounding`."""

    c: Array
    w: Array
    factor: Array
    rounding: Array

    def right_side(self, backend: Backend, q: Array) -> Array:
        half = adjoint(backend.solve(self.w, q))
        return broadcast_scalar(self.factor) * adjoint(backend.solve(self.w, half))

    def adjoint_right_side(self, backend: Backend, y: Array) -> Array:
        """The adjoint of `right_side`."""
        w = adjoint(self.w)
        half = adjoint(backend.solve(w, y))
        return broadcast_scalar(self.factor) * adjoint(backend.solve(w, half))


class DescriptorEquation(NamedTuple):
    """The Lyapunov or the Stein equation with a descriptor."""

    terms: Callable[..., Arrays]  # (a, x, q, e): terms whose sum is 0 for the solution
    symmetric_terms: Callable[..., Arrays]  # the same for Hermitian x and q
    exact_gap: Callable[..., DoubleWord]  # (backend, a, x, q, e): their sum in double-word arithmetic
    differential: Callable[..., Array]  # (a, x, e, da, de): the first-order change of that sum
    perturbation: Callable[
        ..., Array
    ]  # (backend, a, x, e, norms of a and e): the norm of that change for relative changes of 1
    scale: Callable[
        ..., tuple[Array, Array, Array, Array]
    ]  # (backend, a, e): both near 1, exponent of x and of the operator
    transform: Callable[[Backend, Array, Array], Transform]
    by_system: Callable[..., few_unknowns.SystemSolution]
    size: Callable[..., Array]  # (backend, a, e): a bound on the norm of the operator
    refuses: Callable[[Backend, Array], Array]  # members whose e must be shown to be invertible
    by_schur: Callable[..., tuple[Array, Array, Array]]
    responses: Callable[..., tuple[Array, Array]]
    singular: Failure
    gramian_sign: int  # x is the Gramian of (a, b, e) for q = b bᴴ times this


def scale_equation(backend: Backend, equation: DescriptorEquation, a: Array, q: Array, e: Array) -> ScaledEquation:
    """By one power of two for each array."""
    a, e, k, size = equation.scale(backend, a, e)
    q, of_q = scale_to_representable(backend, q)
    none = backend.xp.zeros_like(q.real, dtype=backend.xp.int32)
    return ScaledEquation(a, q, e, none, none, broadcast_scalar(of_q - k), size)


def equilibrate(backend: Backend, equation: DescriptorEquation, scaled: ScaledEquation) -> ScaledEquation:
    """The equation in units of the rows and columns of (a, e) in which their largest entries are similar."""
    rows, columns = equilibrating_exponents(backend, *(entry_exponents(backend, x) for x in (scaled.a, scaled.e)))
    right, outer = rows[..., :, None] + rows[..., None, :], -(columns[..., :, None] + columns[..., None, :])
    a, e = (rescale(backend, x, rows, columns) for x in (scaled.a, scaled.e))
    again = scale_equation(backend, equation, a, backend.ldexp(scaled.q, -right), e)
    return again._replace(outer=outer, right=right, scale=again.scale + scaled.scale)


def _exact_lyapunov_gap(backend: Backend, a: DoubleWord, x: DoubleWord, q: DoubleWord, e: DoubleWord) -> DoubleWord:
    def term(left: DoubleWord, right: DoubleWord) -> DoubleWord:
        return dw_neg(dw_product(backend, dw_product(backend, left, x), dw_adjoint(right)))

    return dw_add(dw_add(term(a, e), term(e, a)), q)


def _exact_stein_gap(backend: Backend, a: DoubleWord, x: DoubleWord, q: DoubleWord, e: DoubleWord) -> DoubleWord:
    def term(left: DoubleWord) -> DoubleWord:
        return dw_product(backend, dw_product(backend, left, x), dw_adjoint(left))

    return dw_add(dw_add(term(a), dw_neg(term(e))), q)


def _lyapunov_differential(a: Array, x: Array, e: Array, da: Array, de: Array) -> Array:
    return -(da @ x @ adjoint(e) + a @ x @ adjoint(de) + de @ x @ adjoint(a) + e @ x @ adjoint(da))


def _stein_differential(a: Array, x: Array, e: Array, da: Array, de: Array) -> Array:
    return da @ x @ adjoint(a) + a @ x @ adjoint(da) - de @ x @ adjoint(e) - e @ x @ adjoint(de)


def _lyapunov_perturbation(backend: Backend, a: Array, x: Array, e: Array, of_a: Array, of_e: Array) -> Array:
    ax, xa, ex, xe = (backend.norm(y) for y in (a @ x, x @ adjoint(a), e @ x, x @ adjoint(e)))
    return of_a * (xe + ex) + of_e * (ax + xa)


def _stein_perturbation(backend: Backend, a: Array, x: Array, e: Array, of_a: Array, of_e: Array) -> Array:
    ax, xa, ex, xe = (backend.norm(y) for y in (a @ x, x @ adjoint(a), e @ x, x @ adjoint(e)))
    return of_a * (ax + xa) + of_e * (ex + xe)


def _scale_apart(backend: Backend, a: Array, e: Array) -> tuple[Array, Array, Array, Array]:
    (a, of_a), (e, of_e) = (scale_to_representable(backend, x) for x in (a, e))
    return a, e, of_a + of_e, of_a + of_e


def _scale_together(backend: Backend, a: Array, e: Array) -> tuple[Array, Array, Array, Array]:
    a, e, k = scale_to_representable(backend, a, e)
    return a, e, 2 * k, 2 * k


class CayleyTransform(NamedTuple):
    """c = I + 2p w⁻¹ e and w = side a - p e: for a pencil side a - λ e with its spectrum in the left half plane."""

    c: Array
    w: Array
    p: Array
    side: Array


def cayley(backend: Backend, a: Array, e: Array, *, stable: bool = False) -> CayleyTransform:
    """The transform at the geometric mean p of the moduli of the eigenvalues; unless known to be `stable`, the side is that of
    |det c| < 1.
    """
    n = a.shape[-1]
    p = backend.xp.exp((backend.log_determinant(a) - backend.log_determinant(e)) / n)
    one, pe = backend.ones(a), broadcast_scalar(p) * e
    side = one
    if not stable:
        side = backend.xp.where(backend.log_determinant(a + pe) > backend.log_determinant(a - pe), -one, one)
    w = broadcast_scalar(side) * a - pe
    return CayleyTransform(plus_identity(backend, 1.0, 2 * backend.solve(w, pe)), w, p, side)


def norm_of_inverse(backend: Backend, w: Array) -> Array:
    """An estimate of ‖w⁻¹‖ from random right-hand sides."""
    n = w.shape[-1]
    probe = backend.xp.broadcast_to(random_probe(backend, n, _PROBES, w), (*w.shape[:-1], _PROBES))
    return backend.norm(backend.solve(w, probe)) / math.sqrt(_PROBES)


_PROBES = 4


def _lyapunov_transform(backend: Backend, a: Array, e: Array) -> Transform:
    c, w, p, side = cayley(backend, a, e)
    # 2p w⁻¹ e = c - I and 2 w⁻¹ a = c + I, up to the side.
    by_e, by_a = backend.norm(plus_identity(backend, -1.0, c)), p * backend.norm(plus_identity(backend, 1.0, c))
    rounding = 2 * norm_of_inverse(backend, w) * (backend.norm(a) * by_e + backend.norm(e) * by_a)
    return Transform(c, w, -2 * side * p, rounding)


def _stein_transform(backend: Backend, a: Array, e: Array) -> Transform:
    """With the inverse of e, or of a if |det a| > |det e|, when the sum over the powers of e⁻¹ a cannot converge."""
    outside = backend.log_determinant(a) > backend.log_determinant(e)
    first, second = (backend.xp.where(broadcast_scalar(outside), *both) for both in ((a, e), (e, a)))
    c, one = backend.solve(first, second), backend.ones(a)
    size = backend.norm(second) * backend.norm(c) + backend.norm(first)
    rounding = 2 * norm_of_inverse(backend, first) * size
    return Transform(c, first, backend.xp.where(outside, -one, one), rounding)


def _nearly_singular(backend: Backend, e: Array) -> Array:
    """Members whose e may be singular to working precision."""
    product = backend.norm(e) * backend.norm(backend.inv(e))
    return ~(product * ROUNDINGS * backend.eps(e) < 0.01)


def _symmetric_lyapunov_terms(a: Array, x: Array, q: Array, e: Array) -> Arrays:
    half = -(a @ x @ adjoint(e))
    return q, half, adjoint(half)


LYAPUNOV_EQUATION = DescriptorEquation(
    lambda a, x, q, e: (q, -(a @ x @ adjoint(e)), -(e @ x @ adjoint(a))),
    _symmetric_lyapunov_terms,
    _exact_lyapunov_gap,
    _lyapunov_differential,
    _lyapunov_perturbation,
    _scale_apart,
    _lyapunov_transform,
    lambda backend, a, q, e: few_unknowns.generalized_sylvester(backend, a, adjoint(e), e, adjoint(a), q),
    lambda backend, a, e: 2 * backend.norm(a) * backend.norm(e),
    all_false,  # a singular e makes the equation singular
    descriptor_lyapunov.lyapunov,
    descriptor_lyapunov.lyapunov_responses,
    Failure.COMMON_DESCRIPTOR_EIGENVALUE,
    -1,
)


def _stein_terms(a: Array, x: Array, q: Array, e: Array) -> Arrays:
    return q, a @ x @ adjoint(a), -(e @ x @ adjoint(e))


STEIN_EQUATION = DescriptorEquation(
    _stein_terms,
    _stein_terms,
    _exact_stein_gap,
    _stein_differential,
    _stein_perturbation,
    _scale_together,
    _stein_transform,
    lambda backend, a, q, e: few_unknowns.generalized_sylvester(backend, e, adjoint(e), -a, adjoint(a), q),
    lambda backend, a, e: backend.norm(a) ** 2 + backend.norm(e) ** 2,
    _nearly_singular,
    descriptor_lyapunov.stein,
    descriptor_lyapunov.stein_responses,
    Failure.RECIPROCAL_DESCRIPTOR_EIGENVALUES,
    1,
)
