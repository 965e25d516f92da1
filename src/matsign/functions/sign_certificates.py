"""How wrong a sign may be, and what is one product away from it."""

from __future__ import annotations

import math

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core.public import Residual
from matsign.core.tolerances import rank_tolerance
from matsign.functions.sign_derivatives import fold_to_right, sign_change
from matsign.functions.sign_methods import LARGE, MARGIN, PROJECTORS, sign, units_for_method
from matsign.iterations.differentiable_solves import sylvester_positive
from matsign.linalg import balancing
from matsign.linalg.nullity import nullities
from matsign.linalg.stacks import (
    adjoint,
    all_false,
    broadcast_scalar,
    eye,
    is_hermitian,
    largest,
    norm,
    relative_norm,
    rounding_probe,
    safe_divisor,
)


def sign_residual(
    be: Backend,
    value: tuple[Array],
    m: Array,
    *,
    tol: float | None = None,
    rtol: float | None = None,
    method: str = "auto",
) -> Residual:
    """What S leaves of S M = M S and of S³ = S, and how S moves when M is changed by that and by rounding."""
    units = units_for_method(be, m, method)
    m, s = units.matrix, units.inward(be, *value)
    size = norm(be, s)
    cube = norm(be, s @ s @ s - s) / safe_divisor(be, size**3 + size)
    backward = be.xp.maximum(_commutator(be, s, m), be.xp.maximum(cube, _not_nilpotent(be, s, m)))
    step = units.outward(be, sign_correction(be, s, units))
    return Residual(backward, (_credible(be, step, *value, _may_flip(be, s, m, rtol)),))


def _commutator(be: Backend, s: Array, m: Array) -> Array:
    return norm(be, s @ m - m @ s) / safe_divisor(be, 2 * norm(be, s) * norm(be, m))


def _credible(be: Backend, step: Array, value: Array, doubt: Array) -> Array:
    """A correction step, infinite in doubt and where it is no small part of the value, which then has no digit to go by."""
    unknown = (~(relative_norm(be, step, value) < LARGE) & (largest(be, value) > 0)) | doubt
    return be.xp.where(broadcast_scalar(unknown), be.xp.full_like(step, math.inf), step)


def _not_nilpotent(be: Backend, s: Array, m: Array) -> Array:
    """How far the part of m that s has as zero is from nilpotent: ‖Zᵖ‖ / (‖Z‖ᵖ⁻¹ ‖m‖) for Z = (I - S²) m and a power p ≥ n."""

    def measure(s: Array, m: Array) -> Array:
        power = m - s @ (s @ m)
        size = norm(be, power)
        share = size / safe_divisor(be, norm(be, m))
        power = power / broadcast_scalar(safe_divisor(be, size))
        for _ in range((m.shape[-1] - 1).bit_length()):
            power = power @ power
        return norm(be, power) * share

    singular = be.trace(eye(be, m) - s @ s).real > 0.5
    return be.rare_cond(singular, measure, lambda s, m: 0 * be.ones(m), s, m)


def sign_correction(be: Backend, s: Array, units: balancing.BalancedMatrix) -> Array:
    """How S moves along what is left of its equations, with what rounding of M may have hidden, in balanced units."""
    m = units.matrix
    cube = s @ s @ s - s
    n, zero = fold_to_right(be, s, m)
    step = sign_change(be, s, n, zero, m + rounding_probe(be, m, norm(be, m)), _sensitive) - cube / 2
    return units.mask_unreachable(be, step)


def _may_flip(be: Backend, s: Array, m: Array, rtol: float | None) -> Array:
    """Where rounding may move an eigenvalue to the other side of zero, which no correction step shows."""
    n, _ = fold_to_right(be, s, m)
    return _has_chains_by_rounding(be, s, m, rtol) | ~(
        norm(be, n) * norm(be, be.inv(n)) * n.shape[-1] * be.eps(n) < MARGIN
    )


def _has_chains_by_rounding(be: Backend, s: Array, m: Array, rtol: float | None) -> Array:
    """Where m has null vectors as it stands, but Jordan chains of zero only to rounding, and nobody asked for that by `rtol`."""
    if rtol is not None or be.unrolls_loops(m):
        return all_false(be, m)

    def look(s: Array, m: Array) -> Array:
        zero = eye(be, m) - s @ s
        chained = norm(be, zero @ m) > 10 * rank_tolerance(be, m, None) * norm(be, zero) * norm(be, m)
        counts = be.host_callback(nullities, be.xp.zeros_like(m[:, 0].real, dtype=be.xp.int32), be.stop_gradient(m))
        short = be.astype(counts[:, -1], be.dtype_name(m.real)) < be.trace(zero).real - 0.5
        return chained & (counts[:, 0] > 0) & short

    singular = be.trace(eye(be, m) - s @ s).real > 0.5
    return be.rare_cond(singular, look, lambda s, m: all_false(be, m), s, m)


def _sensitive(be: Backend, n: Array, q: Array) -> Array:
    """x with n x + x n = q, as `sylvester_symmetric` has it, where no small eigenvalue of n is taken for zero: it is what errors come from."""

    def by_eigenvectors(n: Array, q: Array) -> Array:
        values, v = be.eigh(n)
        least = be.eps(n) ** 2 * values[:, -1:]
        values = be.xp.where(values > least, values, least)
        return v @ (adjoint(v) @ q @ v / (values[:, :, None] + values[:, None, :])) @ adjoint(v)

    def general(n: Array, q: Array) -> Array:
        return sylvester_positive(be, n, n, q)

    if be.on_cpu(q) and not be.is_traced(q):
        return be.masked_cond(is_hermitian(n), by_eigenvectors, general, n, q)
    return general(n, q)


def abs_residual(
    be: Backend,
    value: tuple[Array],
    m: Array,
    *,
    tol: float | None = None,
    rtol: float | None = None,
    method: str = "auto",
) -> Residual:
    """N² = M², and what separates N from M S for a sign S that is itself corrected."""
    units = units_for_method(be, m, method)
    m, n = units.matrix, units.inward(be, *value, 1)
    s = sign(be, m, tol=tol, rtol=rtol, method=method).value[0]
    # An eigenvalue that rounding may move to the other side is no larger than rounding, and so is what that does to N.
    step = m @ s - n + rounding_probe(be, n, norm(be, m) * norm(be, s)) + _abs_correction(be, s, units)
    step = units.outward(be, units.mask_unreachable(be, step), 1)
    backward = norm(be, n @ n - m @ m) / safe_divisor(be, norm(be, n) ** 2 + norm(be, m) ** 2)
    return Residual(backward, (_credible(be, step, *value, _has_chains_by_rounding(be, s, m, rtol)),))


def _abs_correction(be: Backend, s: Array, units: balancing.BalancedMatrix) -> Array:
    """How M S moves with S; of a Hermitian M, whose absolute value moves by no more than M does, for what S leaves alone."""
    m = units.matrix

    def normal(s: Array, m: Array, moved: Array) -> Array:
        return (m @ (s @ s @ s - s) + m @ s - s @ m) / 2

    moved = m @ sign_correction(be, s, units)
    return be.masked_cond(is_hermitian(m), normal, lambda s, m, moved: moved, s, m, moved)


def projector_residual(
    be: Backend,
    value: tuple[Array],
    m: Array,
    *,
    half_plane: str = "right",
    tol: float | None = None,
    rtol: float | None = None,
    method: str = "auto",
) -> Residual:
    """P² = P and P M = M P, and what separates P from the projector by a sign S that is itself corrected."""
    units = units_for_method(be, m, method)
    m, p = units.matrix, units.inward(be, *value)
    s = sign(be, m, tol=tol, rtol=rtol, method=method).value[0]
    ds = sign_correction(be, s, units)
    step = PROJECTORS[half_plane].product(m, s) - p + (ds @ s + s @ ds + (ds if half_plane == "right" else -ds)) / 2
    size = norm(be, p)
    square = norm(be, p @ p - p) / safe_divisor(be, size**2 + size)
    backward = be.xp.maximum(_commutator(be, p, m), square)
    return Residual(backward, (_credible(be, units.outward(be, step), *value, _may_flip(be, s, m, rtol)),))
