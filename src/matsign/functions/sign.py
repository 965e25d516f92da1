"""The matrix sign function of square matrices, and what is one product away from it: |M| and spectral projectors.

mcsgn sends every eigenvalue to the sign of its real part and keeps the invariant subspaces. Its differential follows from
what characterises it, S² = I and SM = MS. With N = SM, which is M with its spectrum folded to the right,

    N dS + dS N = dM - S dM S,

an equation that the sign iteration itself solves, N being positive stable. Where M is singular, P₀ = I - S² is the
projector on the eigenvalue zero, and the same equation holds off P₀ (N₀ is N with zero moved to s, and Nᴰ its inverse off P₀):

    N₀ X + X N₀ = (I - P₀) dM (I - P₀) - S dM S,    dS = X + Nᴰ dM P₀ + P₀ dM Nᴰ.

S does not change along M, so the same rule at dM = M measures how wrong an S is: that is its correction step.
"""

from __future__ import annotations

import math
from typing import Any

from matsign.backends import Backend
from matsign.engine import schur
from matsign.engine.blocks import Dense
from matsign.engine.declare import Residual, accuracy, declared, rank_tolerance
from matsign.engine.deflate import deflate
from matsign.engine.failures import Failure
from matsign.engine.iterate import Iterate, finish, newton, run, separable_sylvester, settled
from matsign.engine.linear import (
    adjoint,
    away,
    column,
    eye,
    hermitian,
    inner,
    is_hermitian,
    is_nearly_hermitian,
    nonzero,
    norm,
    normalise,
)
from matsign.engine.rules import Arrays, Solution, follow, solution
from matsign.engine.schedules import polar_express
from matsign.engine.solves import folded, inverse

Array = Any

_METHODS = ("auto", "newton", "polynomial", "schur", "eigh")


def sign(be: Backend, m: Array, *, tol: float | None, rtol: float | None, method: str) -> Solution:
    """mcsgn of a stack: Hermitian members by eigenvectors where those are cheap, singular members deflated."""
    rtol, tol = rank_tolerance(be, m, rtol), accuracy(be, m, tol)

    def by_eigh(m: Array) -> Solution:
        return _eigh(be, m, rtol)

    def by_iteration(m: Array) -> Solution:
        return _general(be, normalise(be, m)[0], tol, rtol, method)

    if method == "eigh":
        return by_eigh(m)
    if method == "auto" and be.on_cpu(m) and not be.traced(m):
        # Seven products' worth on a CPU, exact for normal input; on an accelerator the iterations win.
        return be.split(is_hermitian(m), by_eigh, by_iteration, m)
    return by_iteration(m)


def _eigh(be: Backend, m: Array, rtol: float) -> Solution:
    values, vectors = be.eigh(m)
    top = be.xp.maximum(-values[:, :1], values[:, -1:])
    kept = be.xp.abs(values) > rtol * top
    signs = be.xp.sign(values) * be.xp.astype(kept, values.dtype)
    value = hermitian((vectors * signs[:, None, :]) @ adjoint(vectors))
    return solution(be, (value,), Failure.NOT_HERMITIAN, ~is_nearly_hermitian(be, m))


def _general(be: Backend, m: Array, tol: float, rtol: float, method: str) -> Solution:
    """Iterate, and deflate the members that may have a zero eigenvalue."""
    n = m.shape[-1]
    if method == "auto":
        few = n <= 48 and n * len(m) <= 96 and be.on_cpu(m) and not be.traced(m)
        method = "schur" if few else "guarded newton"
    found, condition = _regular(be, m, tol, method)

    def deflated(m: Array, *_: Array) -> Solution:
        zero = deflate(be, m, rtol)
        found, _ = _regular(be, zero.matrix, tol, method)
        failure = be.xp.where(zero.sound, found.failure, int(Failure.SINGULAR) + 0 * found.failure)
        return found._replace(value=(found.value[0] - zero.projector,), failure=failure)

    def kept(m: Array, s: Array, *rest: Array) -> Solution:
        return Solution((s,), *rest)

    return be.split(~(condition * rtol < 1), deflated, kept, m, *found.value, *found[1:])


def _regular(be: Backend, m: Array, tol: float, method: str) -> tuple[Solution, Array]:
    """The sign of nonsingular members by one method, what to believe of it, and their condition numbers."""
    x = Dense(m)
    if method == "schur":
        return _schur(be, m), norm(be, m) * norm(be, be.inv(m))
    if method == "polynomial":
        found = _polynomial(be, x, tol)
        lost = ~(found.defect < 0.05)
        return solution(be, found.value, Failure.NOT_REAL, lost, found.steps), norm(be, m) * norm(be, be.inv(m))
    found = newton(be, x)
    s = found.value.m
    gap = norm(be, m @ s - s @ m) / (norm(be, m) * norm(be, s))
    slow = ~settled(be, found)
    if method == "newton":
        # An exact eigenvalue on the axis is moved off it by rounding, and the iteration then converges to noise.
        judged = be.split(
            slow,
            lambda m, s, k: solution(be, (s,), Failure.AXIS, _on_axis(be, m), k),
            lambda m, s, k: solution(be, (s,), iterations=k),
            *(m, s, found.steps),
        )
        # A sign has a whole trace and commutes with m; one that was lost to rounding on the way has neither.
        count = be.real(be.xp.linalg.trace(s))
        lost = ~(gap < be.eps(m) ** 0.25) | ~(be.xp.abs(count - be.xp.round(count)) < 0.1)
        failure = be.xp.where(
            lost & (judged.failure == 0), int(Failure.NOT_CONVERGED) + 0 * judged.failure, judged.failure
        )
        return judged._replace(failure=failure), found.condition
    # A small commutator is a small backward error; where rounding left a large one, Schur vectors do better.
    doubtful = slow | ~(gap < 8 * math.sqrt(m.shape[-1]) * be.eps(m))
    judged = be.split(
        doubtful,
        lambda m, s, k: _schur(be, m),
        lambda m, s, k: solution(be, (s,), iterations=k),
        *(m, s, found.steps),
    )
    return judged, found.condition


def _schur(be: Backend, m: Array) -> Solution:
    code = be.no_counts(m)
    value, failure = be.host(schur.sign, (m, code), m)
    return solution(be, (value,))._replace(failure=failure)


def _on_axis(be: Backend, m: Array) -> Array:
    return be.host(schur.axis, be.ones(m) > 0, m)


# How small the smallest eigenvalue may be beside √tr(M²). A schedule for smaller ones than there are is not only longer: its
# slopes multiply what little imaginary part rounding left.
_LEVELS = (1e-1, 1e-2, 1e-4, 1e-8, 0.0)


def _polynomial(be: Backend, x: Dense, tol: float) -> Iterate:
    """The article's iteration: X₀ = M/√tr(M²), whose eigenvalues lie in [-1, 1] if they are real."""
    square = be.xp.abs(inner(be, adjoint(x.m), x.m))
    start = x.m / column(be.xp.sqrt(nonzero(be, square)))
    lower = 1 / norm(be, be.inv(start))

    def attempt(levels: tuple[float, ...], start: Array, lower: Array) -> Iterate:
        level, *rest = levels

        def at_level(start: Array, lower: Array) -> Iterate:
            schedule = polar_express(max(level, start.shape[-1] * be.eps(start)), max(tol, 1e-4), be.eps(start))
            return finish(be, run(be, Dense(start), schedule), len(schedule) * be.ones(start))

        if not rest:
            return at_level(start, lower)
        return be.split(lower > level, at_level, lambda *args: attempt(tuple(rest), *args), start, lower)

    return attempt(_LEVELS, start, lower)


def _fold(be: Backend, s: Array, m: Array) -> tuple[Array, Array]:
    """N with zero moved away, and the projector on the eigenvalue zero."""
    zero = eye(be, m) - s @ s
    # Its trace counts zero eigenvalues; where there are none it is rounding, and would be multiplied by N⁻¹ below.
    none = column(be.real(be.xp.linalg.trace(zero)) < 0.5)
    zero = be.xp.where(none, be.xp.zeros_like(zero), zero)
    shift = column(nonzero(be, norm(be, be.constant(m)) / math.sqrt(m.shape[-1])))
    n = s @ m
    return n - n @ zero + shift * zero, zero


def _between(s: Array, zero: Array, x: Array) -> Array:
    """Twice the part of x that maps the two other invariant subspaces into each other; its own adjoint, as a map of x."""
    x = x - zero @ x
    return x - x @ zero - s @ x @ s


def _from_zero(be: Backend, n: Array, zero: Array, x: Array) -> Array:
    """The part that joins the eigenvalue zero to the rest."""
    across = inverse(be, n)
    across = across - across @ zero
    return across @ x @ zero + zero @ x @ across


def _turned(be: Backend, s: Array, n: Array, zero: Array, dm: Array) -> Array:
    first = _from_zero(be, n, zero, dm)
    # dS maps each of the two subspaces into the other; the rest is rounding, amplified.
    return first + _between(s, zero, folded(be, n, _between(s, zero, dm))) / 2


def _moved(be: Backend, s: Array, m: Array, dm: Array) -> Array:
    """dS for dM, by the rule at the top of this file."""
    m, e = normalise(be, m)
    return _turned(be, s, *_fold(be, s, m), be.ldexp(dm, column(-e)))


def _pulled(be: Backend, s: Array, m: Array, bar: Array) -> Array:
    """M̄ for S̄: the same map of the adjoints."""
    m, e = normalise(be, m)
    n, zero = _fold(be, s, m)
    return _turned(be, adjoint(s), adjoint(n), adjoint(zero), be.ldexp(bar, column(-e)))


def _tangent(be: Backend, value: Arrays, arrays: Arrays, moves: Arrays, **_: Any) -> Arrays:
    return (_moved(be, *value, *arrays, *moves),)


def _cotangent(be: Backend, value: Arrays, arrays: Arrays, bars: Arrays, **_: Any) -> Arrays:
    return (_pulled(be, *value, *arrays, *bars),)


def _residual(be: Backend, value: tuple[Array], m: Array) -> Residual:
    """The commutator with M, and the correction along M."""
    (s,) = value
    m, _ = normalise(be, m)
    commutator = norm(be, s @ m - m @ s) / (2 * nonzero(be, norm(be, s) * norm(be, m)))
    cube = s @ s @ s - s
    backward = be.xp.maximum(commutator, norm(be, cube) / nonzero(be, norm(be, s)) ** 3)
    return Residual(backward, (_moved(be, s, m, m) - cube / 2,))


@declared(
    "(n,n)->(n,n)", solve=sign, residual=_residual, tangent=_tangent, cotangent=_cotangent, choices={"method": _METHODS}
)
def mcsgn(
    M: Array, *, tol: float | None = None, rtol: float | None = None, method: str = "auto", errors: str = "raise"
) -> Array:
    """mcsgn(M) = M (M²)^{-1/2}: every eigenvalue becomes the sign of its real part.

    Parameters
    ----------
    M : array (..., n, n), float32, float64, complex64 or complex128
    tol : accuracy asked of ``method="polynomial"``; default the dtype's own
    rtol : a singular value of at most ``rtol`` times the largest is zero; default n eps
    method : "newton" (any spectrum off the imaginary axis; Roberts 1980, scaled), "polynomial" (products alone, from
        X₀ = M/√tr(M²); for a real spectrum), "schur" (LAPACK on the CPU), "eigh" (Hermitian M), or "auto": eigenvectors
        for Hermitian members and Schur vectors for a few small ones on a CPU, else Newton, with Schur vectors for
        members whose result does not commute with M to working precision
    errors : "raise", or "nan" to get NaN for the members without an answer

    Notes
    -----
    Zero eigenvalues stay zero, in the sense of the Drazin inverse: M is split by the spectral projector on its generalised
    null space. The sign of [[1, 5], [0, 0]] is itself. Where `rtol` leaves open what is zero there is an error that says so;
    a very non-normal matrix such as [[1, 1e8], [0, -1]] is singular at the default, and ``rtol=0`` takes it as it stands.

    Raises `SpectrumError` where a nonzero eigenvalue lies on the imaginary axis to working precision.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import mcsgn
    >>> M = np.array([[4.0, 3.0], [0.0, -2.0]])
    >>> S = mcsgn(M)
    >>> S
    array([[ 1.,  1.],
           [ 0., -1.]])
    >>> bool(np.linalg.norm(S @ M - M @ S) + np.linalg.norm(S @ S - np.eye(2)) < 1e-14)
    True
    """
    raise NotImplementedError


def _abs(be: Backend, m: Array, **options: Any) -> Solution:
    found = sign(be, m, **options)
    m, e = normalise(be, m)
    return found._replace(value=(be.ldexp(m @ found.value[0], column(e)),))


def _abs_tangent(be: Backend, value: Arrays, arrays: Arrays, moves: Arrays, **options: Any) -> Arrays:
    """dN = dM S + M dS, which unlike N dN + dN N = dM M + M dM knows what to do at zero."""
    (m,), (dm,) = arrays, moves
    (s,) = follow(be, mcsgn.declaration.rule, m, **options)  # type: ignore[attr-defined]
    return (dm @ s + m @ _moved(be, s, m, dm),)


def _abs_cotangent(be: Backend, value: Arrays, arrays: Arrays, bars: Arrays, **options: Any) -> Arrays:
    (m,), (bar,) = arrays, bars
    (s,) = follow(be, mcsgn.declaration.rule, m, **options)  # type: ignore[attr-defined]
    return (bar @ adjoint(s) + _pulled(be, s, m, adjoint(m) @ bar),)


def _abs_residual(be: Backend, value: tuple[Array], m: Array) -> Residual:
    """N² = M², and the correction of a square root: N dN + dN N = M² - N² (with zero moved away, where it stays zero)."""
    (n,) = value
    n, m, _ = normalise(be, n, m)
    gap = m @ m - n @ n
    scale = nonzero(be, norm(be, m) ** 2 + norm(be, n) ** 2)
    zero = eye(be, m) - sign(be, n, tol=None, rtol=None, method="auto").value[0]
    moved = n + column(norm(be, n) / math.sqrt(n.shape[-1])) * zero
    step = separable_sylvester(be, moved, moved, gap)
    return Residual(norm(be, gap) / scale, (step,))


@declared(
    "(n,n)->(n,n)",
    solve=_abs,
    residual=_abs_residual,
    tangent=_abs_tangent,
    cotangent=_abs_cotangent,
    choices={"method": _METHODS},
)
def matrix_abs(
    M: Array, *, tol: float | None = None, rtol: float | None = None, method: str = "auto", errors: str = "raise"
) -> Array:
    """abs(M) = (M²)^{1/2} = M mcsgn(M): M with its eigenvalues folded to the right half plane.

    The absolute value by eigenvalues, not the one by singular values (that is the Hermitian factor of `polar`); for
    Hermitian M they agree. Shapes (..., n, n), dtypes, options and errors as in `mcsgn`.

    >>> import numpy as np
    >>> from matsign import matrix_abs
    >>> M = np.array([[1.0, 2.0], [2.0, 1.0]])
    >>> N = matrix_abs(M)
    >>> N.round(12)
    array([[2., 1.],
           [1., 2.]])
    >>> bool(np.linalg.norm(N @ N - M @ M) < 1e-14)
    True
    """
    raise NotImplementedError


def _projector(be: Backend, m: Array, *, half_plane: str, **options: Any) -> Solution:
    found = sign(be, m, **options)
    (s,) = found.value
    # S² and not I, so that a zero eigenvalue belongs to neither side.
    return found._replace(value=((s @ s + (s if half_plane == "right" else -s)) / 2,))


def _projector_tangent(
    be: Backend, value: Arrays, arrays: Arrays, moves: Arrays, *, half_plane: str, **options: Any
) -> Arrays:
    """dP = (dS S + S dS ± dS)/2."""
    (s,) = follow(be, mcsgn.declaration.rule, *arrays, **options)  # type: ignore[attr-defined]
    ds = _moved(be, s, *arrays, *moves)
    return ((ds @ s + s @ ds + (ds if half_plane == "right" else -ds)) / 2,)


def _projector_cotangent(
    be: Backend, value: Arrays, arrays: Arrays, bars: Arrays, *, half_plane: str, **options: Any
) -> Arrays:
    (m,), (bar,) = arrays, bars
    (s,) = follow(be, mcsgn.declaration.rule, m, **options)  # type: ignore[attr-defined]
    sh = adjoint(s)
    return (_pulled(be, s, m, (bar @ sh + sh @ bar + (bar if half_plane == "right" else -bar)) / 2),)


def _projector_residual(be: Backend, value: tuple[Array], m: Array) -> Residual:
    """P² = P and PM = MP; the correction solves for the part of dP that maps one invariant subspace into the other."""
    (p,) = value
    m, _ = normalise(be, m)
    other = eye(be, m) - p
    commutator, square = p @ m - m @ p, p @ p - p
    size = norm(be, p)
    backward = be.xp.maximum(
        norm(be, commutator) / nonzero(be, 2 * size * norm(be, m)), norm(be, square) / nonzero(be, size) ** 2
    )
    # Folded, with the smallest shift that keeps a zero eigenvalue off the axis; it only matters inside a subspace.
    sided = (p - other) @ m
    sided = sided * column(be.xp.sign(be.real(be.xp.linalg.trace(sided))))
    folded = away(be, sided)
    step = separable_sylvester(be, folded, folded, (p - other) @ commutator)
    step = p @ step @ other + other @ step @ p
    return Residual(backward, (step - (p - other) @ square,))


@declared(
    "(n,n)->(n,n)",
    solve=_projector,
    residual=_projector_residual,
    tangent=_projector_tangent,
    cotangent=_projector_cotangent,
    choices={"method": _METHODS, "half_plane": ("left", "right")},
)
def spectral_projector(
    M: Array,
    *,
    half_plane: str = "right",
    tol: float | None = None,
    rtol: float | None = None,
    method: str = "auto",
    errors: str = "raise",
) -> Array:
    """P = (S² + S)/2 with S = mcsgn(M): the projector on the invariant subspace of one open half plane, along the rest.

    `half_plane` is "right" or "left" (then P = (S² - S)/2); a zero eigenvalue belongs to neither. The trace of P counts the
    eigenvalues there. Shapes (..., n, n), dtypes, the other options and errors as in `mcsgn`.

    >>> import numpy as np
    >>> from matsign import spectral_projector
    >>> M = np.array([[4.0, 3.0], [0.0, -2.0]])
    >>> P = spectral_projector(M)
    >>> P
    array([[1. , 0.5],
           [0. , 0. ]])
    >>> bool(np.linalg.norm(P @ P - P) + np.linalg.norm(P @ M - M @ P) < 1e-14)
    True
    """
    raise NotImplementedError
