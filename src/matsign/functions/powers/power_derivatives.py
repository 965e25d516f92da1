"""The Fréchet derivative L(A, E) of a power or the logarithm, as an operation that can be differentiated to any order.

Hermitian A = V Λ Vᴴ (Daleckii & Krein):  L = V (F ∘ Vᴴ E V) Vᴴ  with the divided differences F of f at the eigenvalues, which are
                                         f'(λ) for equal ones, and f(λ)/λ between λ and an eigenvalue that counts as zero.
General A:                               f([[A, E], [0, A]]) = [[f(A), L(A, E)], [0, f(A)]].

The adjoint of E → L(A, E) is L(Aᴴ, ·). The derivatives of L are in `frechet_blocks`.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.members import Solution, solution
from matsign.core.operations import Operation, apply, shapes_of
from matsign.core.tolerances import rank_tolerance
from matsign.direct import schur_powers
from matsign.functions.powers.frechet_blocks import blocks_cotangent, blocks_tangent
from matsign.functions.powers.large_powers import integer_power_derivative
from matsign.functions.powers.power_methods import (
    balance_units,
    factors_of,
    matrix_function,
    scale_units,
    spectrum_logarithms,
)
from matsign.iterations.inverse_scaling import inverse_scaling
from matsign.linalg.scalar_powers import Exponent, divided_difference, scalar_function
from matsign.linalg.stacks import adjoint, assemble, broadcast_scalar, is_hermitian, scale_to_unit

# The part above the diagonal blocks is scaled to this size: so it hardly changes the number of square roots.
_SMALL = 2.0**-4


def frechet_derivative(backend: Backend, a: Array, e: Array, *, power: Exponent, rtol: float | None) -> Array:
    """L(a, e)."""
    return apply(backend, _FRECHET, a, e, power=power, rtol=rtol)[0]


def solve_frechet(backend: Backend, a: Array, e: Array, *, power: Exponent, rtol: float | None) -> Solution:
    tolerance = rank_tolerance(backend, a, rtol)
    factors, part = factors_of(power)
    if factors != 1:
        root = matrix_function(backend, a, power=part, rtol=rtol, method="auto").value[0]
        change = solve_frechet(backend, a, e, power=part, rtol=rtol).value[0]
        change = integer_power_derivative(backend, root, change, factors) if factors else backend.xp.zeros_like(e)
        return solution(backend, (change,))
    e, size = scale_to_unit(backend, e)

    def by_eigenvectors(a: Array, e: Array) -> Array:
        return _by_eigenvectors(backend, a, e, power, tolerance)

    def by_blocks(a: Array, e: Array) -> Array:
        units, a = balance_units(backend, a)
        e, k = scale_to_unit(backend, units.balance_direction(backend, e, -1))
        change = _by_newton(backend, a, e, power, tolerance)
        return units.outward_derivative(backend, backend.ldexp(change, broadcast_scalar(k)), power)

    if power.is_integer and power.value == 1:
        change = e
    else:
        change = backend.masked_cond(is_hermitian(a), by_eigenvectors, by_blocks, a, e)
    return solution(backend, (backend.ldexp(change, broadcast_scalar(size)),))


def _by_schur(backend: Backend, a: Array, e: Array, power: Exponent, rtol: float) -> Array:
    change: Array = backend.host_callback(partial(schur_powers.frechet, power=power, rtol=rtol), e, a, e)
    return change


def _by_newton(backend: Backend, a: Array, e: Array, power: Exponent, rtol: float) -> Array:
    """By square roots for any array library, where they are accurate."""
    n, inverse = a.shape[-1], backend.inv(a)
    regular = backend.norm(a) * backend.norm(inverse) * rtol < 1
    if power.is_integer:
        change = -(inverse @ e @ inverse)
    else:
        scaled = inverse_scaling(backend, assemble(backend, a, _SMALL * e, 0 * a, a), power)
        change, regular = scaled.value[:, :n, n:] / _SMALL, regular & scaled.accurate
    return backend.rare_cond(
        ~regular,
        lambda a, e, change: _by_schur(backend, a, e, power, rtol),
        lambda a, e, change: change,
        *(a, e, change),
    )


def _by_eigenvectors(backend: Backend, a: Array, e: Array, power: Exponent, rtol: float) -> Array:
    xp = backend.xp
    units, a = scale_units(backend, a)
    v, logs, kept = spectrum_logarithms(backend, a, rtol)
    slopes = divided_difference(backend, logs[:, :, None], logs[:, None, :], power)
    to_zero = scalar_function(backend, logs, power) * xp.exp(-logs)
    left, right = kept[:, :, None], kept[:, None, :]
    mixed = xp.where(left, to_zero[:, :, None] + 0 * slopes, to_zero[:, None, :] + 0 * slopes)
    slopes = xp.where(left & right, slopes, xp.where(left | right, mixed, 0 * slopes))
    return units.outward_derivative(backend, v @ (slopes * (adjoint(v) @ e @ v)) @ adjoint(v), power)


def frechet_tangent(backend: Backend, arrays: Arrays, tangents: Arrays, **options: Any) -> Array:
    """dL for changes of A and E."""
    k = _coupling_exponent(backend, *arrays)
    (a, e), (da, de) = arrays, tangents
    e, de = (backend.ldexp(x, broadcast_scalar(-k)) for x in (e, de))
    change = blocks_tangent(backend, partial(frechet_derivative, **options), (a, e), (da, de))
    return backend.ldexp(change, broadcast_scalar(k))


def frechet_cotangent(backend: Backend, arrays: Arrays, cotangent: Array, **options: Any) -> tuple[Array, Array]:
    """The cotangents of A and E for that of L."""
    k = _coupling_exponent(backend, *arrays)
    a, e = arrays[0], backend.ldexp(arrays[1], broadcast_scalar(-k))
    of_a, of_e = blocks_cotangent(backend, partial(frechet_derivative, **options), (a, e), cotangent)
    return backend.ldexp(of_a, broadcast_scalar(k)), of_e


def _coupling_exponent(backend: Backend, a: Array, e: Array) -> Array:
    """k for which [[a, 2^-k e], [0, a]] is about as well-conditioned as a: 2^-k e is smaller than the singular values of a.

    The derivatives of L are linear in e, or do not depend on it. For a singular a, 2^-k e has the size of a.
    """
    a, size = scale_to_unit(backend, backend.stop_gradient(a))
    size_e = scale_to_unit(backend, backend.stop_gradient(e))[1]
    inverse = backend.norm(backend.inv(a))
    regular = backend.norm(a) * inverse * (a.shape[-1] * backend.eps(a)) < 1
    least = backend.exponent(backend.xp.where(regular, inverse, backend.ones(a)))
    return size_e - size + backend.xp.where(regular, least - round(math.log2(_SMALL)), 0 * least)


_FRECHET = Operation(
    "Fréchet derivative",
    shapes_of("(n,n),(n,n)"),
    shapes_of("(n,n)"),
    solve=solve_frechet,
    tangent=lambda backend, value, arrays, tangents, **options: (
        frechet_tangent(backend, arrays, tangents, **options),
    ),
    cotangent=lambda backend, value, arrays, cotangents, **options: frechet_cotangent(
        backend, arrays, cotangents[0], **options
    ),
    linear=True,
)


def function_tangent(
    backend: Backend, arrays: Arrays, tangents: Arrays, *, power: Exponent, rtol: float | None, **_: Any
) -> Arrays:
    return (frechet_derivative(backend, arrays[0], tangents[0], power=power, rtol=rtol),)


def function_cotangent(
    backend: Backend, arrays: Arrays, cotangents: Arrays, *, power: Exponent, rtol: float | None, **_: Any
) -> Arrays:
    return (frechet_derivative(backend, adjoint(arrays[0]), cotangents[0], power=power, rtol=rtol),)


def power_inside(backend: Backend, a: Array, *, power: Exponent, rtol: float | None) -> Array:
    """f(a) inside a derivative rule."""
    return apply(backend, _POWER, a, power=power, rtol=rtol, method="auto")[0]


_POWER = Operation(
    "power",
    shapes_of("(n,n)"),
    shapes_of("(n,n)"),
    solve=matrix_function,
    tangent=lambda backend, value, arrays, tangents, **options: function_tangent(backend, arrays, tangents, **options),
    cotangent=lambda backend, value, arrays, cotangents, **options: function_cotangent(
        backend, arrays, cotangents, **options
    ),
)
