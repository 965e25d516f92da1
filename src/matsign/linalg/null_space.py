"""The part of a singular matrix off its null space: from the left null space, an orthonormal basis of which is well-conditioned.

With p the orthogonal projector on the left null space of a, p a = 0, and in a basis of its complement and of its range

    a = [[corner, across], [0, 0]].

Where the corner is nonsingular zero is a semisimple eigenvalue, with the spectral projector p - corner⁻¹ across, and a
function of a that is zero at zero is [[f(corner), corner⁻¹ f(corner) across], [0, 0]]. What is dropped is at most `rtol` times
the norm of a, whatever the angle between the null space and the rest: a small backward error, also where the spectral projector
is large.
"""

from __future__ import annotations

from typing import NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.linalg.stacks import adjoint, broadcast_scalar, eye


class Split(NamedTuple):
    """`corner` + `across` is the matrix with small singular values dropped; `shifted` is corner + shift `projector`.

    `projector` is the orthogonal one on the left null space, `count` its rank, `dropped` the largest singular value that was
    dropped, or rounding, over the largest of all. `defective` tells where the corner is singular too, so that zero has a Jordan
    block.
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
    """A singular value of at most `rtol` times the largest is zero."""
    xp = backend.xp
    u, values, _ = backend.svd(a)
    top = values[..., 0]
    zeros = xp.astype(values <= rtol * values[..., :1], values.dtype)
    basis = u * xp.astype(zeros, a.dtype)[..., None, :]
    p = basis @ adjoint(basis)
    rest = eye(backend, a) - p
    corner, across, count = rest @ a @ rest, rest @ a @ p, xp.sum(zeros, axis=-1)
    # With ones in place of the zeros that are split off, what is small in the corner is another level of Jordan chains.
    size = xp.where(top > 0, top, backend.ones(a))
    raised = corner / broadcast_scalar(xp.astype(size, a.dtype)) + p
    again = (backend.svd(raised)[1] <= max(rtol, a.shape[-1] * backend.eps(a))).any(-1)
    # The size of the other eigenvalues: their geometric mean.
    rank = a.shape[-1] - count
    shift = size * xp.exp(backend.log_determinant(raised).real / xp.where(rank > 0, rank, backend.ones(a)))
    shift = xp.where((shift > 0) & xp.isfinite(shift), shift, size)
    shifted = corner + broadcast_scalar(xp.astype(shift, a.dtype)) * p
    dropped = xp.maximum(xp.max(zeros * values, axis=-1) / size, a.shape[-1] * backend.eps(a) * backend.ones(a))
    return Split(corner, across, shifted, shift, p, count, dropped, again & (count > 0))
