"""The units that balance a matrix as an operation of its own, for derivative rules, which must not branch on values.

Units are powers of two with integer exponents: they have no derivative.
"""

from __future__ import annotations

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.members import Solution, solution
from matsign.core.operations import Operation, apply, shapes_of
from matsign.linalg.balancing import BalancedMatrix, balance
from matsign.linalg.stacks import broadcast_scalar


def constant_units(backend: Backend, m: Array) -> BalancedMatrix:
    """`balance` for a derivative rule: the exponents come from an operation without derivatives."""
    if backend.products_only(m):
        return balance(backend, m)
    e, k, reached = apply(backend, _UNITS, backend.stop_gradient(m))
    e, k = (backend.xp.astype(x, backend.xp.int32) for x in (e, k))
    shift = e[:, None, :] - e[:, :, None]
    return BalancedMatrix(backend.ldexp(m, shift - broadcast_scalar(k)), e, k, reached > 0)


def _solve_units(backend: Backend, m: Array) -> Solution:
    balanced, like = balance(backend, m), m.real
    e = 0 * like[:, 0] if balanced.e is None else balanced.e
    reached = m == m if balanced.reached is None else balanced.reached
    return solution(backend, tuple(backend.astype(x, backend.dtype_name(like)) for x in (e, balanced.k, reached)))


def _no_derivative(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays) -> Arrays:
    return tuple(backend.xp.zeros_like(x) for x in value)


_UNITS = Operation(
    "units",
    shapes_of("(n,n)"),
    (("n",), (), ("n", "n")),
    solve=_solve_units,
    tangent=_no_derivative,
    cotangent=lambda backend, value, arrays, cotangents: (backend.xp.zeros_like(arrays[0]),),
    kinds=("real", "real", "real"),
    unrolled=True,
)
