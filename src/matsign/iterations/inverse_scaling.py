"""Real powers and the logarithm of general matrices by Newton's square roots, inverses and products, for any array library.

The formulas are those of `direct.triangular_powers`, for full matrices. Square roots R ← R^{1/2} lead to I, and
X = I - R is updated without cancellation, X ← X (I + R^{1/2})⁻¹. Likewise R^t = I + Y is squared as Y ← Y (2I + Y).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core.tolerances import working_precision
from matsign.iterations.block_structures import AntiDiagonal
from matsign.iterations.newton import has_converged, newton
from matsign.linalg.jacobi_quadrature import jacobi_rule, radius
from matsign.linalg.scalar_powers import Exponent
from matsign.linalg.stacks import broadcast_scalar, eye, plus_identity

# Nodes of the quadrature, and square roots, which suffice for any spectrum that working precision resolves.
NODES = 12
_MOST_ROOTS = 24


class Scaled(NamedTuple):
    """The function of a stack, the number of square roots, and which members are accurate."""

    value: Array
    roots: Array
    accurate: Array


def inverse_scaling(backend: Backend, a: Array, power: Exponent) -> Scaled:
    """a^t or log a, for a of size 1."""
    xp, one = backend.xp, eye(backend, a)
    small = radius(NODES, backend.eps(a))

    def take_root(state: Any) -> Any:
        r, x, count, accurate, _ = state
        del state
        iterate = newton(backend, AntiDiagonal(r, eye(backend, r) + 0 * r))
        root = iterate.value[0]
        gap = backend.norm(root @ root - r)
        right = has_converged(backend, iterate) & (gap < working_precision(backend, r) * backend.norm(root) ** 2)
        x = x @ backend.inv(plus_identity(backend, 1.0, root))
        size = xp.minimum(backend.norm(x), xp.sqrt(backend.norm(x @ x)))
        active = right & (size > small)
        return (root, x, count + 1, xp.where(right, accurate, 0 * accurate), size), active

    ones = backend.ones(a)
    _, x, count, accurate, size = backend.loop(take_root, (a, one - a, 0 * ones, ones, ones), _MOST_ROOTS)
    halvings = 0 if power.is_logarithm else max(0, math.frexp(power.value)[1])
    t = 0.0 if power.is_logarithm else math.ldexp(power.value, -halvings)
    g = x @ backend.fold_rows(
        jacobi_rule(t, NODES),
        lambda total, node, weight: total + weight * backend.inv(one - node * x),
        xp.zeros_like(x),
    )
    value = (
        -g * broadcast_scalar(xp.exp2(count))
        if power.is_logarithm
        else one + _squared(backend, -t * g, count + halvings)
    )
    return Scaled(value, count, (accurate > 0) & (size <= small))


def _squared(backend: Backend, y: Array, count: Array) -> Array:
    """(I + y)^{2^count} - I."""

    def square(state: Any) -> Any:
        y, count = state
        return (2 * y + y @ y, count - 1), count > 1.5

    return backend.loop(square, (y, count), _MOST_ROOTS)[0]
