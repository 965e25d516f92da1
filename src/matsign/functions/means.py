"""Roots of two matrices: A (BA)^{-1/2} with its inverse, and the geometric mean A # B that it is for B⁻¹.

Both solve a quadratic equation, C B C = A and G B⁻¹ G = A; for positive definite matrices G is the midpoint of the geodesic from
A to B. With W = B⁻¹ G the differential of the mean solves  Wᴴ dG + dG W = dA + Wᴴ dB W.
"""

from __future__ import annotations

import math
from typing import Any

from matsign.backends import Backend
from matsign.engine.blocks import AntiDiagonal
from matsign.engine.declare import Residual, declared, rank_tolerance
from matsign.engine.failures import Failure
from matsign.engine.iterate import newton, separable_sylvester, settled
from matsign.engine.linear import adjoint, away, column, eye, hermitian, is_hermitian, largest, nonzero, norm
from matsign.engine.rules import Arrays, Solution, solution
from matsign.engine.solves import inverse, separable
from matsign.functions.roots import root_pair

Array = Any


def _normalise_pair(be: Backend, a: Array, b: Array) -> tuple[Array, Array, Array, Array]:
    """`a` and `b` with entries below 1, and the logarithms of their factors, with an even difference."""
    ea, eb = (be.exponent(largest(be, x)) for x in (a, b))
    ea = ea + (ea - eb) % 2
    return be.ldexp(a, column(-ea)), be.ldexp(b, column(-eb)), ea, eb


def coupled(be: Backend, a: Array, b: Array, *, rtol: float | None) -> Solution:
    """(C, C⁻¹) of a stack: Newton on the blocks; where they are singular or it loses digits, the root of BA."""
    rtol = rank_tolerance(be, a, rtol)
    a, b, ea, eb = _normalise_pair(be, a, b)
    k = (ea - eb) // 2
    found = newton(be, AntiDiagonal(a, b))
    c, d = found.value
    size = norm(be, c)
    gap = norm(be, c @ b @ c - a) / (size**2 * norm(be, b)) + norm(be, d @ a @ d - b) / (norm(be, d) ** 2 * norm(be, a))
    doubtful = ~settled(be, found) | ~(gap < 8 * math.sqrt(a.shape[-1]) * be.eps(a))

    def through_product(a: Array, b: Array, *_: Array) -> Solution:
        root = root_pair(be, b @ a, rtol=rtol, method="auto")
        inverse = root.value[1]
        return root._replace(value=(a @ inverse, inverse @ b))

    def accept(a: Array, b: Array, c: Array, d: Array, steps: Array) -> Solution:
        return solution(be, (c, d), iterations=steps)

    found = be.split(doubtful, through_product, accept, a, b, c, d, found.steps)
    c, d = found.value
    return found._replace(value=(be.ldexp(c, column(k)), be.ldexp(d, column(-k))))


def _coupled_residual(be: Backend, value: tuple[Array, Array], a: Array, b: Array) -> Residual:
    c, d = value
    a, b, ea, eb = _normalise_pair(be, a, b)
    k = (ea - eb) // 2
    c, d = be.ldexp(c, column(-k)), be.ldexp(d, column(k))
    gap, gap_d = a - c @ b @ c, b - d @ a @ d
    backward = be.xp.maximum(norm(be, gap) / nonzero(be, norm(be, a)), norm(be, gap_d) / nonzero(be, norm(be, b)))
    cb, bc = away(be, c @ b), away(be, b @ c)
    dc, dd = separable_sylvester(be, cb, bc, gap), separable_sylvester(be, bc, cb, gap_d)
    return Residual(backward, (be.ldexp(dc, column(k)), be.ldexp(dd, column(-k))))


def _coupled_tangent(be: Backend, value: Arrays, arrays: Arrays, moves: Arrays, **_: Any) -> Arrays:
    """CB dC + dC BC = dA - C dB C, and dD = -D dC D for D = C⁻¹."""
    (c, d), (_a, b), (da, db) = value, arrays, moves
    dc = separable(be, c @ b, b @ c, da - c @ db @ c)
    return dc, -(d @ dc @ d)


def _coupled_cotangent(be: Backend, value: Arrays, arrays: Arrays, bars: Arrays, **_: Any) -> Arrays:
    (c, d), b = (adjoint(x) for x in value), adjoint(arrays[1])
    y = separable(be, b @ c, c @ b, bars[0] - d @ bars[1] @ d)
    return y, -(c @ y @ c)


@declared(
    "(n,n),(n,n)->(n,n),(n,n)",
    solve=coupled,
    residual=_coupled_residual,
    tangent=_coupled_tangent,
    cotangent=_coupled_cotangent,
)
def coupled_root(A: Array, B: Array, *, rtol: float | None = None, errors: str = "raise") -> tuple[Array, Array]:
    """(C, C⁻¹) with C = A (BA)^{-1/2}: the sign of [[0, A], [B, 0]] is [[0, C], [C⁻¹, 0]], and C B C = A.

    Parameters
    ----------
    A, B : arrays (..., n, n), float32, float64, complex64 or complex128, with no eigenvalue of BA on the negative axis
    rtol : a singular value of at most ``rtol`` times the largest is zero; default n eps
    errors : "raise", or "nan" to get NaN for the members without an answer

    Notes
    -----
    Method: Newton on the two blocks (Higham, Mackey, Mackey & Tisseur 2005), and the inverse root of BA for members that
    are singular or lose digits. Where BA is singular the inverse root is the Drazin one: C = A (BA)^{-1/2} and the second
    result is (BA)^{-1/2} B. Raises `SpectrumError` where BA has a negative eigenvalue or a Jordan block at zero.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import coupled_root
    >>> A, B = np.array([[2.0, 1.0], [0.0, 3.0]]), np.array([[5.0, 0.0], [1.0, 4.0]])
    >>> C, D = coupled_root(A, B)
    >>> bool(np.linalg.norm(C @ B @ C - A) + np.linalg.norm(C @ D - np.eye(2)) < 1e-13)
    True
    """
    raise NotImplementedError


def _mean(be: Backend, a: Array, b: Array, *, rtol: float | None) -> Solution:
    """By Cholesky factors where both are positive definite, by A (A⁻¹B)^{1/2} through the blocks otherwise."""
    a, b, ea, eb = _normalise_pair(be, a, b)
    k, low = be.cholesky(hermitian(a)), be.cholesky(hermitian(b))
    definite = is_hermitian(a) & is_hermitian(b) & be.xp.isfinite(norm(be, k) + norm(be, low))

    def by_factors(a: Array, b: Array, k: Array, low: Array) -> Solution:
        # With K⁻¹L = U S Vᴴ the mean is K (U S Uᴴ) Kᴴ. Nothing is squared, so no digits are lost that the data had.
        u, values, _ = be.svd(be.solve(k, low))
        half = k @ u * be.xp.sqrt(values)[:, None, :]
        return solution(be, (half @ adjoint(half),))

    def by_blocks(a: Array, b: Array, *_: Array) -> Solution:
        inverse = be.inv(b)
        singular = ~be.xp.isfinite(norm(be, inverse))
        inverse = be.xp.where(singular[:, None, None], eye(be, b), inverse)
        root = coupled(be, a, inverse, rtol=rtol)
        failure = be.xp.where(singular, int(Failure.NOT_DEFINITE) + 0 * root.failure, root.failure)
        return root._replace(value=root.value[:1], failure=failure)

    found = be.split(definite, by_factors, by_blocks, a, b, k, low)
    failure = be.xp.where(found.failure > 0, int(Failure.NOT_DEFINITE) + 0 * found.failure, found.failure)
    return found._replace(value=(be.ldexp(found.value[0], column((ea + eb) // 2)),), failure=failure)


def _mean_residual(be: Backend, value: tuple[Array], a: Array, b: Array) -> Residual:
    a, b, ea, eb = _normalise_pair(be, a, b)
    g = be.ldexp(value[0], column(-((ea + eb) // 2)))
    left, right = adjoint(be.solve(adjoint(b), adjoint(g))), be.solve(b, g)
    gap = a - left @ g
    step = separable_sylvester(be, away(be, left), away(be, right), gap)
    return Residual(norm(be, gap) / nonzero(be, norm(be, a)), (be.ldexp(step, column((ea + eb) // 2)),))


def _mean_tangent(be: Backend, value: Arrays, arrays: Arrays, moves: Arrays, **_: Any) -> Arrays:
    """V dG + dG W = dA + V dB W with V = G B⁻¹ and W = B⁻¹ G, the adjoint of V for a Hermitian pair."""
    (g,), (_a, b), (da, db) = value, arrays, moves
    back = inverse(be, b)
    v, w = g @ back, back @ g
    return (separable(be, v, w, da + v @ db @ w),)


def _mean_cotangent(be: Backend, value: Arrays, arrays: Arrays, bars: Arrays, **_: Any) -> Arrays:
    (g,), back = value, inverse(be, arrays[1])
    v, w = adjoint(g @ back), adjoint(back @ g)
    y = separable(be, v, w, *bars)
    return y, v @ y @ w


@declared(
    "(n,n),(n,n)->(n,n)",
    solve=_mean,
    residual=_mean_residual,
    tangent=_mean_tangent,
    cotangent=_mean_cotangent,
)
def geometric_mean(A: Array, B: Array, *, rtol: float | None = None, errors: str = "raise") -> Array:
    """A # B = A (A⁻¹B)^{1/2}: the geometric mean, the solution of G B⁻¹ G = A; symmetric in A and B.

    Parameters
    ----------
    A, B : arrays (..., n, n), float32, float64, complex64 or complex128; Hermitian positive definite, or any pair for which
        B⁻¹A has no eigenvalue on the closed negative real axis
    rtol : a singular value of at most ``rtol`` times the largest is zero; default n eps
    errors : "raise", or "nan" to get NaN for the members without an answer

    Notes
    -----
    Method: by the Cholesky factors of a definite pair and one SVD (cf. Bhatia 2007), else the sign of [[0, A], [B⁻¹, 0]]. Raises
    `SpectrumError` where there is no mean.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import geometric_mean
    >>> A, B = np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([[5.0, 0.0], [0.0, 1.0]])
    >>> G = geometric_mean(A, B)
    >>> bool(np.linalg.norm(G @ np.linalg.inv(B) @ G - A) < 1e-14)
    True
    """
    raise NotImplementedError
