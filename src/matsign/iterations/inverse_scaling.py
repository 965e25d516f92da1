"""Real powers and the logarithm of general matrices by Newton's square roots, inverses and products, for any array library.

A^t = (A^{1/2})^{2t} and log A = 2 log A^{1/2} until a power series is short enough (`power_series`).

A compiled program has one loop for all members instead, with the formulas of `direct.triangular_powers` for full matrices.
Square roots R ← R^{1/2} lead to I, and X = I - R is updated without cancellation, X ← X (I + R^{1/2})⁻¹. Likewise R^t = I + Y is
squared as Y ← Y (2I + Y).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core.tolerances import LAPACK_SIZE, working_precision
from matsign.iterations import power_series
from matsign.iterations.block_structures import AntiDiagonal
from matsign.iterations.newton import has_converged, newton
from matsign.linalg.conditioning import spectral_norm_bound
from matsign.linalg.jacobi_quadrature import jacobi_rule, radius
from matsign.linalg.scalar_powers import Exponent
from matsign.linalg.stacks import broadcast_scalar, eye, plus_identity, to_double

# Nodes of the quadrature, and square roots, which suffice for any spectrum that working precision resolves.
NODES = 12
_MOST_ROOTS = 24
# Square roots after which a power series is short for any spectrum that working precision resolves.
_FEW_ROOTS = 6
# In Newton's iteration the angle of an eigenvalue to the imaginary axis may be doubled by this fraction of the bits of a number.
_CLEAR = 0.4


class Scaled(NamedTuple):
    """The function of a stack, the number of square roots, and which members are accurate."""

    value: Array
    roots: Array
    accurate: Array


def inverse_scaling(backend: Backend, a: Array, power: Exponent) -> Scaled:
    """a^t for a t that is no integer, or log a, for a of size 1; single precision is computed in double on a CPU."""
    kind, eps = backend.dtype_name(a), backend.eps(a)
    a = to_double(backend, a) if backend.on_cpu(a) else a
    method = _by_many_roots if backend.is_traced(a) else partial(_by_few_roots, eps=eps, most=_most_roots(backend, a))
    result = _times_whole(backend, a, power, method)
    return result._replace(value=backend.astype(result.value, kind))


def _times_whole(backend: Backend, a: Array, power: Exponent, method: Callable[..., Scaled]) -> Scaled:
    """a^t from the power of the fraction of t, which `method` computes."""
    whole = 0 if power.is_logarithm else math.trunc(power.value)
    fraction = power if power.is_logarithm else Exponent((power.high or 0.0) - whole, power.low)
    result = method(backend, a, fraction)
    value, base = result.value, backend.inv(a) if whole < 0 else a
    for _ in range(abs(whole)):
        value = base @ value
    return result._replace(value=value)


def _most_roots(backend: Backend, a: Array) -> int:
    """The square roots after which Schur vectors take less time; the logarithm loses a digit by three of them."""
    if not backend.on_cpu(a) or a.shape[-1] <= LAPACK_SIZE:
        return _FEW_ROOTS
    return 0 if backend.is_complex(a) else 2


def _by_few_roots(backend: Backend, a: Array, power: Exponent, *, eps: float, most: int) -> Scaled:
    """a^t with |t| < 1 or log a to the precision `eps`, by a power series in a or in a^{1/2}, …, after at most `most` roots."""
    none = 0 * backend.ones(a)
    if not power.is_logarithm and power.value == 0:
        return Scaled(eye(backend, a) + 0 * a, none, none == 0)

    def by_series(a: Array, *centred: Any) -> Scaled:
        value = power_series.series(backend, power_series.Centred(*centred), power)
        return Scaled(value, 0 * backend.ones(a), backend.ones(a) > 0)

    def by_root(a: Array, *_: Any) -> Scaled:
        if most == 0:
            return Scaled(a, 0 * backend.ones(a), backend.ones(a) < 0)
        root, right = _square_root(backend, a)
        rest = partial(_by_few_roots, eps=eps, most=most - 1)

        def next_root(root: Array) -> Scaled:
            if power.is_logarithm:
                result = rest(backend, root, power)
                return result._replace(value=2 * result.value)
            return _times_whole(backend, root, Exponent(2 * (power.high or 0.0), 2 * power.low), rest)

        result = backend.masked_cond(
            right, next_root, lambda root: Scaled(root, 0 * backend.ones(root), backend.ones(root) < 0), root
        )
        return result._replace(roots=result.roots + 1)

    centred = power_series.centre(backend, a, power, eps)
    return backend.masked_cond(centred.blocks > 0, by_series, by_root, a, *centred)


def _square_root(backend: Backend, r: Array) -> tuple[Array, Array]:
    """r^{1/2}, and which members have it accurately."""
    iterate = newton(backend, AntiDiagonal(r, eye(backend, r) + 0 * r))
    root = iterate.value[0]
    gap = backend.norm(root @ root - r)
    square = backend.norm(root) ** 2
    # Near the negative axis, and where a Jordan block there has been split by rounding, Schur vectors decide.
    clear = (iterate.doublings < -_CLEAR * math.log2(backend.eps(r))) & (
        square * backend.eps(r) ** 0.75 < backend.norm(r)
    )
    return root, has_converged(backend, iterate) & clear & (gap < working_precision(backend, r) * square)


def _by_many_roots(backend: Backend, a: Array, power: Exponent) -> Scaled:
    """The same by square roots to near I and a quadrature, in one loop of one shape."""
    xp, one = backend.xp, eye(backend, a)
    small = radius(NODES, backend.eps(a))

    def take_root(state: Any) -> Any:
        r, x, count, accurate, _ = state
        del state
        root, right = _square_root(backend, r)
        x = x @ backend.inv(plus_identity(backend, 1.0, root))
        size = xp.minimum(backend.norm(x), xp.sqrt(spectral_norm_bound(backend, x @ x)))
        active = right & (size > small)
        return (root, x, count + 1, xp.where(right, accurate, 0 * accurate), size), active

    ones = backend.ones(a)
    _, x, count, accurate, size = backend.loop(take_root, (a, one - a, 0 * ones, ones, ones), _MOST_ROOTS)
    t = 0.0 if power.is_logarithm else power.value
    g = x @ backend.fold_rows(
        jacobi_rule(t, NODES),
        lambda total, node, weight: total + weight * backend.inv(one - node * x),
        xp.zeros_like(x),
    )
    value = (
        -g * broadcast_scalar(xp.exp2(count))
        if power.is_logarithm
        else one + _square_repeatedly(backend, -t * g, count)
    )
    return Scaled(value, count, (accurate > 0) & (size <= small))


def _square_repeatedly(backend: Backend, y: Array, count: Array) -> Array:
    """(I + y)^{2^count} - I."""

    def square(state: Any) -> Any:
        y, count = state
        return (2 * y + y @ y, count - 1), count > 1.5

    return backend.loop(square, (y, count), _MOST_ROOTS)[0]
