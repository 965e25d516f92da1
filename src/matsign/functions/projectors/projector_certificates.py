"""Backward errors and correction steps of spectral projectors."""

from __future__ import annotations

from typing import Any

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core.public import Residual
from matsign.functions.projectors.projector_methods import (
    Line,
    Pencil,
    middle_of_gap,
    orthonormal_basis,
    orthonormalise,
    shift_to_axis,
    side,
)
from matsign.functions.sign.certificates import commutator, credible, may_flip, sign_correction
from matsign.functions.sign.derivatives import sign_jvp
from matsign.functions.sign.methods import PROJECTORS, sign, units_for_method
from matsign.linalg.stacks import adjoint, all_false, hermitian, rounding_probe, safe_divisor


def projector_residual(
    backend: Backend,
    value: tuple[Array],
    m: Array,
    overlap: Array | None,
    *,
    at: Line = None,
    lowest: int | None = None,
    half_plane: str | None = None,
    tol: float | None = None,
    rtol: float | None = None,
    method: str = "auto",
) -> Residual:
    """The residuals of P² = P and P M = M P, and the difference between P and the projector from a corrected sign."""
    options = {"tol": tol, "rtol": rtol, "method": method}
    if overlap is not None:
        return _pencil_residual(backend, *value, m, overlap, at, lowest, side(lowest, half_plane), **options)
    m = _to_axis(backend, m, at, lowest)
    backward, step, doubtful = _of_projector(backend, *value, m, side(lowest, half_plane), lowest, **options)
    return Residual(backward, (credible(backend, step, *value, doubtful),))


def _to_axis(backend: Backend, m: Array, at: Line, lowest: int | None) -> Array:
    return shift_to_axis(backend, m, at if lowest is None else middle_of_gap(backend, m, lowest))


def _of_projector(
    backend: Backend, p: Array, m: Array, half_plane: str, lowest: int | None, **options: Any
) -> tuple[Array, Array, Array]:
    """The backward error, the correction step and where an eigenvalue may be on the other side; the line is the axis."""
    units = units_for_method(backend, m, options["method"])
    m, p = units.matrix, units.inward(backend, p)
    s = sign(backend, m, **options).value[0]
    ds = sign_correction(backend, s, units)
    step = PROJECTORS[half_plane].product(m, s) - p + _move(s, ds, half_plane)
    size = backend.norm(p)
    square = backend.norm(p @ p - p) / safe_divisor(backend, size**2 + size)
    doubtful = all_false(backend, m) if lowest is not None else may_flip(backend, s, m, options["rtol"])
    return backend.xp.maximum(commutator(backend, p, m), square), units.outward(backend, step), doubtful


def _move(s: Array, ds: Array, half_plane: str) -> Array:
    """dP for dS."""
    return (ds @ s + s @ ds + (ds if half_plane == "right" else -ds)) / 2


def _pencil_residual(
    backend: Backend,
    value: Array,
    m: Array,
    overlap: Array,
    at: Line,
    lowest: int | None,
    half_plane: str,
    **options: Any,
) -> Residual:
    """The residuals of D S D = D and S D M = M D S, and the change of D for those of Π and for rounding of M and S."""
    pencil = Pencil.of(backend, m, hermitian(overlap), at)
    m, overlap, d = pencil.m, pencil.overlap, pencil.inward(backend, value)
    (t, _), low = orthonormal_basis(backend, overlap), backend.cholesky(overlap)
    k = orthonormalise(backend, t, m)
    shifted, p = _to_axis(backend, k, pencil.at, lowest), adjoint(low) @ d @ low
    _, step, doubtful = _of_projector(backend, p, shifted, half_plane, lowest, **options)
    # Rounding of M and S, by the derivative (`projector_derivatives`) with T = L⁻¹.
    dm, e = (orthonormalise(backend, t, rounding_probe(backend, x, backend.norm(x))) for x in (m, overlap))
    s = sign(backend, shifted, **options).value[0]
    dp = _move(s, sign_jvp(backend, s, shifted, dm - (e @ k + k @ e) / 2), half_plane) - (e @ p + p @ e) / 2
    step = abs(adjoint(t) @ step @ t) + abs(adjoint(t) @ dp @ t)
    size, of_overlap = backend.norm(d), backend.norm(overlap)
    square = backend.norm(d @ overlap @ d - d) / safe_divisor(backend, size**2 * of_overlap + size)
    gap = backend.norm(overlap @ d @ m - m @ d @ overlap)
    commuting = gap / safe_divisor(backend, 2 * of_overlap * size * backend.norm(m))
    step = credible(backend, pencil.outward(backend, step), value, doubtful)
    return Residual(backend.xp.maximum(square, commuting), (step,))
