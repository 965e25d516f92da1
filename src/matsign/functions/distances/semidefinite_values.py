"""The distance b and the root f of the fidelity of semidefinite pairs, without vectors where these are not needed.

    b² = tr A + tr B - 2 f,    f = Σ √λ over the eigenvalues λ of Kᴴ B K, with a Cholesky factor K of A,
                               f = ‖KᴴL‖_* with Cholesky factors, or by eigenvectors for singular matrices,

the first one where A and B are definite and the roots of the smallest λ accurate. Where b² is small beside the traces, so that
digits would cancel, b is the norm of the difference of the factors (`semidefinite_pairs`), as for all small matrices.
"""

from __future__ import annotations

from typing import NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core.tolerances import rank_tolerance
from matsign.functions.distances import semidefinite_pairs as pairs
from matsign.linalg.definiteness import clearly_definite
from matsign.linalg.stacks import adjoint, broadcast_scalar, eye, hermitian, to_double

# For matrices with fewer rows singular vectors take as little time.
_LARGE = 16
# Where b² is at least this share of the traces, less than three digits cancel.
_CLEAR = 1e-3


class Numbers(NamedTuple):
    """b and f, and the extremal eigenvalues of A and B."""

    distance: Array
    root: Array
    a: pairs.Extremes
    b: pairs.Extremes


def compute(backend: Backend, a: Array, b: Array, rtol: float | None) -> Numbers:
    if a.shape[-1] < _LARGE:
        return _by_difference(backend, *(pairs.factor(backend, x, rtol) for x in (a, b)))
    (x, ea), (y, eb) = (pairs.scale_evenly(backend, to_double(backend, z)) for z in (a, b))
    values, accurate = products(backend, x, y, _zero(backend, a, rtol))
    none, root = 0 * backend.ones(x), backend.xp.sum(backend.xp.sqrt(values), axis=-1)
    traces = Traces(abs(backend.trace(x).real), abs(backend.trace(y).real))
    quick, clear = by_traces(backend, root, traces, *(pairs.Extremes(e, none, none) for e in (ea, eb)))

    def by_factors(a: Array, b: Array, quick: Numbers) -> Numbers:
        return _by_factors(backend, *(_factor(backend, x, rtol) for x in (a, b)))

    result: Numbers = backend.masked_cond(accurate & clear, lambda a, b, quick: quick, by_factors, a, b, quick)
    return result


def _zero(backend: Backend, a: Array, rtol: float | None) -> float:
    """The relative size of eigenvalues that may be zero or rounding errors."""
    return max(rank_tolerance(backend, a, x) for x in (rtol, None))


def _factor(backend: Backend, a: Array, rtol: float | None) -> pairs.Factor:
    """By Cholesky's decomposition where no eigenvalue counts as zero, else by eigenvectors."""
    x, e = pairs.scale_evenly(backend, to_double(backend, a))
    k = backend.cholesky(hermitian(x))
    none, inverse = 0 * backend.ones(x), backend.inv(k)
    definite = (backend.norm(k) * backend.norm(inverse)) ** 2 * _zero(backend, a, rtol) < 1
    by_cholesky = pairs.Factor(k, inverse, e, none, none)
    result: pairs.Factor = backend.masked_cond(
        definite, lambda a, f: f, lambda a, f: pairs.factor(backend, a, rtol), a, by_cholesky
    )
    return result


def products(backend: Backend, a: Array, b: Array, zero: float) -> tuple[Array, Array]:
    """The eigenvalues of Kᴴ B K, and where A and B have no eigenvalue that counts as zero and the roots are accurate."""
    xp, n, k = backend.xp, a.shape[-1], backend.cholesky(hermitian(a))
    c = hermitian(adjoint(k) @ b @ k)
    usable = xp.isfinite(backend.norm(c))
    values = xp.linalg.eigvalsh(xp.where(broadcast_scalar(usable), c, eye(backend, c)))
    usable = usable & (values[:, 0] > 0)
    values = xp.where(usable[:, None], values, xp.ones_like(values))
    # All eigenvalues together change by at most the Frobenius norm of the rounding errors (Hoffman & Wielandt 1953), eps times
    # this size. By the Cauchy-Schwarz inequality, the sum of the roots changes by at most 10 n eps times itself.
    root, size = xp.sqrt(values), backend.norm(a) * backend.norm(b)
    usable = usable & (size * xp.sqrt(xp.sum(1 / values, axis=-1)) < 10 * n * xp.sum(root, axis=-1))
    # The smallest eigenvalue of A is at least that of A B over ‖B‖, and the reverse.
    definite = values[:, 0] > 2 * zero * size
    definite = backend.rare_cond(
        usable & ~definite,
        lambda a, b, definite: clearly_definite(backend, a, zero) & clearly_definite(backend, b, zero),
        lambda a, b, definite: definite,
        *(a, b, definite),
    )
    return values, usable & definite


class Traces(NamedTuple):
    """Those of A and B in their own units."""

    a: Array
    b: Array


def by_traces(
    backend: Backend, root: Array, traces: Traces, a: pairs.Extremes, b: pairs.Extremes
) -> tuple[Numbers, Array]:
    """The numbers for f in the units of A and B, and where few digits cancel."""
    top = backend.xp.maximum(a.e, b.e)
    size = backend.ldexp(traces.a, a.e - top) + backend.ldexp(traces.b, b.e - top)
    gap = size - 2 * backend.ldexp(root, (a.e + b.e) // 2 - top)
    distance = backend.ldexp(backend.xp.sqrt(backend.xp.maximum(gap, 0 * gap)), top // 2)
    return Numbers(distance, backend.ldexp(root, (a.e + b.e) // 2), a, b), gap >= _CLEAR * size


def _by_factors(backend: Backend, x: pairs.Factor, y: pairs.Factor) -> Numbers:
    root = backend.xp.sum(backend.xp.linalg.svdvals(adjoint(x.factor) @ y.factor), axis=-1)
    traces = Traces(backend.norm(x.factor) ** 2, backend.norm(y.factor) ** 2)
    quick, clear = by_traces(backend, root, traces, x.extremes, y.extremes)

    def by_difference(x: pairs.Factor, y: pairs.Factor, quick: Numbers) -> Numbers:
        return _by_difference(backend, x, y)

    result: Numbers = backend.masked_cond(clear, lambda x, y, quick: quick, by_difference, x, y, quick)
    return result


def _by_difference(backend: Backend, x: pairs.Factor, y: pairs.Factor) -> Numbers:
    p = pairs.compare_factors(backend, x, y)
    return Numbers(p.distance, p.root, x.extremes, y.extremes)
