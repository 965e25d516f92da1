"""The Fréchet derivative L(A, E) of a function of a matrix as an operation with derivatives of every order.

With the blocks M = [[A, E], [0, A]],

    dL = upper right block of L(M, [[dA, dE], [0, dA]]).

The adjoint of this map takes the cotangent Y to

    [[A', E'], [Y', A'']] = L([[Aᴴ, Eᴴ], [0, Aᴴ]], [[0, 0], [Y, 0]]):    cotangent of A is A' + A'', of E it is Y'.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.members import Solution
from matsign.core.operations import Operation, apply, shapes_of
from matsign.linalg.stacks import adjoint, assemble


def blocks_tangent(backend: Backend, derivative: Callable[..., Array], arrays: Arrays, tangents: Arrays) -> Array:
    """dL for changes of A and E; `derivative(backend, A, E)` is L."""
    (a, e), (da, de), n = arrays, tangents, arrays[0].shape[-1]
    zero = backend.xp.zeros_like(a)
    result: Array = derivative(backend, assemble(backend, a, e, zero, a), assemble(backend, da, de, zero, da))
    return result[:, :n, n:]


def blocks_cotangent(
    backend: Backend, derivative: Callable[..., Array], arrays: Arrays, cotangent: Array
) -> tuple[Array, Array]:
    """The cotangents of A and E for that of L."""
    (a, e), n = (adjoint(x) for x in arrays), arrays[0].shape[-1]
    zero = backend.xp.zeros_like(a)
    result = derivative(backend, assemble(backend, a, e, zero, a), assemble(backend, zero, zero, cotangent, zero))
    return result[:, :n, :n] + result[:, n:, n:], result[:, n:, :n]


def frechet_operation(name: str, solve: Callable[..., Solution]) -> Operation:
    """The operation L(A, E), for a solver that also takes A that are not Hermitian."""

    def derivative(backend: Backend, a: Array, e: Array, **options: Any) -> Array:
        return apply(backend, operation, a, e, **options)[0]

    def tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, **options: Any) -> Arrays:
        return (blocks_tangent(backend, partial(derivative, **options), arrays, tangents),)

    def cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, **options: Any) -> Arrays:
        return blocks_cotangent(backend, partial(derivative, **options), arrays, cotangents[0])

    operation = Operation(
        name,
        shapes_of("(n,n),(n,n)"),
        shapes_of("(n,n)"),
        solve=solve,
        tangent=tangent,
        cotangent=cotangent,
        linear=True,
    )
    return operation
