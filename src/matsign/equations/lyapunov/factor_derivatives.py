"""Derivatives of a factor z of the Gramian x = z zᴴ, where a x + x aᴴ + b bᴴ = 0 or a x aᴴ - x + b bᴴ = 0.

`equations.lyapunov.factors` states the formula for dz.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.members import solution
from matsign.core.operations import Operation, apply, shapes_of
from matsign.iterations.differentiable_solves import inverse, solve_stable_lyapunov, solve_stable_stein
from matsign.linalg import balancing
from matsign.linalg.stacks import adjoint, eye, hermitian, safe_divisor


def _pseudo_inverse(backend: Backend, z: Array) -> Array:
    """z⁺; the nonzero columns of z must be linearly independent."""
    xp = backend.xp
    # Scaling the columns to unit length first conditions the Gram matrix well and does not change z⁺.
    size = backend.stop_gradient(xp.sqrt(xp.sum(xp.abs(backend.stop_gradient(z)) ** 2, axis=-2, keepdims=True)))
    size = backend.astype(safe_divisor(backend, size), backend.dtype_name(z))
    zero_columns = backend.astype((backend.stop_gradient(z) == 0).all(-2), backend.dtype_name(z))
    unit = z / size
    gram = adjoint(unit) @ unit + eye(backend, z) * zero_columns[:, None, :]
    return inverse(backend, gram) @ adjoint(unit) / size.mT


def gramian_jvp(backend: Backend, a: Array, b: Array, x: Array, da: Array, db: Array) -> Array:
    """dx of a x + x aᴴ + b bᴴ = 0."""
    return solve_stable_lyapunov(backend, a, 2 * hermitian(da @ x + db @ adjoint(b)))


def gramian_vjp(backend: Backend, a: Array, b: Array, x: Array, bar: Array) -> tuple[Array, Array]:
    """The adjoint of `gramian_jvp`: aᴴ y + y a + x̄ = 0 gives ā = 2 y x and b̄ = 2 y b."""
    y = hermitian(solve_stable_lyapunov(backend, adjoint(a), hermitian(bar)))
    return 2 * y @ x, 2 * y @ b


def discrete_gramian_jvp(backend: Backend, a: Array, b: Array, x: Array, da: Array, db: Array) -> Array:
    """dx of a x aᴴ - x + b bᴴ = 0."""
    return solve_stable_stein(backend, a, 2 * hermitian(da @ x @ adjoint(a) + db @ adjoint(b)))


def discrete_gramian_vjp(backend: Backend, a: Array, b: Array, x: Array, bar: Array) -> tuple[Array, Array]:
    """The adjoint of `discrete_gramian_jvp`: aᴴ y a - y + x̄ = 0 gives ā = 2 y a x and b̄ = 2 y b."""
    y = hermitian(solve_stable_stein(backend, adjoint(a), hermitian(bar)))
    return 2 * y @ a @ x, 2 * y @ b


def factor_change(backend: Backend, z: Array, dx: Array) -> Array:
    """dz = (I - ½ z z⁺) dx z⁺ᴴ, of all dz with d(z zᴴ) = dx that of least norm."""
    plus = _pseudo_inverse(backend, z)
    dx_plus = dx @ adjoint(plus)
    return dx_plus - z @ (plus @ dx_plus) / 2


def factor_change_adjoint(backend: Backend, z: Array, bar: Array) -> Array:
    """The adjoint of `factor_change`, for Hermitian dx."""
    plus = _pseudo_inverse(backend, z)
    return hermitian((bar - adjoint(plus) @ (adjoint(z) @ bar) / 2) @ plus)


_UNITS = Operation(
    "balancing units",
    shapes_of("(n,n)"),
    shapes_of("(n)"),
    solve=lambda backend, a: solution(
        backend, (backend.astype(balancing.balancing_exponents(backend, a), backend.dtype_name(a.real)),)
    ),
    tangent=lambda backend, value, arrays, tangents: (backend.xp.zeros_like(value[0]),),
    cotangent=lambda backend, value, arrays, cotangents: (backend.xp.zeros_like(arrays[0]),),
    kinds=("real",),
)


class StateUnits(NamedTuple):
    """Exponents (B, n, 1) of the units of the states that balance a; in them the columns of z are not nearly parallel."""

    e: Array

    def state(self, backend: Backend, x: Array) -> Array:
        """x (b or z, with one row per state) in these units."""
        return backend.ldexp(x, -self.e)

    def dual(self, backend: Backend, x: Array) -> Array:
        """The gradient with respect to b or z in these units."""
        return backend.ldexp(x, self.e)

    def matrix(self, backend: Backend, a: Array) -> Array:
        """a or da in these units."""
        return backend.ldexp(a, self.e.mT - self.e)


def balancing_units(backend: Backend, a: Array) -> StateUnits:
    e = backend.stop_gradient(apply(backend, _UNITS, backend.stop_gradient(a))[0])
    return StateUnits(backend.xp.astype(e, backend.xp.int32)[:, :, None])


def tangent_in_units(tangent: Callable[..., Arrays]) -> Callable[..., Arrays]:
    """Compute the tangent of a factor in the units that balance a: dz then differs, but d(z zᴴ) does not."""

    def scaled_tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays) -> Arrays:
        (z,), (a, b), (da, db), units = value, arrays, tangents, balancing_units(backend, arrays[0])
        z, b, db = (units.state(backend, x) for x in (z, b, db))
        a, da = units.matrix(backend, a), units.matrix(backend, da)
        return (units.dual(backend, tangent(backend, (z,), (a, b), (da, db))[0]),)

    return scaled_tangent


def cotangent_in_units(cotangent: Callable[..., Arrays]) -> Callable[..., Arrays]:
    """The adjoint of `tangent_in_units`."""

    def scaled_cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays) -> Arrays:
        (z,), (a, b), units = value, arrays, balancing_units(backend, arrays[0])
        scaled_primals = (units.state(backend, z),), (units.matrix(backend, a), units.state(backend, b))
        bar_a, bar_b = cotangent(backend, *scaled_primals, (units.dual(backend, cotangents[0]),))
        return units.matrix(backend, bar_a), units.state(backend, bar_b)

    return scaled_cotangent


def continuous_tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays) -> Arrays:
    (z,), (a, b) = value, arrays
    return (factor_change(backend, z, gramian_jvp(backend, a, b, z @ adjoint(z), *tangents)),)


def continuous_cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays) -> Arrays:
    (z,), (a, b) = value, arrays
    return gramian_vjp(backend, a, b, z @ adjoint(z), factor_change_adjoint(backend, z, cotangents[0]))


def discrete_tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays) -> Arrays:
    (z,), (a, b), (da, db) = value, arrays, tangents
    scaled_tangent = da @ z @ adjoint(a @ z) + db @ adjoint(b)
    return (factor_change(backend, z, solve_stable_stein(backend, a, 2 * hermitian(scaled_tangent))),)


def discrete_cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays) -> Arrays:
    """aᴴ y a - y + x̄ = 0 gives ā = 2 y a x and b̄ = 2 y b, for x = z zᴴ."""
    (z,), (a, b) = value, arrays
    y = hermitian(solve_stable_stein(backend, adjoint(a), factor_change_adjoint(backend, z, cotangents[0])))
    return 2 * y @ (a @ z) @ adjoint(z), 2 * y @ b
