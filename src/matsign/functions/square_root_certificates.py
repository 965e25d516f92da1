"""How wrong a square root may be."""

from __future__ import annotations

import math
from typing import Any

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core import scaling
from matsign.core.public import Residual
from matsign.core.tolerances import rank_tolerance
from matsign.functions.root_corrections import correct, probes, regular_root
from matsign.functions.square_root_derivatives import inverse_jvp
from matsign.linalg.stacks import adjoint, broadcast_scalar, is_hermitian, safe_divisor

Units = tuple[Any, Any]


def _corrections(
    backend: Backend, units: Units, a: Array, x: Array, z: Array, gaps: tuple[Array, ...], rtol: float
) -> tuple[Array, Array, Array]:
    """For each gap g, and for a few changes of A by rounding, y with X y + y X = g; and how Z moves with the latter.

    All are stacks (B, k, n, n). Of a Hermitian matrix they come in the basis of its eigenvectors: what is wanted is their norms.
    """
    wanted = backend.xp.concat([gap[:, None] for gap in gaps], axis=1)
    noise = probes(backend, a, backend.xp.maximum(backend.norm(a), backend.norm(x) ** 2))

    def by_eigenvectors(a: Array, x: Array, z: Array, wanted: Array, noise: Array) -> tuple[Array, Array, Array]:
        values, v = backend.eigh(a)
        kept = values > rtol * backend.xp.maximum(-values[:, :1], values[:, -1:])
        roots = backend.xp.sqrt(backend.xp.where(kept, values, 0 * values))
        sums, one = roots[:, None, :, None] + roots[:, None, None, :], backend.xp.ones_like(roots)
        sums = backend.xp.where(sums > 0, sums, math.inf * backend.xp.ones_like(sums))
        y, moved = adjoint(v)[:, None] @ wanted @ v[:, None] / sums, noise / sums
        # As `inverse_jvp`, with diagonal matrices: 1/(ri rj), and 1/r² where the other is zero.
        r = backend.xp.where(kept, 1 / backend.xp.where(kept, roots, one), 0 * roots)
        z = r[:, :, None] * r[:, None, :]
        turned = (r**2)[:, :, None] * (1 - backend.xp.astype(kept, r.dtype))[:, None, :]
        return y, moved, moved * (turned + turned.mT - z)[:, None]

    def by_equation(a: Array, x: Array, z: Array, wanted: Array, noise: Array) -> tuple[Array, Array, Array]:
        sylvester_symmetric = regular_root(backend, x, rtol)
        y = correct(backend, sylvester_symmetric, sylvester_symmetric, backend.xp.concat([wanted, noise], axis=1))
        y, moved = y[:, : len(gaps)], y[:, len(gaps) :]
        return y, moved, inverse_jvp(z[:, None], sylvester_symmetric.projector[:, None], moved)

    arrays = (a, x, z, wanted, noise)
    if backend.on_cpu(a) and not backend.is_traced(a):
        # One that is Hermitian as it came: it was balanced, and its norms are those of the answer in any basis.
        plain = is_hermitian(a) if units[1] is None else is_hermitian(a) & (units[1] == 0).all(-1)
        return backend.masked_cond(plain, by_eigenvectors, by_equation, *arrays)
    return by_equation(*arrays)


def _misfit(backend: Backend, gap: Array, *terms: Array) -> Array:
    return backend.norm(gap) / safe_divisor(backend, sum(backend.norm(x) for x in terms))


def pair_residual(backend: Backend, value: tuple[Array, Array], a: Array, *, rtol: float | None) -> Residual:
    """X X = A, and Z A Z = the projector on the range of A, to second order 3R² - 2R³ for R = Z A Z."""
    units, a = balanced_units(backend, a)
    x, z = _in_units(backend, value[0], units, -1), _in_units(backend, value[1], units, 1)
    square, r = x @ x, z @ a @ z
    identity = r @ (3 * r - 2 * r @ r)
    y, dx, dz = _corrections(backend, units, a, x, z, (a - square, identity - r), rank_tolerance(backend, a, rtol))
    backward = backend.xp.maximum(_misfit(backend, a - square, square, a), _misfit(backend, identity - r, r, identity))
    return Residual(backward, (_both(backend, y[:, :1], dx, units, 1), _both(backend, y[:, 1:], dz, units, -1)))


def root_residual(backend: Backend, value: tuple[Array], a: Array, *, rtol: float | None) -> Residual:
    units, a = balanced_units(backend, a)
    x = _in_units(backend, value[0], units, -1)
    square = x @ x
    y, dx, _ = _corrections(backend, units, a, x, x, (a - square,), rank_tolerance(backend, a, rtol))
    return Residual(_misfit(backend, a - square, square, a), (_both(backend, y, dx, units, 1),))


def inverse_residual(backend: Backend, value: tuple[Array], a: Array, *, rtol: float | None) -> Residual:
    units, a = balanced_units(backend, a)
    z = _in_units(backend, value[0], units, 1)
    x = a @ z
    r = z @ x
    identity = r @ (3 * r - 2 * r @ r)
    y, _, dz = _corrections(backend, units, a, x, z, (identity - r,), rank_tolerance(backend, a, rtol))
    return Residual(_misfit(backend, identity - r, r, identity), (_both(backend, y, dz, units, -1),))


def balanced_units(backend: Backend, a: Array) -> tuple[Units, Array]:
    """Half the logarithm of the size of A and the exponents that balance it, and A without either."""
    e, a, k = scaling.balance_together(backend, a)
    half = -(-k // 2)
    return (half, e), backend.ldexp(a, broadcast_scalar(k - 2 * half))


def _in_units(backend: Backend, x: Array, units: Units, power: int) -> Array:
    half, e = units
    shift = None if e is None else e[:, None, :] - e[:, :, None]
    return backend.exact_ldexp(x, scaling.add_exponents(shift, broadcast_scalar(power * half)))


def _both(backend: Backend, step: Array, probed: Array, units: Units, power: int) -> Array:
    """The steps for the residual and for rounding, side by side and in the units of the answer: one norm measures both."""
    half, e = units
    shift = None if e is None else e[:, None, :, None] - e[:, None, None, :]
    return backend.ldexp(
        backend.xp.concat([step, probed], axis=1), scaling.add_exponents(shift, power * half[:, None, None, None])
    )
