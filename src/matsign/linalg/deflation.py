"""The generalised null space of a matrix and the spectral projector on it, with every shape known beforehand.

V ← null(Π M Π), Π = I - VVᴴ, grows until it stops: each stage adds one level of the Jordan chains of zero. Ranks of M², M⁴
would be the textbook way; they get the rank wrong, because squaring squares the gap. Columns outside the null space are
masked instead of cut off, so a batch may mix ranks and a trace keeps its shapes.

How many columns each stage adds is counted exactly where M, with its floating-point entries taken as they stand, is as
singular as `rtol` says: rounding in one stage is multiplied by the condition number in the next, so that no tolerance tells a
zero of the third stage from a small number. Elsewhere the singular values decide, and with a chain of length k that leaves
eigenvalues up to the k-th root of `rtol` open. They decide also where exact zeros leave others that `rtol` does not tell from
zero: a Laplacian has its null space exactly, and what a product with it leaves there is rounding.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from matsign._typing import Array
from matsign.backends import Backend
from matsign.linalg.nullity import nullities
from matsign.linalg.stacks import adjoint, broadcast_scalar, eye, safe_divisor


class Deflation(NamedTuple):
    """M with its zero eigenvalues moved to `shift`: ``matrix = (I - P) M (I - P) + shift P``.

    `defective` tells where zero has a Jordan block; `sound` where left and right null spaces fit together, and zero stands
    apart from the other eigenvalues by more than what `rtol` leaves open; `exact` where M as it stands has these zeros, and
    `null` where it has their eigenvectors.
    """

    matrix: Array
    projector: Array
    shift: Array
    defective: Array
    sound: Array
    exact: Array
    null: Array


class _NullSpace(NamedTuple):
    """An orthonormal basis of the generalised null space in the last columns, ones where they are, and the chain length.

    `mixed` where more singular values than were counted are zero to rounding, so that the basis may be of any of their vectors.
    """

    basis: Array
    zeros: Array
    depth: Array
    mixed: Array


def deflate(backend: Backend, m: Array, rtol: float) -> Deflation:
    """Split the eigenvalue zero off; a singular value of at most `rtol` times the largest counts as zero."""
    _, values, _ = backend.svd(m)
    smallest = rtol * backend.xp.max(values, axis=-1)
    near = backend.xp.sum(backend.xp.astype(values <= smallest[:, None], values.dtype), axis=-1)
    counts, null = _counts(backend, m, near)
    found = _split_off_zero(backend, m, rtol, smallest, counts, null)

    def deflate_singular(m: Array, smallest: Array, counts: Array, found: Deflation) -> Deflation:
        longer = _split_off_zero(backend, m, rtol, smallest, counts, found.exact & ~found.exact)._replace(
            null=found.null
        )
        more = (backend.trace(longer.projector) - backend.trace(found.projector)).real > 0.5
        better: Deflation = backend.masked_select(longer.sound & more, longer, found)
        return better

    if backend.unrolls_loops(m):
        return found
    out: Deflation = backend.masked_cond(
        null & ~found.sound, deflate_singular, lambda m, smallest, counts, found: found, m, smallest, counts, found
    )
    return out


def _split_off_zero(backend: Backend, m: Array, rtol: float, smallest: Array, counts: Array, exact: Array) -> Deflation:
    xp = backend.xp
    right = _null_space(backend, m, smallest, counts, exact)
    left = _null_space(backend, adjoint(m), smallest, counts, exact)
    # Both bases are the last columns of unitary matrices, so ones in the other places make their product invertible.
    kept = xp.astype(1 - right.zeros, m.dtype)
    overlap = adjoint(left.basis) @ right.basis + eye(backend, m) * kept[:, None, :]
    projector = right.basis @ backend.inv(overlap) @ adjoint(left.basis)
    rest = eye(backend, m) - projector
    # The size of the other eigenvalues: their geometric mean.
    logdet = backend.log_determinant(m + projector)
    rank = xp.sum(1 - right.zeros, axis=-1)
    shift = xp.exp(logdet.real / safe_divisor(backend, rank))
    matrix = rest @ m @ rest + broadcast_scalar(xp.astype(shift, m.dtype)) * projector
    # Nothing is left for zero to be told apart from where there is nothing else.
    apart = (rank == 0) | (
        _blur(backend, m, projector, right.depth, exact, rtol) * backend.norm(backend.inv(matrix)) < 0.1
    )
    sound = (xp.sum(right.zeros, axis=-1) == xp.sum(left.zeros, axis=-1)) & apart
    sound = sound & ~(exact & (right.mixed | left.mixed))
    return Deflation(matrix, projector, shift, right.depth > 1, sound, exact, exact)


def _counts(backend: Backend, m: Array, zeros: Array) -> tuple[Array, Array]:
    """The dimensions of the null spaces of m, m², ..., and where they account for all `zeros` singular values near zero."""
    counts = backend.zeros(tuple(m.shape[:2]), m.real)
    if not backend.unrolls_loops(m):
        like = backend.xp.zeros_like(counts, dtype=backend.xp.int32)
        counts = backend.xp.astype(backend.host_callback(nullities, like, backend.stop_gradient(m)), counts.dtype)
    return counts, (counts[:, 0] > 0) & (zeros <= counts[:, 0])


def _null_space(backend: Backend, m: Array, smallest: Array, counts: Array, exact: Array) -> _NullSpace:
    """Stage by stage, as many columns as `counts` says where it is `exact`, else the singular values below `smallest`."""
    xp, one, n = backend.xp, backend.ones(m), m.shape[-1]
    place = backend.astype(backend.asarray(np.arange(n), m), backend.dtype_name(one))[None]

    def step(state: Any) -> Any:
        m, smallest, counts, exact, basis, zeros, depth, _ = state
        rest = eye(backend, m) - basis @ adjoint(basis)
        _, values, vh = backend.svd(rest @ m @ rest)
        counted = place >= n - counts[:, :1]
        found = xp.astype(xp.where(exact[:, None], counted, values <= smallest[:, None]), values.dtype)
        grown = xp.sum(found, axis=-1) > xp.sum(zeros, axis=-1)
        near = xp.sum(xp.astype(values <= n * backend.eps(m) * backend.norm(m)[:, None], values.dtype), axis=-1)
        mixed = xp.astype(near > xp.sum(found, axis=-1), values.dtype)
        basis = adjoint(vh) * xp.astype(found, m.dtype)[:, None, :]
        counts = xp.concat([counts[:, 1:], counts[:, -1:]], axis=-1)
        return (m, smallest, counts, exact, basis, found, depth + xp.astype(grown, values.dtype), mixed), grown

    start = (m, smallest, counts, exact, 0 * m, 0 * m[:, 0].real, 0 * one, 0 * one)
    *_, basis, zeros, depth, mixed = backend.loop(step, start, n + 1)
    return _NullSpace(basis, zeros, depth, mixed > 0)


def _blur(backend: Backend, m: Array, projector: Array, depth: Array, exact: Array, rtol: float) -> Array:
    """How far a change of m by `rtol` moves the eigenvalue zero.

    By the norm of its projector times as much where it is simple, by the k-th root of that, in units of the nilpotent part,
    with a chain of length k. Where the chains are known exactly the change keeps them.
    """
    change = rtol * backend.norm(m) * backend.norm(projector)
    nilpotent = backend.xp.maximum(backend.norm(projector @ m @ projector), change)
    length = backend.xp.where(exact | (depth < 1), backend.xp.ones_like(depth), depth)
    return nilpotent * (change / safe_divisor(backend, nilpotent)) ** (1 / length)
