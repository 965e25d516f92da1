"""The generalised null space of a matrix and the spectral projector on it, with every shape known beforehand.

V ← null(Π M Π), Π = I - VVᴴ, grows until it stops: each stage adds one level of the Jordan chains of zero. Ranks of M², M⁴
would be the textbook way; they get the rank wrong, because squaring squares the gap. Columns outside the null space are
masked instead of cut off, so a batch may mix ranks and a trace keeps its shapes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from matsign.backends import Backend
from matsign.engine.linear import adjoint, column, eye, norm

Array = Any


class Deflated(NamedTuple):
    """M with its zero eigenvalues moved to `shift`: ``matrix = (I - P) M (I - P) + shift P``.

    `defective` tells where zero has a Jordan block; `sound` where left and right null spaces fit together, and zero stands
    apart from the other eigenvalues by more than what `rtol` leaves open.
    """

    matrix: Array
    projector: Array
    shift: Array
    defective: Array
    sound: Array


def deflate(be: Backend, m: Array, rtol: float) -> Deflated:
    """Split the eigenvalue zero off; a singular value of at most `rtol` times the largest counts as zero."""
    xp = be.xp
    right, zeros, depth = _null_space(be, m, rtol)
    left, zeros_left, _ = _null_space(be, adjoint(m), rtol)
    # Both bases are the last columns of unitary matrices, so ones in the other places make their product invertible.
    kept = xp.astype(1 - zeros, m.dtype)
    overlap = adjoint(left) @ right + eye(be, m) * kept[:, None, :]
    projector = right @ be.inv(overlap) @ adjoint(left)
    rest = eye(be, m) - projector
    # The size of the other eigenvalues: their geometric mean.
    _, logdet = xp.linalg.slogdet(m + projector)
    rank = xp.sum(1 - zeros, axis=-1)
    shift = xp.exp(be.real(logdet) / xp.where(rank > 0, rank, be.ones(m)))
    matrix = rest @ m @ rest + column(xp.astype(shift, m.dtype)) * projector
    # A change of m by rtol moves a simple eigenvalue by the norm of its projector times as much.
    blur = rtol * norm(be, m) * norm(be, projector)
    sound = (xp.sum(zeros, axis=-1) == xp.sum(zeros_left, axis=-1)) & (blur * norm(be, be.inv(matrix)) < 0.1)
    return Deflated(matrix, projector, shift, depth > 1, sound)


def _null_space(be: Backend, m: Array, rtol: float) -> tuple[Array, Array, Array]:
    """An orthonormal basis of the generalised null space in the last columns, ones where they are, and the chain length."""
    xp, one = be.xp, be.ones(m)
    smallest = rtol * xp.max(xp.linalg.svdvals(m), axis=-1)

    def step(state: Any) -> Any:
        m, smallest, basis, zeros, depth = state
        rest = eye(be, m) - basis @ adjoint(basis)
        _, values, vh = be.svd(rest @ m @ rest)
        found = xp.astype(values <= smallest[:, None], values.dtype)
        grown = xp.sum(found, axis=-1) > xp.sum(zeros, axis=-1)
        basis = adjoint(vh) * xp.astype(found, m.dtype)[:, None, :]
        return (m, smallest, basis, found, depth + xp.astype(grown, values.dtype)), grown

    none = 0 * be.real(m[:, 0])
    _, _, basis, zeros, depth = be.loop(step, (m, smallest, 0 * m, none, 0 * one), m.shape[-1] + 1)
    return basis, zeros, depth
