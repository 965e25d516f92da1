"""Backward errors and correction steps of square roots."""

from __future__ import annotations

from typing import Any

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core import scaling
from matsign.core.public import Residual
from matsign.core.tolerances import rank_tolerance
from matsign.functions.powers.root_corrections import correct, probes, regular_root
from matsign.functions.powers.square_root_derivatives import inverse_jvp
from matsign.linalg.stacks import adjoint, broadcast_scalar, is_hermitian, safe_divisor

Units = tuple[Any, Any]


def _corrections(
    backend: Backend, units: Units, a: Array, x: Array, z: Array, gaps: tuple[Array, ...], rtol: float
) -> tuple[Array, Array, Array]:
    """y with X y + y X = g for each residual g and for a few changes of A by rounding; and the changes of Z for the latter.

    All are stacks (B, k, n, n). For a Hermitian A they are in the basis of its eigenvectors: only their norms are used.
    """
    rights = backend.xp.concat([gap[:, None] for gap in gaps], axis=1)
    noise = probes(backend, a, backend.xp.maximum(backend.norm(a), backend.norm(x) ** 2))

    def by_eigenvectors(a: Array, x: Array, z: Array, rights: Array, noise: Array) -> tuple[Array, Array, Array]:
        values, v = backend.eigh(a)
        size = backend.xp.abs(values) if backend.is_complex(a) else values
        kept = size > rtol * backend.xp.maximum(-values[:, :1], values[:, -1:])
        roots = backend.xp.sqrt(backend.xp.where(kept, size, 0 * size))
        if backend.is_complex(a):
            roots = backend.xp.where(values < 0, 1j * roots, roots)
        sums, one = roots[:, None, :, None] + roots[:, None, None, :], backend.xp.ones_like(roots)
        inverse = backend.xp.where(
            sums != 0, 1 / backend.xp.where(sums != 0, sums, backend.xp.ones_like(sums)), 0 * sums
        )
        y, dx = adjoint(v)[:, None] @ rights @ v[:, None] * inverse, noise * inverse
        # As `inverse_jvp`, with diagonal matrices: 1/(ri rj), and 1/r² where the other is zero.
        r = backend.xp.where(kept, 1 / backend.xp.where(kept, roots, one), 0 * roots)
        z = r[:, :, None] * r[:, None, :]
        to_null = (r**2)[:, :, None] * (1 - backend.xp.astype(kept, r.dtype))[:, None, :]
        return y, dx, dx * (to_null + to_null.mT - z)[:, None]

    def by_equation(a: Array, x: Array, z: Array, rights: Array, noise: Array) -> tuple[Array, Array, Array]:
        root = regular_root(backend, x, rtol)
        y = correct(backend, root, root, backend.xp.concat([rights, noise], axis=1))
        y, dx = y[:, : len(gaps)], y[:, len(gaps) :]
        return y, dx, inverse_jvp(z[:, None], root.projector[:, None], dx)

    arrays = (a, x, z, rights, noise)
    if backend.on_cpu(a) and not backend.is_traced(a):
        # Only if balancing has changed nothing: then norms in the basis of eigenvectors are those in the caller's units.
        unbalanced = is_hermitian(a) if units[1] is None else is_hermitian(a) & (units[1] == 0).all(-1)
        return backend.masked_cond(unbalanced, by_eigenvectors, by_equation, *arrays)
    return by_equation(*arrays)


def _relative_norm(backend: Backend, gap: Array, *terms: Array) -> Array:
    return backend.norm(gap) / safe_divisor(backend, sum(backend.norm(x) for x in terms))


def pair_residual(backend: Backend, value: tuple[Array, Array], a: Array, *, rtol: float | None) -> Residual:
    """X X = A, and Z A Z = the projector on the range of A, to second order 3R² - 2R³ for R = Z A Z."""
    units, a = balanced_units(backend, a)
    x, z = _in_units(backend, value[0], units, -1), _in_units(backend, value[1], units, 1)
    square, r = x @ x, z @ a @ z
    identity = r @ (3 * r - 2 * r @ r)
    y, dx, dz = _corrections(backend, units, a, x, z, (a - square, identity - r), rank_tolerance(backend, a, rtol))
    backward = backend.xp.maximum(
        _relative_norm(backend, a - square, square, a), _relative_norm(backend, identity - r, r, identity)
    )
    steps = _join_steps(backend, y[:, :1], dx, units, 1), _join_steps(backend, y[:, 1:], dz, units, -1)
    return Residual(backward, steps)


def root_residual(backend: Backend, value: tuple[Array], a: Array, *, rtol: float | None) -> Residual:
    units, a = balanced_units(backend, a)
    x = _in_units(backend, value[0], units, -1)
    square = x @ x
    y, dx, _ = _corrections(backend, units, a, x, x, (a - square,), rank_tolerance(backend, a, rtol))
    return Residual(_relative_norm(backend, a - square, square, a), (_join_steps(backend, y, dx, units, 1),))


def inverse_residual(backend: Backend, value: tuple[Array], a: Array, *, rtol: float | None) -> Residual:
    units, a = balanced_units(backend, a)
    z = _in_units(backend, value[0], units, 1)
    x = a @ z
    r = z @ x
    identity = r @ (3 * r - 2 * r @ r)
    y, _, dz = _corrections(backend, units, a, x, z, (identity - r,), rank_tolerance(backend, a, rtol))
    return Residual(_relative_norm(backend, identity - r, r, identity), (_join_steps(backend, y, dz, units, -1),))


def balanced_units(backend: Backend, a: Array) -> tuple[Units, Array]:
    """Half the logarithm of the size of A and the exponents that balance it, and the scaled, balanced A."""
    e, a, k = scaling.balance_together(backend, a)
    half = -(-k // 2)
    return (half, e), backend.ldexp(a, broadcast_scalar(k - 2 * half))


def _in_units(backend: Backend, x: Array, units: Units, power: int) -> Array:
    half, e = units
    shift = None if e is None else e[:, None, :] - e[:, :, None]
    return backend.exact_ldexp(x, scaling.add_exponents(shift, broadcast_scalar(power * half)))


def _join_steps(backend: Backend, step: Array, rounding_steps: Array, units: Units, power: int) -> Array:
    """The steps for the residual and for rounding in one stack, in the units of the answer: one norm measures both."""
    half, e = units
    shift = None if e is None else e[:, None, :, None] - e[:, None, None, :]
    return backend.ldexp(
        backend.xp.concat([step, rounding_steps], axis=1),
        scaling.add_exponents(shift, power * half[:, None, None, None]),
    )
