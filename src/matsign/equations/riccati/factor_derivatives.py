"""Derivatives of a factor z of the solution x = z zᴴ of aᴴ x + x a - x b bᴴ x + cᴴ c = 0.

With the gain k = bᴴ x and the closed loop f = a - b k:

    fᴴ dx + dx f + h + hᴴ = 0,  h = x (da - db k) + cᴴ dc
    f y + y fᴴ + x̄ = 0,  ā = 2 x y,  b̄ = -2 x y kᴴ,  c̄ = 2 c y

and dz = (I - ½ z z⁺) dx z⁺ᴴ (`equations.lyapunov.factors`).
"""

from __future__ import annotations

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core import scaling
from matsign.equations.lyapunov.factor_derivatives import balancing_units, factor_change, factor_change_adjoint
from matsign.equations.riccati.factor_methods import time_exponent
from matsign.iterations.differentiable_solves import solve_stable_lyapunov
from matsign.linalg.stacks import adjoint, hermitian


def _tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays) -> Arrays:
    (z,), (a, b, c), (da, db, dc) = value, arrays, tangents
    gain = (adjoint(b) @ z) @ adjoint(z)
    half = z @ (adjoint(z) @ (da - db @ gain)) + adjoint(c) @ dc
    dx = hermitian(solve_stable_lyapunov(backend, adjoint(a - b @ gain), 2 * hermitian(half)))
    return (factor_change(backend, z, dx),)


def _cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays) -> Arrays:
    (z,), (a, b, c) = value, arrays
    gain = (adjoint(b) @ z) @ adjoint(z)
    bar = factor_change_adjoint(backend, z, cotangents[0])
    y = hermitian(solve_stable_lyapunov(backend, a - b @ gain, bar))
    bar_a = 2 * z @ (adjoint(z) @ y)
    return bar_a, -(bar_a @ adjoint(gain)), 2 * c @ y


def _tangent_in_units(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays) -> Arrays:
    """The tangent in the units that balance a: dz then differs, but d(z zᴴ) does not."""
    units = balancing_units(backend, arrays[0])

    def scale(a: Array, b: Array, c: Array) -> Arrays:
        return units.matrix(backend, a), units.state(backend, b), backend.ldexp(c, units.e.mT)

    z = units.dual(backend, value[0])
    return (units.state(backend, _tangent(backend, (z,), scale(*arrays), scale(*tangents))[0]),)


def _cotangent_in_units(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays) -> Arrays:
    """The adjoint of `_tangent_in_units`."""
    (a, b, c), units = arrays, balancing_units(backend, arrays[0])
    scaled = units.matrix(backend, a), units.state(backend, b), backend.ldexp(c, units.e.mT)
    z, bar = units.dual(backend, value[0]), units.state(backend, cotangents[0])
    bar_a, bar_b, bar_c = _cotangent(backend, (z,), scaled, (bar,))
    return units.matrix(backend, bar_a), units.state(backend, bar_b), backend.ldexp(bar_c, units.e.mT)


def _powers(backend: Backend, a: Array, b: Array, c: Array) -> scaling.Powers:
    b, c = backend.stop_gradient(b), backend.stop_gradient(c)
    of_a, of_b, of_c = (scaling.size_of(backend, x) for x in (a, b, c))
    time = time_exponent(backend, b, c, of_a, of_b + of_c)
    return scaling.Powers((time, time - of_c, of_c), (of_c - time // 2,))


factor_tangent = scaling.tangent_at_size(_powers, _tangent_in_units)
factor_cotangent = scaling.cotangent_at_size(_powers, _cotangent_in_units)
