"""Block triangular form of a singular matrix from an orthonormal basis of its left null space.

With p the orthogonal projector on the left null space of a, p a = 0. In an orthonormal basis of ker p, then of range p,

    a = [[corner, across], [0, 0]].

If the corner is nonsingular, 0 is a semisimple eigenvalue of a with the spectral projector p - corner⁻¹ across, and a
function f with f(0) = 0 gives f(a) = [[f(corner), corner⁻¹ f(corner) across], [0, 0]]. Dropping small singular values is a
backward error of at most `rtol` ‖a‖, even if the spectral projector is large.
"""

from __future__ import annotations

from typing import NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.linalg.stacks import adjoint, broadcast_scalar, eye


class Split(NamedTuple):
    """`corner` + `across` is the matrix with small singular values dropped; `shifted` is corner + shift `projector`.

    `projector` is the orthogonal projector on the left null space, `count` its rank. `dropped` is the largest dropped singular
    value over the largest of all, at least n eps. `defective`: the corner is singular too, so 0 has a Jordan block.
    """

    corner: Array
    across: Array
    shifted: Array
    shift: Array
    projector: Array
    count: Array
    dropped: Array
    defective: Array


def split_null_space(backend: Backend, a: Array, rtol: float) -> Split:
    """Split a; singular values of at most `rtol` times the largest count as zero."""
    xp = backend.xp
    u, values, _ = backend.svd(a)
    top = values[..., 0]
    zeros = xp.astype(values <= rtol * values[..., :1], values.dtype)
    basis = u * xp.astype(zeros, a.dtype)[..., None, :]
    p = basis @ adjoint(basis)
    rest = eye(backend, a) - p
    corner, across, count = rest @ a @ rest, rest @ a @ p, xp.sum(zeros, axis=-1)
    # Adding p replaces the deflated zeros by ones: a small singular value left is one of the corner, from a Jordan chain.
    size = xp.where(top > 0, top, backend.ones(a))
    corner_plus_p = corner / broadcast_scalar(xp.astype(size, a.dtype)) + p
    corner_singular = (backend.svd(corner_plus_p)[1] <= max(rtol, a.shape[-1] * backend.eps(a))).any(-1)
    # The shift is the geometric mean of the moduli of the nonzero eigenvalues.
    rank = a.shape[-1] - count
    shift = size * xp.exp(backend.log_determinant(corner_plus_p).real / xp.where(rank > 0, rank, backend.ones(a)))
    shift = xp.where((shift > 0) & xp.isfinite(shift), shift, size)
    shifted = corner + broadcast_scalar(xp.astype(shift, a.dtype)) * p
    dropped = xp.maximum(xp.max(zeros * values, axis=-1) / size, a.shape[-1] * backend.eps(a) * backend.ones(a))
    return Split(corner, across, shifted, shift, p, count, dropped, corner_singular & (count > 0))


def keep_zero_rows(backend: Backend, f: Array, a: Array) -> Array:
    """f(a) for a function with f(0) = 0, with zeros, and no rounding errors, in the zero rows and columns of a."""
    xp = backend.xp
    rows, columns = (a != 0).any(-1), (a != 0).any(-2)
    return xp.where(rows[..., :, None] & columns[..., None, :], f, xp.zeros_like(f))
