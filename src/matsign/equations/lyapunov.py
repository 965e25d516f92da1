"""The Lyapunov equation a x + x aᴴ = q and the Stein equation a x aᴴ - x + q = 0.

Both come down to a sum of congruences. For a inside the unit circle the second is x = Σ aᵏ q (aᵏ)ᴴ; one step of doubling,
x ← x + c x cᴴ, c ← c², adds as many terms as there are (`engine.doubling`). The first becomes such a sum by a Cayley transform of
a, where squaring c is the Newton step for the sign of a; the block iteration itself (`blocks.Lyapunov`) is method="newton". A sum
exists where the spectrum of a lies on one side of the axis or the circle. What has no sum goes to Schur vectors.

Differential:  a dx + dx aᴴ = dq - da x - x daᴴ, and a dx aᴴ - dx = -(da x aᴴ + a x daᴴ + dq), the same equations again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from matsign.backends import Backend
from matsign.engine import balance, bartels
from matsign.engine.declare import Residual, declared
from matsign.engine.doubling import Sum, one_sided_lyapunov, smith
from matsign.engine.failures import Failure
from matsign.engine.iterate import settled, stable_lyapunov
from matsign.engine.linear import (
    adjoint,
    column,
    hermitian,
    inner,
    is_hermitian,
    nonzero,
    norm,
    normalise,
    scattered,
    trace,
)
from matsign.engine.rules import Arrays, Solution, follow, solution
from matsign.engine.twice import Twice, adjoint_of, minus, plus, product, twice

Array = Any

_METHODS = ("auto", "doubling", "newton", "schur")
# "direct" and "bilinear" are SciPy's names of two direct methods; ours is a third.
_STEIN_METHODS = ("auto", "doubling", "schur", None, "direct", "bilinear")


class _Equation(NamedTuple):
    """What tells the two equations apart."""

    gap: Callable[[Array, Array, Array], Array]  # (a, x, q): what is left of the equation
    exact_gap: Callable[[Backend, Twice, Twice, Twice], Twice]  # the same in twice the precision
    moved: Callable[[Array, Array, Array], Array]  # (a, x, da): how a change of a moves the gap
    size: Callable[[Backend, Array], Array]  # of the operator, for the size of a
    mixed: Callable[[Backend, Array], Array]  # where a sum is hardly worth a try
    by_sum: Callable[[Backend, Array, Array], Sum]
    by_schur: Callable[[Array, Array], tuple[Array, Array]]


def _exact_lyapunov_gap(be: Backend, a: Twice, x: Twice, q: Twice) -> Twice:
    return plus(q, minus(plus(product(be, a, x), product(be, x, adjoint_of(a)))))


def _exact_stein_gap(be: Backend, a: Twice, x: Twice, q: Twice) -> Twice:
    return plus(plus(product(be, product(be, a, x), adjoint_of(a)), minus(x)), q)


def _looks_mixed(be: Backend, a: Array) -> Array:
    """Whether the real parts of the eigenvalues look too scattered for their mean to lie on one side.

    Numbers of one sign have a sum no smaller than the root of the sum of their squares. For a normal matrix that is the norm
    of its Hermitian part, for others less; the factor leaves room for them.
    """
    n = a.shape[-1]
    scatter = (inner(be, a, a) + inner(be, adjoint(a), a)) / 2
    return be.real(trace(be, a)) ** 2 < min(0.2, 4 / n) * scatter


_LYAPUNOV = _Equation(
    lambda a, x, q: q - a @ x - x @ adjoint(a),
    _exact_lyapunov_gap,
    lambda a, x, da: -(da @ x) - x @ adjoint(da),
    lambda be, a: 2 * norm(be, a),
    _looks_mixed,
    one_sided_lyapunov,
    bartels.lyapunov,
)


def _stein_by_sum(be: Backend, a: Array, q: Array) -> Sum:
    """The sum over the powers of a, or of its inverse where the determinant says that only that one can converge."""

    def outside(a: Array, q: Array) -> Sum:
        inverse = be.inv(a)
        return smith(be, q, lambda: (inverse, -(inverse @ q @ adjoint(inverse))))

    return be.split(be.xp.linalg.slogdet(a)[1] > 0, outside, lambda a, q: smith(be, q, lambda: (a, q)), a, q)


_STEIN = _Equation(
    lambda a, x, q: q + a @ x @ adjoint(a) - x,
    _exact_stein_gap,
    lambda a, x, da: da @ x @ adjoint(a) + a @ x @ adjoint(da),
    lambda be, a: norm(be, a) ** 2 + 1,
    lambda be, a: be.ones(a) < 0,
    _stein_by_sum,
    bartels.stein,
)


def lyapunov(be: Backend, a: Array, q: Array, *, method: str) -> Solution:
    """x of a stack with a x + x aᴴ = q."""
    e, a, q, symmetric = *_balanced(be, a, q), is_hermitian(q)
    a, scale = normalise(be, a)
    q, scale_q = normalise(be, q)
    found = _by_newton(be, a, q) if method == "newton" else _solve(be, _LYAPUNOV, a, q, method)
    return _restored(be, found, symmetric, e, scale_q - scale)


def stein(be: Backend, a: Array, q: Array, *, method: str | None) -> Solution:
    """x of a stack with a x aᴴ - x + q = 0."""
    e, a, q, symmetric = *_balanced(be, a, q), is_hermitian(q)
    q, scale_q = normalise(be, q)
    found = _solve(be, _STEIN, a, q, method if method in ("auto", "doubling", None) else "schur")
    return _restored(be, found, symmetric, e, scale_q)


def _balanced(be: Backend, a: Array, q: Array) -> tuple[Array, Array, Array]:
    """(e, a, q) in units in which a is balanced: x = 2^e y 2^e for the y of this equation."""
    e = balance.exponents(be, a)
    return be.split(
        (e != 0).any(-1),
        lambda e, a, q: (e, balance.rescale(be, a, e), be.ldexp(q, -_outer(e))),
        lambda *kept: kept,
        *(e, a, q),
    )


def _outer(e: Array) -> Array:
    return e[:, :, None] + e[:, None, :]


def _restored(be: Backend, found: Solution, symmetric: Array, e: Array, scale: Array) -> Solution:
    """The answer in the caller's units, Hermitian to the last bit where q is."""
    (x,) = found.value
    x = be.xp.where(column(symmetric), hermitian(x), x)
    return found._replace(value=(be.ldexp(x, _outer(e) + column(scale)),))


def _solve(be: Backend, equation: _Equation, a: Array, q: Array, method: str | None) -> Solution:
    """The sum where it converges to an answer at working precision, Schur vectors for the rest."""
    if method == "schur":
        return _by_schur(be, equation, a, q)
    if method == "doubling":
        found = equation.by_sum(be, a, q)
        return solution(be, (found.x,), Failure.NOT_CONVERGED, ~found.converged, found.steps)
    if be.traced(a) or not be.on_cpu(a):
        return _guarded(be, equation, a, q)
    return be.split(
        equation.mixed(be, a),
        lambda a, q: _by_schur(be, equation, a, q),
        lambda a, q: _guarded(be, equation, a, q),
        *(a, q),
    )


def _guarded(be: Backend, equation: _Equation, a: Array, q: Array) -> Solution:
    """The sum, and Schur vectors for the members where it has not converged or its residual is too large."""
    found = equation.by_sum(be, a, q)
    size, size_x, size_q = equation.size(be, a), norm(be, found.x), norm(be, q)
    gap = norm(be, equation.gap(a, found.x, q))
    fine = found.converged & (gap < 2 * math.sqrt(q.shape[-1]) * be.eps(q) * nonzero(be, size * size_x + size_q))
    # A solution this large means an operator that is singular to working precision.
    fine = fine & (size_x * size * be.eps(q) < nonzero(be, size_q))
    return be.split(
        ~fine,
        lambda a, q, *_: _by_schur(be, equation, a, q),
        lambda a, q, x, steps: solution(be, (x,), iterations=steps),
        *(a, q, found.x, found.steps),
    )


def _by_schur(be: Backend, equation: _Equation, a: Array, q: Array) -> Solution:
    value, failure = be.host(equation.by_schur, (q, be.no_counts(q)), a, q)
    return solution(be, (value,))._replace(failure=failure)


def _by_newton(be: Backend, a: Array, q: Array) -> Solution:
    """The corner of the sign of [[a, -q], [0, -aᴴ]], which is 2x for a stable a and -2x for a stable -a."""
    found, x = stable_lyapunov(be, a, q)
    mean = be.real(trace(be, found.value.a)) / a.shape[-1]
    one_side = settled(be, found) & (be.xp.abs(be.xp.abs(mean) - 1) * a.shape[-1] < 0.1)
    return solution(be, (column(-mean) * x,), Failure.NO_LINE, ~one_side, found.steps)


def _certified(
    be: Backend, equation: _Equation, solve: Callable[..., Solution], x: Array, a: Array, q: Array
) -> Residual:
    """The gap beside its terms; a correction for it and for what rounding can do; the separation by power iteration.

    The gap is computed in twice the working precision, because its rounding would look like an error of an answer that is
    right. Its correction is joined by that for a random change of the data by rounding: what is wrong, and what cannot be known
    (Gudmundsson, Kenney & Laub 1997).
    """
    xp, symmetric = be.xp, is_hermitian(q)
    n = q.shape[-1]
    random = scattered(be, n, n, q)
    gap = equation.exact_gap(be, twice(a), twice(x), twice(q)).high
    backward = norm(be, gap) / nonzero(be, equation.size(be, a) * norm(be, x) + norm(be, q))
    noise = be.eps(q) * random
    moved = equation.moved(a, x, a * noise)
    moved = moved + q * xp.where(column(symmetric), math.sqrt(2) * hermitian(noise), noise)

    def response(matrix: Array, to: Array) -> tuple[Array, Array, Array]:
        """The solution for a right-hand side, the bound on the separation that it gives, and where there is none."""
        size = norm(be, to)
        start = xp.where(column(size > 0), to / column(nonzero(be, size)), random)
        y = solve(be, matrix, start, method="auto").value[0]
        lost = ~xp.isfinite(y).all((-1, -2))
        y = xp.where(column(lost), 0 * start, y)
        grown = norm(be, y) / norm(be, start)
        bound = xp.where(lost, be.eps(q) * equation.size(be, a), 1 / nonzero(be, grown))
        return y * column(size), bound, lost

    error, _, lost = response(a, gap)
    unknown, first, also = response(a, moved)
    back, second, _ = response(adjoint(a), unknown)
    _, third, _ = response(a, back)
    # Moduli, because the two may point the same way and cancel. Where the operator is singular as far as numbers can tell, no
    # digit is known.
    correction = xp.where(column(lost | also), xp.abs(x), xp.abs(error) + xp.abs(unknown))
    return Residual(backward, (correction,), xp.minimum(first, xp.minimum(second, third)))


def lyapunov_residual(be: Backend, value: tuple[Array], a: Array, q: Array) -> Residual:
    e, a, q = _balanced(be, a, q)
    a, scale = normalise(be, a)
    q, scale_q = normalise(be, q)
    shift = _outer(e) + column(scale_q - scale)
    found = _certified(be, _LYAPUNOV, lyapunov, be.ldexp(value[0], -shift), a, q)
    separation = be.ldexp(found.separation, scale)
    return Residual(found.backward, (be.ldexp(found.correction[0], shift),), separation)


def stein_residual(be: Backend, value: tuple[Array], a: Array, q: Array) -> Residual:
    e, a, q = _balanced(be, a, q)
    q, scale_q = normalise(be, q)
    shift = _outer(e) + column(scale_q)
    found = _certified(be, _STEIN, stein, be.ldexp(value[0], -shift), a, q)
    return found._replace(correction=(be.ldexp(found.correction[0], shift),))


def _lyapunov_again(be: Backend, a: Array, q: Array) -> Array:
    return follow(be, solve_continuous_lyapunov.declaration.rule, a, q, method="auto")[0]  # type: ignore[attr-defined]


def _lyapunov_tangent(be: Backend, value: Arrays, arrays: Arrays, moves: Arrays, *, method: str) -> Arrays:
    (x,), (a, _), (da, dq) = value, arrays, moves
    return (_lyapunov_again(be, a, dq - da @ x - x @ adjoint(da)),)


def _lyapunov_cotangent(be: Backend, value: Arrays, arrays: Arrays, bars: Arrays, *, method: str) -> Arrays:
    """aᴴ y + y a = x̄ gives q̄ = y and ā = -(y xᴴ + yᴴ x)."""
    (x,), (a, _) = value, arrays
    y = _lyapunov_again(be, adjoint(a), bars[0])
    return -(y @ adjoint(x) + adjoint(y) @ x), y


def _stein_again(be: Backend, a: Array, q: Array) -> Array:
    return follow(be, solve_discrete_lyapunov.declaration.rule, a, q, method="auto")[0]  # type: ignore[attr-defined]


def _stein_tangent(be: Backend, value: Arrays, arrays: Arrays, moves: Arrays, *, method: str | None) -> Arrays:
    (x,), (a, _), (da, dq) = value, arrays, moves
    return (_stein_again(be, a, dq + da @ x @ adjoint(a) + a @ x @ adjoint(da)),)


def _stein_cotangent(be: Backend, value: Arrays, arrays: Arrays, bars: Arrays, *, method: str | None) -> Arrays:
    """aᴴ y a - y = -x̄ gives q̄ = y and ā = y a xᴴ + yᴴ a x."""
    (x,), (a, _) = value, arrays
    y = _stein_again(be, adjoint(a), bars[0])
    return y @ a @ adjoint(x) + adjoint(y) @ a @ x, y


@declared(
    "(n,n),(n,n)->(n,n)",
    solve=lyapunov,
    residual=lyapunov_residual,
    tangent=_lyapunov_tangent,
    cotangent=_lyapunov_cotangent,
    linear=True,
    choices={"method": _METHODS},
)
def solve_continuous_lyapunov(a: Array, q: Array, *, method: str = "auto", errors: str = "raise") -> Array:
    """a x + x aᴴ = q, the continuous-time Lyapunov equation, with SciPy's name, argument order and sign.

    Parameters
    ----------
    a, q : arrays (..., n, n), float32, float64, complex64 or complex128
    method : "doubling" (a Cayley transform and a sum by doubling, R. A. Smith 1968; one inverse, then products; wants the
        spectrum of a on one side of the imaginary axis), "newton" (the sign of [[a, -q], [0, -aᴴ]], Roberts 1980, an inverse
        a step; wants the same), "schur" (Bartels & Stewart 1972, one Schur form and a blocked triangular solver, on the CPU), or
        "auto": doubling, and Schur vectors for the members where it does not reach working precision
    errors : "raise", or "nan" to get NaN for the members without an answer

    Notes
    -----
    x is Hermitian to the last bit where q is. The states are balanced first, so that the units they come in do not matter.
    Raises `SpectrumError` where a and -aᴴ share an eigenvalue to working precision: then there is no solution, or infinitely
    many.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import solve_continuous_lyapunov
    >>> a, q = np.array([[-1.0, 2.0], [0.0, -3.0]]), np.array([[-2.0, 0.0], [0.0, -6.0]])
    >>> x = solve_continuous_lyapunov(a, q)
    >>> bool(np.linalg.norm(a @ x + x @ a.T - q) < 1e-14)
    True
    """
    raise NotImplementedError


@declared(
    "(n,n),(n,n)->(n,n)",
    solve=stein,
    residual=stein_residual,
    tangent=_stein_tangent,
    cotangent=_stein_cotangent,
    linear=True,
    choices={"method": _STEIN_METHODS},
)
def solve_discrete_lyapunov(a: Array, q: Array, method: str | None = "auto", *, errors: str = "raise") -> Array:
    """a x aᴴ - x + q = 0, the discrete-time Lyapunov (Stein) equation, with SciPy's name, argument order and sign.

    Parameters
    ----------
    a, q : arrays (..., n, n), float32, float64, complex64 or complex128
    method : "doubling" (the sum of aᵏ q (aᵏ)ᴴ, or the same for the inverse of a, R. A. Smith 1968; products alone; wants the
        spectrum of a on one side of the unit circle), "schur" (one Schur form, whose Cayley transform gives a triangular
        Lyapunov equation, corrected once; on the CPU), or "auto": doubling, and Schur vectors for the members where it does not
        reach working precision. SciPy's None means "auto", its "direct" and "bilinear" mean "schur"
    errors : "raise", or "nan" to get NaN for the members without an answer

    Notes
    -----
    x is Hermitian to the last bit where q is. The states are balanced first, so that the units they come in do not matter.
    Raises `SpectrumError` where a has eigenvalues with λ conj(μ) = 1 to working precision: then there is no solution, or
    infinitely many.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import solve_discrete_lyapunov
    >>> a, q = np.array([[0.5, 1.0], [0.0, -0.8]]), np.eye(2)
    >>> x = solve_discrete_lyapunov(a, q)
    >>> bool(np.linalg.norm(a @ x @ a.T - x + q) < 1e-14)
    True
    """
    raise NotImplementedError
