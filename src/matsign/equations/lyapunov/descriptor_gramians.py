"""Gramians of e ẋ = a x + b u and of its discrete twin: a x eᴴ + e x aᴴ + b bᴴ = 0 or a x aᴴ - e x eᴴ + b bᴴ = 0.

x = z zᴴ for the factor z of `descriptor_factors`. x and z are corrected where the residual is above rounding, by the solution dx
for the residual: z by dz = (I - ½ z z⁺) dx z⁺ᴴ for the columns of z that are long beside dx.

Differential, with c = da x eᴴ + a x deᴴ + db bᴴ (discrete: da x aᴴ - de x eᴴ + db bᴴ), without the inverse of e:

    a dx eᴴ + e dx aᴴ + c + cᴴ = 0              a dx aᴴ - e dx eᴴ + c + cᴴ = 0
    aᴴ y e + eᴴ y a + x̄ = 0                     aᴴ y a - eᴴ y e + x̄ = 0
    ā = 2 y e x,  ē = 2 y a x,  b̄ = 2 y b       ā = 2 y a x,  ē = -2 y e x,  b̄ = 2 y b
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core import scaling
from matsign.equations.lyapunov import descriptor_equations
from matsign.equations.lyapunov.descriptor_certificates import exact_descriptor_gap
from matsign.equations.lyapunov.descriptor_equations import DescriptorEquation, ScaledEquation
from matsign.equations.lyapunov.descriptors import solve_gap
from matsign.equations.lyapunov.solver import lyapunov_differentiable, stein_differentiable
from matsign.equations.lyapunov.system import ScaledFactor, System
from matsign.iterations.refinement import at_rounding, in_callers_units
from matsign.iterations.smith_factored import principal, zero_nonfinite_members
from matsign.linalg.stacks import adjoint, broadcast_scalar, hermitian


class DescriptorTime(NamedTuple):
    """Continuous or discrete time, for models with a descriptor."""

    equation: DescriptorEquation
    scale: Callable[[Backend, System], ScaledEquation]
    gramian: Callable[[Backend, Array, Array, Array], Array]  # (a, q, e): x for q in place of b bᴴ
    differential: Callable[..., Array]  # (a, x, e, da, de): c without db bᴴ
    bars: Callable[..., tuple[Array, Array]]  # (y, a, x, e): the gradients ā / 2 and ē / 2


def _scale_lyapunov(backend: Backend, s: System) -> ScaledEquation:
    scale = broadcast_scalar(2 * (s.b_scale - s.half))
    return ScaledEquation(s.a, -(s.b @ adjoint(s.b)), s.descriptor, _outer(s.e), _outer(s.rows), scale, 2 * s.half)


def _scale_stein(backend: Backend, s: System) -> ScaledEquation:
    """With no entry of a and e above 1."""
    k = 2 * s.half
    above = backend.xp.maximum(k, 0 * k)
    a, e = (backend.ldexp(x, broadcast_scalar(j - above)) for x, j in ((s.a, k), (s.descriptor, 0 * k)))
    scale = broadcast_scalar(2 * (s.b_scale - above))
    return ScaledEquation(a, s.b @ adjoint(s.b), e, _outer(s.e), _outer(s.rows), scale, 2 * above)


def _outer(e: Array) -> Array:
    return e[:, :, None] + e[:, None, :]


CONTINUOUS = DescriptorTime(
    descriptor_equations.LYAPUNOV_EQUATION,
    _scale_lyapunov,
    lambda backend, a, q, e: lyapunov_differentiable(backend, a, -q, e),
    lambda a, x, e, da, de: da @ x @ adjoint(e) + a @ x @ adjoint(de),
    lambda y, a, x, e: (y @ e @ x, y @ a @ x),
)
DISCRETE = DescriptorTime(
    descriptor_equations.STEIN_EQUATION,
    _scale_stein,
    lambda backend, a, q, e: stein_differentiable(backend, a, q, e),
    lambda a, x, e, da, de: da @ x @ adjoint(a) - de @ x @ adjoint(e),
    lambda y, a, x, e: (y @ a @ x, -(y @ e @ x)),
)


def correct_gramian(
    backend: Backend, equation: DescriptorEquation, x: Array, scaled: ScaledEquation, b: Array, failure: Array
) -> Array:
    """x corrected where its residual exceeds rounding, in these units and then in those of the caller's rows.

    The first correction is for the exact residual: rounding errors of the residual in modes that b does not reach would grow.
    """
    arrays = scaled.a, scaled.q, scaled.e

    def terms(x: Array, a: Array, q: Array, e: Array) -> Arrays:
        return equation.terms(a, x, q, e)

    def solve(gap: Array, a: Array, q: Array, e: Array) -> Array:
        return hermitian(solve_gap(backend, equation, a, hermitian(gap), e))

    x = backend.rare_cond(
        (failure == 0) & ~at_rounding(backend, terms, x, *arrays),
        lambda x, b, a, q, e: (
            x + solve(exact_descriptor_gap(backend, equation, scaled._replace(a=a, q=q, e=e), x, b), a, q, e)
        ),
        lambda x, *_: x,
        *(x, b, *arrays),
    )
    return in_callers_units(backend, solve, terms, x, scaled.right, *arrays)


def correct_factor(backend: Backend, time: DescriptorTime, s: System, f: ScaledFactor) -> ScaledFactor:
    """z corrected where the residual of z zᴴ exceeds rounding and a correction halves it."""
    equation, scaled = time.equation, time.scale(backend, s)
    shift = broadcast_scalar(f.scale) - scaled.scale // 2
    z = zero_nonfinite_members(backend, backend.ldexp(f.z, shift))

    def residual(z: Array, b: Array, a: Array, q: Array, e: Array) -> Array:
        return exact_descriptor_gap(backend, equation, scaled._replace(a=a, q=q, e=e), z @ adjoint(z), b)

    def correct(z: Array, b: Array, a: Array, q: Array, e: Array) -> Array:
        for _ in range(2):
            gap = residual(z, b, a, q, e)
            new = principal(backend, z + _factor_step(backend, z, solve_gap(backend, equation, a, hermitian(gap), e)))
            better = backend.norm(residual(new, b, a, q, e)) < backend.norm(gap) / 2
            z = backend.xp.where(broadcast_scalar(better), new, z)
        return z

    arrays = scaled.a, scaled.q, scaled.e
    accurate = at_rounding(backend, lambda z, a, q, e: equation.terms(a, z @ adjoint(z), q, e), z, *arrays)
    new = backend.rare_cond((f.failure == 0) & ~accurate, correct, lambda z, *_: z, z, s.b, *arrays)
    return f._replace(factors=f.factors._replace(z=(backend.ldexp(new, -shift),)))


# Columns of z are corrected whose squared length is above this times the norm of dx.
_LONG = 100


def _factor_step(backend: Backend, z: Array, dx: Array) -> Array:
    """dz for a z with orthogonal columns."""
    xp = backend.xp
    squares = xp.sum(xp.abs(z) ** 2, axis=-2, keepdims=True)
    long = squares > _LONG * broadcast_scalar(backend.norm(dx))
    inverse = z * xp.where(long, 1 / xp.where(long, squares, xp.ones_like(squares)), xp.zeros_like(squares))
    change = dx @ inverse
    return change - inverse @ (adjoint(z) @ change) / 2


def continuous_sizes(backend: Backend, a: Array, e: Array) -> tuple[Array, Array]:
    """Exponents of a and of e."""
    return scaling.size_of(backend, a), scaling.size_of(backend, e)


def discrete_sizes(backend: Backend, a: Array, e: Array) -> tuple[Array, Array]:
    """The exponent of both."""
    k = scaling.size_of(backend, a, e)
    return k, k


def _powers_of(sizes: Callable[..., tuple[Array, Array]]) -> Callable[..., scaling.Powers]:
    def powers(backend: Backend, a: Array, b: Array, e: Array) -> scaling.Powers:
        (of_a, of_e), of_b = sizes(backend, a, e), scaling.size_of(backend, b)
        return scaling.Powers((of_a, of_b, of_e), (2 * of_b - of_a - of_e,))

    return powers


def _tangent_of(time: DescriptorTime) -> Callable[..., Arrays]:
    def tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays) -> Arrays:
        (x,), (a, b, e), (da, db, de) = value, arrays, tangents
        change = time.differential(a, x, e, da, de) + db @ adjoint(b)
        return (hermitian(time.gramian(backend, a, 2 * hermitian(change), e)),)

    return tangent


def _cotangent_of(time: DescriptorTime) -> Callable[..., Arrays]:
    def cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays) -> Arrays:
        (x,), (a, b, e) = value, arrays
        y = hermitian(time.gramian(backend, adjoint(a), hermitian(cotangents[0]), adjoint(e)))
        bar_a, bar_e = time.bars(y, a, x, e)
        return 2 * bar_a, 2 * y @ b, 2 * bar_e

    return cotangent


_CONTINUOUS_POWERS, _DISCRETE_POWERS = _powers_of(continuous_sizes), _powers_of(discrete_sizes)
CONTINUOUS_TANGENT = scaling.tangent_at_size(_CONTINUOUS_POWERS, _tangent_of(CONTINUOUS))
CONTINUOUS_COTANGENT = scaling.cotangent_at_size(_CONTINUOUS_POWERS, _cotangent_of(CONTINUOUS))
DISCRETE_TANGENT = scaling.tangent_at_size(_DISCRETE_POWERS, _tangent_of(DISCRETE))
DISCRETE_COTANGENT = scaling.cotangent_at_size(_DISCRETE_POWERS, _cotangent_of(DISCRETE))
