"""Conjugate gradients for matrices x: H x = b with a linear operator H, self-adjoint and positive definite for Re tr(xᴴy)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.linalg.stacks import broadcast_scalar, inner, safe_divisor


class LinearSolution(NamedTuple):
    """x, and the norm of the residual relative to that of b, both in the norm of the preconditioner."""

    x: Array
    gap: Array


def conjugate_gradients(
    backend: Backend,
    operator: Callable[[Backend, Arrays, Array], Array],
    precondition: Callable[[Backend, Arrays, Array], Array],
    data: Arrays,
    b: Array,
    tol: float | Array,
    limit: int,
) -> LinearSolution:
    """x with ``operator(backend, data, x)`` = b until the residual is `tol` times b; `precondition` is near to the inverse of H.

    Both are measured in the norm of the preconditioner C, √Re tr(rᴴ C r). The data are stacks, because members that have
    converged leave the iteration.
    """

    def step(state: tuple[Arrays, Arrays]) -> tuple[tuple[Arrays, Arrays], Array]:
        data, (x, r, p, rho, target) = state
        hp = operator(backend, data, p)
        length = broadcast_scalar(rho / safe_divisor(backend, inner(backend, p, hp)))
        x, r = x + length * p, r - length * hp
        z = precondition(backend, data, r)
        new = inner(backend, r, z)
        p = z + broadcast_scalar(new / safe_divisor(backend, rho)) * p
        return (data, (x, r, p, new, target)), new > target

    z = precondition(backend, data, b)
    size = inner(backend, b, z)
    _, (x, _, _, rho, _) = backend.loop(step, (data, (0 * b, b, z, size, tol * tol * size)), limit)
    return LinearSolution(x, backend.xp.sqrt(abs(rho / safe_divisor(backend, size))))
