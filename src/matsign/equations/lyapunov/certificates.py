"""Error estimates for Lyapunov equations a x + x aᴴ = q and Stein equations a x aᴴ - x + q = 0, and their separation."""

from __future__ import annotations

import math

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core import scaling
from matsign.core.public import Residual
from matsign.equations.lyapunov import descriptor_equations
from matsign.equations.lyapunov.descriptor_certificates import descriptor_residual
from matsign.equations.lyapunov.methods import (
    LYAPUNOV_EQUATION,
    STEIN_EQUATION,
    Equation,
    ScaledEquation,
    scale_lyapunov,
    scale_stein,
    sum_or_schur,
)
from matsign.iterations import shared_sums
from matsign.iterations.refinement import (
    backward,
    correction,
    each_in_callers_units,
    solve_weighed,
    total,
)
from matsign.linalg.double_word import dw_adjoint, dw_neg, dw_product, from_double
from matsign.linalg.separation import ROUNDINGS, separation
from matsign.linalg.stacks import (
    adjoint,
    broadcast_scalar,
    hermitian,
    is_hermitian,
    norm,
    random_probe,
    safe_divisor,
    scale_to_unit,
)

_SAMPLES = 2


def _error_estimate(
    backend: Backend,
    equation: Equation,
    value: Array,
    scaled: ScaledEquation,
    *,
    rounded: bool = False,
    b: Array | None = None,
) -> Residual:
    """Backward error, correction and separation.

    The residual is computed in double-word arithmetic: its rounding in working precision would look like an error of x. To
    the solution for the residual, the error of x, the correction adds those for random perturbations of the data by rounding,
    the uncertainty of the exact solution (Kenney & Laub 1994). Large matrices get one perturbation, added to the residual:
    its many random entries average out. For a `rounded` x, a computed product z zᴴ, a residual in working precision suffices.
    With b, q is ± b bᴴ, and rounding perturbs b.
    """
    xp, (a, q, d, outer, scale, size) = backend.xp, scaled
    x, large = backend.ldexp(value, -scaling.add_exponents(outer, scale)), a.shape[-1] > shared_sums.SMALL
    if large and rounded:
        residual = total(equation.terms(a, x, q, d))
    else:
        residual = exact_residual(backend, equation, a, x, q, d, b)
    if large:
        rights = (residual + _data_perturbation(backend, equation, a, x, q, 0, b))[:, None]
    else:
        rights = xp.stack(
            [residual, *(_data_perturbation(backend, equation, a, x, q, k, b) for k in range(_SAMPLES))], axis=1
        )
    # For a semidefinite q, as with Gramians, ‖q‖ / ‖x‖ is a good upper estimate of the separation; for a general q it is not.
    known = norm(backend, q) / safe_divisor(backend, norm(backend, x)) if rounded else None
    solved, least = _responses(backend, equation, a, rights, d, known)
    solved = each_in_callers_units(
        backend,
        lambda residual, a, d: _responses(backend, equation, a, residual[:, None], d, backend.ones(d))[0][:, 0],
        lambda x, right, a, d: equation.terms(a, x, right, d),
        *(solved, outer, rights, a, d),
    )
    # The backward error is measured in the caller's units.
    left = backward(backend, *solve_weighed(backend, outer, residual, *equation.terms(a, x, q, d)))
    step = scaling.at_least_rounded(
        backend, backend.ldexp(correction(backend, solved), scaling.add_exponents(outer, scale)), value
    )
    return Residual(left, (step,), backend.ldexp(least, size))


def exact_residual(
    backend: Backend, equation: Equation, a: Array, x: Array, q: Array, d: Array, b: Array | None = None
) -> Array:
    """The sum of the terms, in double-word arithmetic; with b, for ± b bᴴ in place of q."""
    right = from_double(q)
    if b is not None:
        right = dw_product(backend, from_double(b), dw_adjoint(from_double(b)))
        right = right if equation.gramian_sign > 0 else dw_neg(right)
    gap: Array = equation.exact_gap(backend, from_double(a), from_double(x), right, d).high
    return gap


def _data_perturbation(
    backend: Backend, equation: Equation, a: Array, x: Array, q: Array, k: int, b: Array | None
) -> Array:
    """The change of the residual under the k-th random perturbation of each entry of a and q (or b) by rounding."""
    n = q.shape[-1]
    noise = backend.eps(q) * random_probe(backend, _SAMPLES * n, n, q)[:, k * n : (k + 1) * n]
    if b is not None:
        on_b = backend.eps(b) * random_probe(backend, _SAMPLES * n, b.shape[-1], b)[:, k * n : (k + 1) * n]
        change = 2 * equation.gramian_sign * hermitian((b * on_b) @ adjoint(b))
        return equation.differential(a, x, a * noise) + change
    change = backend.xp.where(broadcast_scalar(is_hermitian(q)), math.sqrt(2) * hermitian(noise), noise)
    return equation.differential(a, x, a * noise) + q * change


def _responses(
    backend: Backend, equation: Equation, a: Array, rights: Array, d: Array, known: Array | None
) -> tuple[Array, Array]:
    """(solutions for right-hand sides (B, k, n, n), separation); `known`: an upper bound on the separation, or None."""
    if backend.on_cpu(a) and not backend.is_traced(a) and a.shape[-1] > shared_sums.SMALL:
        ranges = [slice(k, k + 1) for k in range(len(a))]
        parts = [
            _member_responses(backend, equation, a[k], rights[k], d[k], None if known is None else known[k])
            for k in ranges
        ]
        return backend.xp.concat([x for x, _ in parts]), backend.xp.concat([least for _, least in parts])
    if backend.on_cpu(a):
        return backend.host_callback(equation.responses, (rights, backend.ones(a)), a, rights, d)

    def solve(a: Array, q: Array) -> Array:
        q, scale = scale_to_unit(backend, q)
        return backend.ldexp(sum_or_schur(backend, equation, a, q, d).value[0], broadcast_scalar(scale))

    solved = backend.xp.stack([solve(a, rights[:, k]) for k in range(rights.shape[1])], axis=1)
    least = separation(backend, lambda y: solve(a, y), lambda y: solve(adjoint(a), y), rights[:, 0], steps=1).value
    return solved, least


def _member_responses(
    backend: Backend, equation: Equation, a: Array, rights: Array, d: Array, known: Array | None
) -> tuple[Array, Array]:
    """`_responses` of one large member: from the powers of a sum if it is reliable, else from a Schur form."""
    if not bool(equation.mixed(backend, a)[0]):
        sums = equation.sums(backend, a, d)
        if sums.is_reliable(backend, ROUNDINGS * backend.eps(a) * equation.size(backend, a, d, norm)):
            return sums.responses(backend, rights, known)
    return backend.host_callback(equation.responses, (rights, backend.ones(a)), a, rights, d)


def lyapunov_residual(backend: Backend, value: tuple[Array], a: Array, q: Array, *, rounded: bool = False) -> Residual:
    return _error_estimate(backend, LYAPUNOV_EQUATION, value[0], scale_lyapunov(backend, a, q), rounded=rounded)


def stein_residual(backend: Backend, value: tuple[Array], a: Array, q: Array, *, rounded: bool = False) -> Residual:
    return _error_estimate(backend, STEIN_EQUATION, value[0], scale_stein(backend, a, q), rounded=rounded)


def gramian_residual(
    backend: Backend, equation: Equation, value: tuple[Array], scaled: ScaledEquation, b: Array
) -> Residual:
    """The errors of the solution for q = ± b bᴴ, with respect to changes of a and b."""
    return _error_estimate(backend, equation, value[0], scaled, b=b)


def lyapunov_certificate(backend: Backend, value: tuple[Array], a: Array, q: Array, e: Array | None = None) -> Residual:
    if e is not None:
        return descriptor_residual(backend, descriptor_equations.LYAPUNOV_EQUATION, value[0], a, q, e)
    return lyapunov_residual(backend, value, a, q)


def stein_certificate(backend: Backend, value: tuple[Array], a: Array, q: Array, e: Array | None = None) -> Residual:
    if e is not None:
        return descriptor_residual(backend, descriptor_equations.STEIN_EQUATION, value[0], a, q, e)
    return stein_residual(backend, value, a, q)
