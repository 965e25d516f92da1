"""Spectral divide and conquer: block triangular forms by the library's own projectors, and Sylvester equations with them.

A line through the spectrum of m has a projector P = (I + mcsgn(m - s I))/2. The first columns of an orthonormal basis that
starts with the range of P span an invariant subspace, so in that basis m is block triangular, and each diagonal block can be
divided again. A cluster of eigenvalues that no line divides, a Jordan block for one, is left whole: between it and another
there is a line. This asks for inverses, products and QR, which every device has, where Schur forms ask for a LAPACK. The
sizes of the blocks depend on values, so arrays must have them.
"""

from __future__ import annotations

import cmath
import math
from typing import Any, NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.equations.sylvester import block_triangular
from matsign.equations.sylvester.block_triangular import kronecker, widest
from matsign.iterations import refinement, separating_line
from matsign.iterations.block_structures import Dense
from matsign.iterations.newton import has_converged, newton
from matsign.iterations.refinement import RefinedSolution
from matsign.linalg.stacks import adjoint, assemble, eye, plus_identity, random_probe, trace

# An equation with at most so many unknowns is solved as one linear system.
LEAF = 144
# Blocks of this size keep both the small systems and the number of calls low.
_BLOCK = 8
# What no line divides or separates may have so many.
_LARGEST = 2500
# Angles to turn a spectrum by before the next vertical lines are tried, in eighths of a turn.
_TURNS = (0, 2, 1, 3)


class Form(NamedTuple):
    """m = u t uᴴ with unitary u; t is upper triangular in blocks from edge to edge. One member, (1, n, n)."""

    u: Array
    t: Array
    edges: tuple[int, ...]


class _Cut(NamedTuple):
    """A basis in which m is block triangular after its first `rank` columns, but for `defect` relative to m."""

    u: Array
    t: Array
    rank: int
    defect: float


def sylvester(backend: Backend, a: Array, b: Array, q: Array) -> RefinedSolution:
    """x with a x + x b = q and one refinement, or a few where no clean line was found; members one by one above LEAF."""
    if is_leaf(q):
        return refinement.sylvester(
            backend,
            lambda y: kronecker(backend, a, b, y),
            lambda y: kronecker(backend, adjoint(a), adjoint(b), y),
            *(a, b, q),
            times=1,
        )
    if backend.is_traced(q):
        raise ValueError(
            'method="divide" chooses the sizes of its blocks by values, which a traced array does not have; use '
            'method="eigenvectors" or "auto"'
        )
    found = [_member(backend, a[k : k + 1], b[k : k + 1], q[k : k + 1]) for k in range(len(q))]
    return RefinedSolution(*(backend.xp.concat(parts) for parts in zip(*found, strict=True)))


def is_leaf(q: Array) -> bool:
    """Whether the equation is solved as one linear system, without values deciding anything."""
    return math.prod(q.shape[-2:]) <= LEAF


def _member(backend: Backend, a: Array, b: Array, q: Array) -> RefinedSolution:
    n, m = q.shape[-2:]
    r = form(backend, a, max(_BLOCK, _BLOCK**2 // m))
    s = form(backend, b, max(_BLOCK, _BLOCK**2 // n))
    backwards = _adjoint(backend, r), _adjoint(backend, s)
    return refinement.sylvester(
        backend,
        lambda y: solve(backend, r, s, y),
        lambda y: solve(backend, *backwards, y),
        *(a, b, q),
        times=3,
    )


def form(backend: Backend, m: Array, most: int) -> Form:
    """The block triangular form of one member with blocks of at most `most`, but for clusters that no line divides."""
    n = m.shape[-1]
    cut = _divide(backend, m) if n > most else None
    if cut is None or cut.defect > backend.eps(m) ** 0.75:
        return Form(eye(backend, m) + 0 * m, m, (0, n))
    p, t = cut.rank, cut.t
    top, bottom = form(backend, t[:, :p, :p], most), form(backend, t[:, p:, p:], most)
    u, corner, top_u, top_t, bottom_u, bottom_t = _alike(backend, cut.u, t[:, :p, p:], top.u, top.t, bottom.u, bottom.t)
    corner = adjoint(top_u) @ corner @ bottom_u
    u = backend.xp.concat([u[:, :, :p] @ top_u, u[:, :, p:] @ bottom_u], axis=-1)
    t = assemble(backend, top_t, corner, 0 * corner.mT, bottom_t)
    return Form(u, t, top.edges + tuple(p + e for e in bottom.edges[1:]))


def _alike(backend: Backend, *xs: Array) -> tuple[Array, ...]:
    """These with one dtype: complex where one of them is."""
    kind = backend.common_dtype_name(*xs)
    return tuple(backend.astype(x, kind) for x in xs)


def _divide(backend: Backend, m: Array) -> _Cut | None:
    """The first line that divides cleanly and evenly, or the best one found, or None."""
    clean = 10 * m.shape[-1] * backend.eps(m)
    best, best_order = None, (math.inf, 0.0)
    for eighths in _TURNS:
        for cut in _at_angle(backend, m, eighths):
            even = min(cut.rank, m.shape[-1] - cut.rank) / m.shape[-1]
            if cut.defect <= clean and even >= 0.2:
                return cut
            order = (max(cut.defect, clean), -even)
            if order < best_order:
                best, best_order = cut, order
        if best is not None and best.defect <= clean:
            break
    return best


def _at_angle(backend: Backend, m: Array, eighths: int) -> Any:
    """Cuts by up to three lines, each through the mean of the larger part that the one before it left."""
    n = m.shape[-1]
    turned = m
    if eighths:
        kind = "complex128" if backend.dtype_name(m) in ("float64", "complex128") else "complex64"
        turned = backend.astype(m, kind) * cmath.exp(1j * math.pi / 4 * eighths)
        m = backend.astype(m, kind)
    at = float(trace(backend, turned).real[0]) / n
    for _ in range(3):
        found = newton(backend, Dense(plus_identity(backend, -at, turned)), 40)
        s = found.value.m
        count = (n + float(trace(backend, s).real[0])) / 2
        if not bool(has_converged(backend, found)[0]) or not 0.5 < count < n - 0.5 or abs(count - round(count)) > 0.1:
            # An eigenvalue on the line, or nothing on one side of it: step aside by a part of the spread.
            at += 0.1 * float(backend.norm(plus_identity(backend, -at, turned))[0]) / math.sqrt(n)
            continue
        yield _cut_at(backend, m, s, round(count))
        right = trace(backend, turned + turned @ s).real[0] / (2 * count)
        left = trace(backend, turned - turned @ s).real[0] / (2 * (n - count))
        at = float(right if count > n / 2 else left)


def _cut_at(backend: Backend, m: Array, s: Array, count: int) -> _Cut:
    """m in an orthonormal basis that starts with the range of (I + s)/2."""
    n = m.shape[-1]
    projected = plus_identity(backend, 1.0, s) @ random_probe(backend, n, count, s)
    u = backend.xp.linalg.qr(projected, mode="complete")[0]
    t = adjoint(u) @ m @ u
    defect = float((backend.norm(t[:, count:, :count]) / backend.norm(m))[0])
    return _Cut(u, t, count, defect if math.isfinite(defect) else math.inf)


def solve(backend: Backend, a: Form, b: Form, q: Array) -> Array:
    """x with a x + x b = q; real if q is."""
    u, v, f = _alike(backend, a.u, b.u, q)
    y = _solve(backend, a.t, a.edges, b.t, b.edges, adjoint(u) @ f @ v)
    u, v, y = _alike(backend, a.u, b.u, y)
    x = u @ y @ adjoint(v)
    return x if backend.is_complex(q) else x.real


def _adjoint(backend: Backend, x: Form) -> Form:
    """The form of mᴴ: backwards, an adjoint is upper triangular again."""
    last = x.edges[-1]
    t = backend.xp.flip(adjoint(x.t), axis=(-2, -1))
    return Form(backend.xp.flip(x.u, axis=-1), t, tuple(last - e for e in reversed(x.edges)))


def _solve(backend: Backend, r: Array, rows: tuple[int, ...], s: Array, columns: tuple[int, ...], f: Array) -> Array:
    """x with r x + x s = f for block triangular r and s, halving the one with more blocks until all are small."""
    r, s, f = _alike(backend, r, s, f)
    if widest(rows) * widest(columns) <= LEAF:
        return block_triangular.solve(backend, r, rows, s, columns, f)
    if len(rows) == len(columns) == 2:
        return _clusters(backend, r, s, f)
    if len(rows) >= len(columns):
        k, upper, lower = _halves(rows)
        below = _solve(backend, r[:, k:, k:], lower, s, columns, f[:, k:])
        coupling, below = _alike(backend, r[:, :k, k:], below)
        above = _solve(backend, r[:, :k, :k], upper, s, columns, f[:, :k] - coupling @ below)
        return backend.xp.concat(_alike(backend, above, below), axis=-2)
    k, first, second = _halves(columns)
    left = _solve(backend, r, rows, s[:, :k, :k], first, f[:, :, :k])
    left, coupling = _alike(backend, left, s[:, :k, k:])
    right = _solve(backend, r, rows, s[:, k:, k:], second, f[:, :, k:] - left @ coupling)
    return backend.xp.concat(_alike(backend, left, right), axis=-1)


def _halves(edges: tuple[int, ...]) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """An edge near the middle, the edges up to it and the edges from it on."""
    inside = range(1, len(edges) - 1)
    i = min(inside, key=lambda i: abs(2 * edges[i] - edges[0] - edges[-1]))
    return edges[i], edges[: i + 1], tuple(e - edges[i] for e in edges[i:])


def _clusters(backend: Backend, a: Array, b: Array, q: Array) -> Array:
    """x for two blocks that no line divides: clusters, between which there is a line unless they are the same.

    Turned so that it is a vertical one.
    """
    apart = complex(trace(backend, a)[0]) / a.shape[-1] + complex(trace(backend, b)[0]) / b.shape[-1]
    turn = apart.conjugate() / abs(apart) if backend.is_complex(q) and apart != 0 else 1.0
    found = separating_line.find_separating_line(backend, turn * a, turn * b, turn * q, 4, 0)
    if bool(found.sound[0]) or math.prod(q.shape) > _LARGEST:
        return found.x
    return kronecker(backend, a, b, q)
