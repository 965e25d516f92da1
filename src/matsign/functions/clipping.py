"""Singular values cut off: mclip and soft_threshold, and the projection on positive semidefinite matrices.

What is cut off here comes from projectors, and those from signs. With M = O H (`polar`), R = (I + sign(H - t I))/2 and P = I - R,

    soft(M, t) = O R (H - t I) R,        clip(M, 0, u) = O (u I + P (H - u I) P),

projected from both sides, so that an error of R enters squared and where σ = t it does not matter at all.

Differential of D = soft(M, t), n ≥ m (otherwise of Mᴴ). The singular values above t form the block B on both sides; there
K = O R, G = (H - t I)₊, H = G + t I, and M' = M (I - R) is the rest of M. With A = Kᴴ dM and E = (I - KKᴴ) dM R,

    dD = K (A R - t Ω + C) + F,    H Ω + Ω H = A R - (A R)ᴴ on B,
    H X + X H = H A (I - R) + Eᴴ M',    |H - t I| C + C |H - t I| = G X,    F = (E G + M' Cᴴ) H⁻¹ on B.

All sums that are divided by are those of H or of |H - t I|: no gap between singular values, and nothing of 1/σ below t, so that
rank and repetition do not matter. In terms of singular values, dD between σᵢ in B and σⱼ outside is (σᵢ - t)/(σᵢ² - σⱼ²) times
σᵢ dMᵢⱼ + σⱼ conj(dMⱼᵢ), in two steps because squares would cost half of the digits. With it, for σ > 0,

    clip(M, l, u) = l msign(M) + soft(M, l) - soft(M, u),        clip(M, 0, u) = M - soft(M, u).

Every map here but the one with l > 0 is the gradient of a convex function, that one of a difference of two: each
derivative is its own adjoint.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

from matsign.backends import Backend
from matsign.engine.declare import Residual, declared, rank_tolerance
from matsign.engine.linear import adjoint, can_widen, column, eye, hermitian, nonzero, norm, normalise, widened
from matsign.engine.rules import Arrays, Solution, follow, solution
from matsign.engine.solves import folded, inverse
from matsign.functions.polar import msign, orthogonalise, polar

Array = Any

_METHODS = ("auto", "svd", "sign")


def _clip(be: Backend, m: Array, *, lower: float, upper: float, rtol: float | None, method: str) -> Solution:
    _check_thresholds("mclip", lower=lower, upper=upper)
    if not lower <= upper:
        raise ValueError(f"mclip: lower must be at most upper, got lower={lower!r}, upper={upper!r}")
    lower, upper, rtol = float(lower), float(upper), rank_tolerance(be, m, rtol)
    if _by_svd(be, m, method):

        def clipped(values: Array) -> Array:
            one = be.xp.ones_like(values)
            inside = be.xp.maximum(be.xp.minimum(values, upper * one), lower * one)
            # With lower = 0 what is nearly zero stays what it is, and no rank is decided.
            return be.xp.where(values > rtol * values[:, :1], inside, 0 * values) if lower > 0 else inside

        return solution(be, (_rebuilt(be, m, clipped),))
    return _on_short_side(be, m, lambda m: _clip_by_signs(be, m, lower, upper, rtol))


def _soft(be: Backend, m: Array, *, t: float, method: str) -> Solution:
    _check_thresholds("soft_threshold", t=t)
    t = float(t)
    if _by_svd(be, m, method):

        def shrunk(values: Array) -> Array:
            one = be.xp.ones_like(values)
            return be.xp.where(values > t * one, values - t * one, 0 * values)

        return solution(be, (_rebuilt(be, m, shrunk),))
    return _on_short_side(be, m, lambda m: _soft_by_signs(be, m, t))


def _check_thresholds(name: str, **values: Any) -> None:
    for key, value in values.items():
        if not isinstance(value, Real) or isinstance(value, bool) or not float(value) >= 0:
            raise ValueError(f"{name}: {key} must be a number of at least 0, got {value!r}")


def _by_svd(be: Backend, m: Array, method: str) -> bool:
    """On a CPU LAPACK costs a fourth of two signs or less; but its single precision is eight times as wrong as they are."""
    return method == "svd" or (method == "auto" and be.on_cpu(m) and can_widen(be, m))


def _rebuilt(be: Backend, m: Array, change: Any) -> Array:
    """U change(S) Vᴴ, in double precision where there is one."""
    kind = be.kind(m)
    m, e = normalise(be, widened(be, m))
    u, values, vh = be.svd(m)
    # In true size, where the thresholds are: scaled the other way they might overflow.
    values = change(be.ldexp(values, e[:, None]))
    return be.astype((u * values[:, None, :]) @ vh, kind)


def _on_short_side(be: Backend, m: Array, f: Any) -> Solution:
    if m.shape[-2] >= m.shape[-1]:
        return f(m)
    found: Solution = f(adjoint(m))
    return found._replace(value=tuple(adjoint(x) for x in found.value))


def _sign(be: Backend, h: Array) -> Array:
    """The sign of a Hermitian matrix by products alone, resolved as far as rounding allows."""
    return hermitian(orthogonalise(be, h, tol=None, rtol=be.eps(h), method="polynomial").value[0])


def _factors(be: Backend, m: Array, rtol: float) -> tuple[Solution, Array, Array]:
    """How O was found, H, and a bound on its largest eigenvalue."""
    found = orthogonalise(be, m, tol=None, rtol=rtol, method="polynomial")
    h = hermitian(adjoint(found.value[0]) @ m)
    return found, h, _size(be, h)


def _size(be: Backend, h: Array) -> Array:
    """The largest eigenvalue of a Hermitian matrix from above, by a factor of at most n^1/4."""
    h, e = normalise(be, h)
    return be.ldexp(be.xp.sqrt(norm(be, h @ h)), e)


def _within(be: Backend, bound: float, e: Array, top: Array) -> Array:
    """A threshold in units of 2^e: one above all there is counts as if it were the largest."""
    return be.xp.minimum(be.ldexp(bound * be.xp.ones_like(top), -e), top)


def _clip_by_signs(be: Backend, m: Array, lower: float, upper: float, rtol: float) -> Solution:
    m, e = normalise(be, m)
    found, h, top = _factors(be, m, rtol if lower > 0 else be.eps(m))
    (o,), unit = found.value, eye(be, h)
    bound = _within(be, upper, e, top)
    high = column(bound) * unit
    below = (unit - _sign(be, h - high)) / 2
    # What is squared away is eps² of the largest σ: too much only where the threshold is itself lost in its rounding.
    lost = column(bound < be.eps(m) * top)
    kept = high + be.xp.where(lost, 0 * h, below @ (h - high) @ below)
    if lower > 0:
        low = column(_within(be, lower, e, top)) * unit
        above = (unit + _sign(be, h - low)) / 2
        kept = above @ (kept - low) @ above
    x = be.ldexp(o @ kept, column(e))
    return found._replace(value=(x + lower * o if lower > 0 else x,))


def _soft_by_signs(be: Backend, m: Array, t: float) -> Solution:
    m, e = normalise(be, m)
    found, h, top = _factors(be, m, be.eps(m))
    gap = h - column(_within(be, t, e, top)) * eye(be, h)
    above = (eye(be, h) + _sign(be, gap)) / 2
    return found._replace(value=(be.ldexp(found.value[0] @ above @ gap @ above, column(e)),))


def _side(be: Backend, h: Array) -> Array:
    """The sign of a Hermitian matrix, in a rule."""
    s = hermitian(follow(be, msign.declaration.rule, h, tol=None, rtol=0.0, method="auto")[0])  # type: ignore[attr-defined]
    # Eigenvalues near zero leave it turned, which symmetry makes a quadratic error; each step squares that.
    for _ in range(2):
        s = hermitian(s @ (3 * eye(be, s) - s @ s)) / 2
    return s


def _soft_moved(be: Backend, m: Array, dm: Array, t: float) -> Array:
    """dD for dM, by the rule at the top of this file."""
    if t == 0:
        return dm
    if t == math.inf:
        return be.xp.zeros_like(dm)
    if m.shape[-2] < m.shape[-1]:
        return adjoint(_soft_moved(be, adjoint(m), adjoint(dm), t))
    _, h = follow(be, polar.declaration.rule, m, tol=None, rtol=None, method="auto")  # type: ignore[attr-defined]
    unit = eye(be, h)
    # Just below t, so that what lies on the threshold up to rounding counts as above it.
    least = t - 32 * be.eps(m) * _size(be, be.constant(h))
    cut = column(be.xp.maximum(least, 0 * least + t / 2)) * unit
    s = _side(be, h - cut)
    r, rest = (unit + s) / 2, (unit - s) / 2
    g = hermitian(r @ (h - cut) @ r)
    high = g + cut
    across = inverse(be, high)
    k, low = m @ across @ r, m @ rest
    a, e = adjoint(k) @ dm, dm @ r
    e = e - k @ (adjoint(k) @ e)
    inside = a @ r
    turn = folded(be, high, inside - adjoint(inside))
    # H - cut sign/2 has the sums of H between the two blocks, and is nowhere near singular.
    x = folded(be, hermitian(h - cut @ s / 2), h @ a @ rest + adjoint(e) @ low)
    # Projected once more: near t the equation has rounding within a block to divide by next to nothing.
    c = r @ folded(be, 2 * g - (h - cut), g @ x @ rest) @ rest
    return k @ (inside - cut @ turn + c) + (e @ g + low @ adjoint(c)) @ across


def _soft_tangent(be: Backend, value: Arrays, arrays: Arrays, moves: Arrays, *, t: float, **_: Any) -> Arrays:
    return (_soft_moved(be, arrays[0], moves[0], float(t)),)


def _clip_tangent(
    be: Backend,
    value: Arrays,
    arrays: Arrays,
    moves: Arrays,
    *,
    lower: float,
    upper: float,
    rtol: float | None,
    **_: Any,
) -> Arrays:
    (m,), (dm,) = arrays, moves
    over = _soft_moved(be, m, dm, float(upper))
    if lower == 0:
        return (dm - over,)
    sign = msign.declaration.rule  # type: ignore[attr-defined]
    options: dict[str, Any] = {"tol": None, "rtol": rtol, "method": "auto"}
    u = follow(be, sign, m, **options)
    (du,) = sign.tangent(be, u, (m,), (dm,), **options)
    return (float(lower) * du + _soft_moved(be, m, dm, float(lower)) - over,)


def _gap(be: Backend, value: Array, other: Array, m: Array) -> Residual:
    """The answer beside the same by other means; the projections move no further than what is projected."""
    value, other, m, e = normalise(be, value, other, m)
    step, size = other - value, be.xp.maximum(norm(be, m), norm(be, value))
    return Residual(norm(be, step) / nonzero(be, size), (be.ldexp(step, column(e)),))


def _soft_residual(be: Backend, value: tuple[Array], m: Array, *, t: float) -> Residual:
    """Beside M less the clipped M, by signs."""
    clipped = _on_short_side(be, m, lambda m: _clip_by_signs(be, m, 0.0, float(t), be.eps(m)))
    return _gap(be, value[0], m - clipped.value[0], m)


def _clip_residual(
    be: Backend, value: tuple[Array], m: Array, *, lower: float, upper: float, rtol: float | None
) -> Residual:
    """Beside l msign(M) + soft(M, l) - soft(M, u), by signs."""

    def soft(t: float) -> Array:
        return _on_short_side(be, m, lambda m: _soft_by_signs(be, m, float(t))).value[0]

    base = m
    if lower > 0:
        (u,) = orthogonalise(be, m, tol=None, rtol=rtol, method="polynomial").value
        base = float(lower) * u + soft(lower)
    return _gap(be, value[0], base - soft(upper), m)


@declared(
    "(n,m)->(n,m)",
    solve=_clip,
    residual=_clip_residual,
    tangent=_clip_tangent,
    cotangent=_clip_tangent,
    choices={"method": _METHODS},
    halves=True,
)
def mclip(
    M: Array,
    lower: float = 0.0,
    upper: float = 1.0,
    *,
    rtol: float | None = None,
    method: str = "auto",
    errors: str = "raise",
) -> Array:
    """mclip(M) = U min(max(S, lower), upper) Vᴴ for M = U S Vᴴ: singular values are clipped, singular vectors stay.

    With lower = 0 this is the matrix nearest to M, in the Frobenius norm, of spectral norm at most `upper`.

    Parameters
    ----------
    M : array (..., n, m), float32, float64, complex64 or complex128; float16 and bfloat16 are computed in float32
    lower, upper : 0 ≤ lower ≤ upper; upper may be infinite
    rtol : where lower > 0, a singular value of at most ``rtol`` times the largest is zero and stays zero, because its
        singular vectors mean nothing; default max(n, m) eps
    method : "svd" (in double precision; float32 results are then right to the last digits), "sign" (products alone, in the
        spirit of Jianlin Su 2025: the projector on σ < upper is (I - sign(H - upper I))/2 for M = O H, and enters from both
        sides), or "auto": "svd" on a CPU, "sign" on an accelerator
    errors : "raise", or "nan" to get NaN for the members without an answer

    Notes
    -----
    Raises `ValueError` unless 0 ≤ lower ≤ upper. The derivative exists where no singular value is at a threshold; one that is
    counts as above it. At zero singular values it exists for lower = 0; else see `msign`.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import mclip
    >>> M = np.array([[3.0, 0.0], [4.0, 0.0], [0.0, 0.25]])
    >>> X = mclip(M, 0.0, 1.0)
    >>> X.round(12)
    array([[0.6 , 0.  ],
           [0.8 , 0.  ],
           [0.  , 0.25]])
    >>> bool(np.linalg.norm(mclip(X) - X) < 1e-15)
    True
    """
    raise NotImplementedError


@declared(
    "(n,m)->(n,m)",
    solve=_soft,
    residual=_soft_residual,
    tangent=_soft_tangent,
    cotangent=_soft_tangent,
    choices={"method": _METHODS},
    halves=True,
)
def soft_threshold(M: Array, t: float, *, method: str = "auto", errors: str = "raise") -> Array:
    """soft(M, t) = U max(S - t, 0) Vᴴ for M = U S Vᴴ, the minimiser of ‖X - M‖²/2 + t ‖X‖ in the nuclear norm.

    The proximal step of matrix completion and robust principal components (Cai, Candès & Shen 2010). t ≥ 0, or a
    `ValueError`. Together with `mclip`, soft(M, t) + mclip(M, 0, t) = M. Shapes (..., n, m), dtypes, the other options and
    errors as in `mclip`; differentiable at every rank, a singular value at t counts as above it.

    Where `t` is the threshold.

    >>> import numpy as np
    >>> from matsign import mclip, soft_threshold
    >>> M = np.array([[3.0, 0.0], [4.0, 0.0], [0.0, 0.25]])
    >>> X = soft_threshold(M, 1.0)
    >>> X.round(12)
    array([[2.4, 0. ],
           [3.2, 0. ],
           [0. , 0. ]])
    >>> bool(np.linalg.norm(X + mclip(M, 0.0, 1.0) - M) < 1e-14)
    True
    """
    raise NotImplementedError


def _project(be: Backend, a: Array, *, method: str) -> Solution:
    h, e = normalise(be, hermitian(a))
    if method == "eigh" or (method == "auto" and be.on_cpu(a)):
        values, vectors = be.eigh(h)
        x = (vectors * be.xp.where(values > 0, values, 0 * values)[:, None, :]) @ adjoint(vectors)
    else:
        above = (eye(be, h) + _sign(be, h)) / 2
        x = above @ h @ above
    return solution(be, (be.ldexp(hermitian(x), column(e)),))


def _project_tangent(be: Backend, value: Arrays, arrays: Arrays, moves: Arrays, **_: Any) -> Arrays:
    """dX = R dH R + C + Cᴴ with |H| C + C |H| = X dH P: between eigenvalues of both signs it takes λᵢ / (λᵢ - λⱼ) times dH."""
    (x,), h, dh = value, hermitian(arrays[0]), hermitian(moves[0])
    unit, size = eye(be, h), nonzero(be, _size(be, be.constant(h)))
    s = _side(be, h + column(32 * be.eps(h) * size) * unit)
    r, rest = (unit + s) / 2, (unit - s) / 2
    c = r @ folded(be, hermitian(2 * x - h), x @ dh @ rest) @ rest
    return (r @ dh @ r + c + adjoint(c),)


def _project_residual(be: Backend, value: tuple[Array], a: Array) -> Residual:
    """Beside (H + H sign(H))/2, by products."""
    h, e = normalise(be, hermitian(a))
    return _gap(be, value[0], be.ldexp(h + hermitian(h @ _sign(be, h)), column(e - 1)), a)


@declared(
    "(n,n)->(n,n)",
    solve=_project,
    residual=_project_residual,
    tangent=_project_tangent,
    cotangent=_project_tangent,
    choices={"method": ("auto", "eigh", "sign")},
)
def psd_project(A: Array, *, method: str = "auto", errors: str = "raise") -> Array:
    """psd(A) = (H + abs(H))/2 with H = (A + Aᴴ)/2: the Hermitian positive semidefinite matrix nearest to A in the Frobenius norm.

    Parameters
    ----------
    A : array (..., n, n), float32, float64, complex64 or complex128, Hermitian or not
    method : "eigh", "sign" (products alone: R H R with the projector R = (I + sign(H))/2), or "auto": "eigh" on a CPU, "sign" on
        an accelerator
    errors : "raise", or "nan" to get NaN for the members without an answer

    Notes
    -----
    Source: Higham 1988. The derivative exists where H is nonsingular; a zero eigenvalue counts as a positive one, so
    that the derivative at a positive semidefinite A is the identity on Hermitian directions.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import psd_project
    >>> A = np.array([[1.0, 2.0], [2.0, 1.0]])
    >>> X = psd_project(A)
    >>> X.round(12)
    array([[1.5, 1.5],
           [1.5, 1.5]])
    >>> bool(np.linalg.norm(X - psd_project(-A) - A) < 1e-14)
    True
    """
    raise NotImplementedError
