"""The generalised null space of a matrix and the spectral projector on it, with shapes that do not depend on values.

V ← null(Π M Π), Π = I - VVᴴ, is repeated until V stops growing: each stage adds one level of the Jordan chains of the
eigenvalue 0. The ranks of M², M⁴, … are less reliable, because squaring squares the gap between singular values. Columns
outside the null space are masked instead of removed, so a batch may mix ranks and a traced program has fixed shapes.

If the nullity of M, its floating-point entries taken as exact, accounts for every singular value below `rtol`, the number of
columns that each stage adds is counted exactly (`linalg.nullity`): rounding in one stage is multiplied by the condition number
in the next, so no tolerance separates zeros of the third stage from small numbers. Otherwise singular values below `rtol`
count as zero; with a chain of length k, eigenvalues up to rtol^(1/k) then cannot be told from 0. Singular values also decide
where the exact count gives no sound deflation: the null space of a Laplacian is exact, a product with it has rounding there.
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

    Masks of members. `defective`: 0 has a Jordan block. `sound`: left and right null spaces have equal dimensions, and 0 is
    separated from the other eigenvalues by more than the uncertainty due to `rtol`. `exact`: the zeros were counted exactly.
    `null`: M is exactly singular, and its nullity accounts for all singular values below `rtol`.
    """

    matrix: Array
    projector: Array
    shift: Array
    defective: Array
    sound: Array
    exact: Array
    null: Array


class _NullSpace(NamedTuple):
    """`basis`: orthonormal, in the last columns, which `zeros` marks by ones. `depth`: length of the longest Jordan chain.

    `mixed`: more singular values are zero to rounding than were counted, so the basis may span other singular vectors.
    """

    basis: Array
    zeros: Array
    depth: Array
    mixed: Array


def deflate(backend: Backend, m: Array, rtol: float) -> Deflation:
    """Deflate the eigenvalue zero; a singular value of at most `rtol` times the largest counts as zero."""
    _, values, _ = backend.svd(m)
    smallest = rtol * backend.xp.max(values, axis=-1)
    near = backend.xp.sum(backend.xp.astype(values <= smallest[:, None], values.dtype), axis=-1)
    counts, null = _exact_nullities(backend, m, near)
    by_counts = _split_off_zero(backend, m, rtol, smallest, counts, null)

    def deflate_singular(m: Array, smallest: Array, counts: Array, by_counts: Deflation) -> Deflation:
        by_tolerance = _split_off_zero(backend, m, rtol, smallest, counts, by_counts.exact & ~by_counts.exact)._replace(
            null=by_counts.null
        )
        more = (backend.trace(by_tolerance.projector) - backend.trace(by_counts.projector)).real > 0.5
        better: Deflation = backend.masked_select(by_tolerance.sound & more, by_tolerance, by_counts)
        return better

    if backend.unrolls_loops(m):
        return by_counts
    out: Deflation = backend.masked_cond(
        null & ~by_counts.sound,
        deflate_singular,
        lambda m, smallest, counts, by_counts: by_counts,
        m,
        smallest,
        counts,
        by_counts,
    )
    return out


def _split_off_zero(backend: Backend, m: Array, rtol: float, smallest: Array, counts: Array, exact: Array) -> Deflation:
    xp = backend.xp
    right = _null_space(backend, m, smallest, counts, exact)
    left = _null_space(backend, adjoint(m), smallest, counts, exact)
    # Ones on the diagonal for the masked columns make the overlap invertible if the two null spaces are dual.
    kept = xp.astype(1 - right.zeros, m.dtype)
    overlap = adjoint(left.basis) @ right.basis + eye(backend, m) * kept[:, None, :]
    projector = right.basis @ backend.inv(overlap) @ adjoint(left.basis)
    rest = eye(backend, m) - projector
    # The shift is the geometric mean of the moduli of the nonzero eigenvalues.
    logdet = backend.log_determinant(m + projector)
    rank = xp.sum(1 - right.zeros, axis=-1)
    shift = xp.exp(logdet.real / safe_divisor(backend, rank))
    matrix = rest @ m @ rest + broadcast_scalar(xp.astype(shift, m.dtype)) * projector
    # At rank 0 there are no other eigenvalues to be separated from.
    separated = (rank == 0) | (
        _zero_eigenvalue_error(backend, m, projector, right.depth, exact, rtol) * backend.norm(backend.inv(matrix))
        < 0.1
    )
    sound = (xp.sum(right.zeros, axis=-1) == xp.sum(left.zeros, axis=-1)) & separated
    sound = sound & ~(exact & (right.mixed | left.mixed))
    return Deflation(matrix, projector, shift, right.depth > 1, sound, exact, exact)


def _exact_nullities(backend: Backend, m: Array, zeros: Array) -> tuple[Array, Array]:
    """The dimensions of the null spaces of m, m², …, and where the first accounts for all `zeros` small singular values."""
    counts = backend.zeros(tuple(m.shape[:2]), m.real)
    if not backend.unrolls_loops(m):
        like = backend.xp.zeros_like(counts, dtype=backend.xp.int32)
        counts = backend.xp.astype(backend.host_callback(nullities, like, backend.stop_gradient(m)), counts.dtype)
    return counts, (counts[:, 0] > 0) & (zeros <= counts[:, 0])


def _null_space(backend: Backend, m: Array, smallest: Array, counts: Array, exact: Array) -> _NullSpace:
    """Each stage takes `counts` columns where `exact`, else those of the singular values below `smallest`."""
    xp, one, n = backend.xp, backend.ones(m), m.shape[-1]
    place = backend.astype(backend.asarray(np.arange(n), m), backend.dtype_name(one))[None]

    def step(state: Any) -> Any:
        m, smallest, counts, exact, basis, zeros, depth, _ = state
        rest = eye(backend, m) - basis @ adjoint(basis)
        _, values, vh = backend.svd(rest @ m @ rest)
        counted = place >= n - counts[:, :1]
        marked = xp.astype(xp.where(exact[:, None], counted, values <= smallest[:, None]), values.dtype)
        grown = xp.sum(marked, axis=-1) > xp.sum(zeros, axis=-1)
        near = xp.sum(xp.astype(values <= n * backend.eps(m) * backend.norm(m)[:, None], values.dtype), axis=-1)
        mixed = xp.astype(near > xp.sum(marked, axis=-1), values.dtype)
        basis = adjoint(vh) * xp.astype(marked, m.dtype)[:, None, :]
        counts = xp.concat([counts[:, 1:], counts[:, -1:]], axis=-1)
        return (m, smallest, counts, exact, basis, marked, depth + xp.astype(grown, values.dtype), mixed), grown

    start = (m, smallest, counts, exact, 0 * m, 0 * m[:, 0].real, 0 * one, 0 * one)
    *_, basis, zeros, depth, mixed = backend.loop(step, start, n + 1)
    return _NullSpace(basis, zeros, depth, mixed > 0)


def _zero_eigenvalue_error(
    backend: Backend, m: Array, projector: Array, depth: Array, exact: Array, rtol: float
) -> Array:
    """How far a relative change of m by `rtol` can move the eigenvalue 0.

    If 0 is semisimple: rtol ‖m‖ ‖P‖. With a Jordan chain of length k: ν (rtol ‖m‖ ‖P‖ / ν)^(1/k), ν = ‖P m P‖. Chains that
    were counted exactly count as semisimple.
    """
    change = rtol * backend.norm(m) * backend.norm(projector)
    nilpotent = backend.xp.maximum(backend.norm(projector @ m @ projector), change)
    length = backend.xp.where(exact | (depth < 1), backend.xp.ones_like(depth), depth)
    return nilpotent * (change / safe_divisor(backend, nilpotent)) ** (1 / length)
