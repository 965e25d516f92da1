"""Sylvester equations a x + x b = q by spectral divide and conquer: block triangular forms from spectral projectors.

A vertical line Re z = s that divides the spectrum of m has the projector P = (I + mcsgn(m - s I))/2. In an orthonormal basis
that starts with the range of P, m is block triangular, and each diagonal block can be divided again. A cluster of eigenvalues
that no line divides, such as a Jordan block, stays one block. This needs inverses, products and QR, which every device has;
Schur forms need LAPACK. The block sizes depend on values, so it does not work on traced arrays.
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

# An equation with at most this many unknowns is solved as one linear system.
LEAF = 144
# Blocks of this size keep both the small systems and the number of calls low.
_BLOCK = 8
# The same limit for two clusters that no line separates.
_LARGEST = 2500
# Rotations of the spectrum under which vertical lines are tried, in eighths of a full turn.
_ANGLES = (0, 2, 1, 3)


class Form(NamedTuple):
    """m = u t uᴴ of one member, (1, n, n), with unitary u and block upper triangular t; `edges` bound the blocks."""

    u: Array
    t: Array
    edges: tuple[int, ...]


class _Cut(NamedTuple):
    """m = u t uᴴ; the block t[rank:, :rank] is zero up to `defect`, relative to m."""

    u: Array
    t: Array
    rank: int
    defect: float


def sylvester(backend: Backend, a: Array, b: Array, q: Array) -> RefinedSolution:
    """x with a x + x b = q, refined; above `LEAF` unknowns each member is solved by itself."""
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
    members = [_member(backend, a[k : k + 1], b[k : k + 1], q[k : k + 1]) for k in range(len(q))]
    return RefinedSolution(*(backend.xp.concat(parts) for parts in zip(*members, strict=True)))


def is_leaf(q: Array) -> bool:
    """Whether the equation is solved as one linear system, which needs no value-dependent shapes."""
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
    """The block triangular form of one member: blocks of size at most `most`, except clusters that no line divides."""
    n = m.shape[-1]
    cut = _divide(backend, m) if n > most else None
    if cut is None or cut.defect > backend.eps(m) ** 0.75:
        return Form(eye(backend, m) + 0 * m, m, (0, n))
    p, t = cut.rank, cut.t
    top, bottom = form(backend, t[:, :p, :p], most), form(backend, t[:, p:, p:], most)
    u, corner, top_u, top_t, bottom_u, bottom_t = _to_common_dtype(
        backend, cut.u, t[:, :p, p:], top.u, top.t, bottom.u, bottom.t
    )
    corner = adjoint(top_u) @ corner @ bottom_u
    u = backend.xp.concat([u[:, :, :p] @ top_u, u[:, :, p:] @ bottom_u], axis=-1)
    t = assemble(backend, top_t, corner, 0 * corner.mT, bottom_t)
    return Form(u, t, top.edges + tuple(p + e for e in bottom.edges[1:]))


def _to_common_dtype(backend: Backend, *xs: Array) -> tuple[Array, ...]:
    """The arrays in their common dtype."""
    kind = backend.common_dtype_name(*xs)
    return tuple(backend.astype(x, kind) for x in xs)


def _divide(backend: Backend, m: Array) -> _Cut | None:
    """The first line with a small defect and at least a fifth of the spectrum on each side, or the best found, or None."""
    tolerance = 10 * m.shape[-1] * backend.eps(m)
    best, best_order = None, (math.inf, 0.0)
    for eighths in _ANGLES:
        for cut in _at_angle(backend, m, eighths):
            evenness = min(cut.rank, m.shape[-1] - cut.rank) / m.shape[-1]
            if cut.defect <= tolerance and evenness >= 0.2:
                return cut
            order = (max(cut.defect, tolerance), -evenness)
            if order < best_order:
                best, best_order = cut, order
        if best is not None and best.defect <= tolerance:
            break
    return best


def _at_angle(backend: Backend, m: Array, eighths: int) -> Any:
    """Cuts by up to three lines; each next line goes through the mean of the larger part of the previous cut."""
    n = m.shape[-1]
    rotated = m
    if eighths:
        kind = "complex128" if backend.dtype_name(m) in ("float64", "complex128") else "complex64"
        rotated = backend.astype(m, kind) * cmath.exp(1j * math.pi / 4 * eighths)
        m = backend.astype(m, kind)
    at = float(trace(backend, rotated).real[0]) / n
    for _ in range(3):
        iterate = newton(backend, Dense(plus_identity(backend, -at, rotated)), 40)
        s = iterate.value.m
        count = (n + float(trace(backend, s).real[0])) / 2
        if not bool(has_converged(backend, iterate)[0]) or not 0.5 < count < n - 0.5 or abs(count - round(count)) > 0.1:
            # An eigenvalue on the line, or none on one side of it: shift the line by a tenth of the spread.
            at += 0.1 * float(backend.norm(plus_identity(backend, -at, rotated))[0]) / math.sqrt(n)
            continue
        yield _cut_at(backend, m, s, round(count))
        right = trace(backend, rotated + rotated @ s).real[0] / (2 * count)
        left = trace(backend, rotated - rotated @ s).real[0] / (2 * (n - count))
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
    u, v, f = _to_common_dtype(backend, a.u, b.u, q)
    y = _solve(backend, a.t, a.edges, b.t, b.edges, adjoint(u) @ f @ v)
    u, v, y = _to_common_dtype(backend, a.u, b.u, y)
    x = u @ y @ adjoint(v)
    return x if backend.is_complex(q) else x.real


def _adjoint(backend: Backend, x: Form) -> Form:
    """The form of mᴴ: reversing rows and columns makes tᴴ upper triangular again."""
    last = x.edges[-1]
    t = backend.xp.flip(adjoint(x.t), axis=(-2, -1))
    return Form(backend.xp.flip(x.u, axis=-1), t, tuple(last - e for e in reversed(x.edges)))


def _solve(backend: Backend, r: Array, rows: tuple[int, ...], s: Array, columns: tuple[int, ...], f: Array) -> Array:
    """x with r x + x s = f for block triangular r and s; the one with more blocks is halved recursively."""
    r, s, f = _to_common_dtype(backend, r, s, f)
    if widest(rows) * widest(columns) <= LEAF:
        return block_triangular.solve(backend, r, rows, s, columns, f)
    if len(rows) == len(columns) == 2:
        return _clusters(backend, r, s, f)
    if len(rows) >= len(columns):
        k, upper, lower = _halves(rows)
        below = _solve(backend, r[:, k:, k:], lower, s, columns, f[:, k:])
        coupling, below = _to_common_dtype(backend, r[:, :k, k:], below)
        above = _solve(backend, r[:, :k, :k], upper, s, columns, f[:, :k] - coupling @ below)
        return backend.xp.concat(_to_common_dtype(backend, above, below), axis=-2)
    k, first, second = _halves(columns)
    left = _solve(backend, r, rows, s[:, :k, :k], first, f[:, :, :k])
    left, coupling = _to_common_dtype(backend, left, s[:, :k, k:])
    right = _solve(backend, r, rows, s[:, k:, k:], second, f[:, :, k:] - left @ coupling)
    return backend.xp.concat(_to_common_dtype(backend, left, right), axis=-1)


def _halves(edges: tuple[int, ...]) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """(an edge near the middle, the edges up to it, the edges from it on, shifted to start at 0)."""
    inside = range(1, len(edges) - 1)
    i = min(inside, key=lambda i: abs(2 * edges[i] - edges[0] - edges[-1]))
    return edges[i], edges[: i + 1], tuple(e - edges[i] for e in edges[i:])


def _clusters(backend: Backend, a: Array, b: Array, q: Array) -> Array:
    """x for two blocks that no line divides: clusters, which a line separates unless they coincide.

    The spectra are rotated so that this line is vertical.
    """
    mean_sum = complex(trace(backend, a)[0]) / a.shape[-1] + complex(trace(backend, b)[0]) / b.shape[-1]
    rotation = mean_sum.conjugate() / abs(mean_sum) if backend.is_complex(q) and mean_sum != 0 else 1.0
    line_search = separating_line.find_separating_line(backend, rotation * a, rotation * b, rotation * q, 4, 0)
    if bool(line_search.sound[0]) or math.prod(q.shape) > _LARGEST:
        return line_search.x
    return kronecker(backend, a, b, q)
