"""mclip and soft_threshold of a matrix that moves slowly, with the singular vectors of an earlier one as the start.

With R(M, dM, dt) the rule of `proximal_derivatives`, which does not know the start:

tangent(M, state, t, dM, ·, dt):
    return R(M, dM, dt), 0

cotangent(M, state, t, X̄, ·):
    M̄, t̄ = R(M, X̄)
    return M̄, 0, t̄
"""

from __future__ import annotations

from typing import Any

import numpy as np

from matsign._typing import Array, ArrayLike, Arrays, NumberLike, OptionalArrayLike, T
from matsign.backends import Backend
from matsign.core.options import short_repr
from matsign.core.public import Residual, public_function
from matsign.functions.polar.warm_msign import WarmResult, refuse_result, with_state
from matsign.functions.proximal.certificates import clip_residual, soft_residual
from matsign.functions.proximal.derivatives import clip_cotangent, clip_tangent, soft_cotangent, soft_tangent
from matsign.functions.proximal.methods import Threshold
from matsign.functions.proximal.warm_methods import solve_warm_clip, solve_warm_soft, state_columns


def _check(name: str, M: Any, state: Any, rank: Any) -> None:
    """Raise an error for a rank that is no positive integer, and a state that does not fit the matrix."""
    refuse_result(name, state)
    if rank is not None and (isinstance(rank, bool) or not isinstance(rank, (int, np.integer)) or rank < 1):
        raise ValueError(f"{name}: rank must be an integer of at least 1, got {short_repr(rank)}")
    if state is None:
        return
    shape, given = (tuple(getattr(x, "shape", None) or np.shape(x)) for x in (M, state))
    if len(shape) < 2:
        return  # no matrix, which is reported with the other checks
    rows = min(shape[-2:])
    if len(given) < 2 or given[-2] != rows or not min(rows, 1) <= given[-1] <= rows:
        raise ValueError(
            f"{name}: state must have the shape (..., {rows}, p) of a state for {shape[-2]} x {shape[-1]} matrices, "
            f"1 <= p <= {rows}, got {given}"
        )


def _sizes(known: dict[str, int], *, rank: int | None, **_: Any) -> dict[str, int]:
    smaller = min(known["n"], known["m"])
    return {"k": smaller, "p": known.get("p", state_columns(smaller, rank))}


def _with_state(backend: Backend, residual: Residual, value: Arrays) -> Residual:
    """The residual of a result without a state, which is not right or wrong."""
    nothing = backend.xp.zeros_like(value[1])
    return residual._replace(
        correction=(*residual.correction, nothing), zero=(*(residual.zero or ()), backend.xp.ones_like(value[1]))
    )


def _soft_residual(backend: Backend, value: Arrays, m: Array, state: Array | None, *, t: Threshold) -> Residual:
    return _with_state(backend, soft_residual(backend, (value[0],), m, t=t, method="auto"), value)


def _soft_tangent(
    backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, t: Threshold, **_: Any
) -> Arrays:
    (dx,) = soft_tangent(backend, value[:1], arrays[:1], (tangents[0], tangents[2]), t=t)
    return dx, backend.xp.zeros_like(value[1])


def _soft_cotangent(
    backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, t: Threshold, **_: Any
) -> Arrays:
    bar_m, bar_t = soft_cotangent(backend, value[:1], arrays[:1], cotangents[:1], t=t)
    return bar_m, None if arrays[1] is None else backend.xp.zeros_like(arrays[1]), bar_t


def _clip_residual(backend: Backend, value: Arrays, m: Array, state: Array | None, *, upper: Threshold) -> Residual:
    residual = clip_residual(backend, (value[0],), m, lower=0.0, upper=upper, rtol=None, method="auto")
    return _with_state(backend, residual, value)


def _clip_tangent(
    backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, upper: Threshold, **_: Any
) -> Arrays:
    directions = tangents[0], None, tangents[2]
    (dx,) = clip_tangent(backend, value[:1], arrays[:1], directions, lower=0.0, upper=upper, rtol=None)
    return dx, backend.xp.zeros_like(value[1])


def _clip_cotangent(
    backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, upper: Threshold, **_: Any
) -> Arrays:
    bar_m, _, bar_t = clip_cotangent(backend, value[:1], arrays[:1], cotangents[:1], lower=0.0, upper=upper, rtol=None)
    return bar_m, None if arrays[1] is None else backend.xp.zeros_like(arrays[1]), bar_t


def warm_soft_threshold(
    M: ArrayLike[T],
    t: NumberLike[T],
    *,
    state: OptionalArrayLike[T] = None,
    rank: int | None = None,
    tol: float | None = None,
    errors: str = "raise",
) -> WarmResult[T]:
    """Compute soft_threshold of a matrix that moves slowly, from the state that the call for an earlier one returned.

    The result is soft_threshold(M, t) to within ``tol``, whatever the state is: one that is too far away costs time and
    no accuracy. It saves time where few singular values, fewer than the state has columns, are above ``t``.

    Parameters
    ----------
    M : array_like (..., n, m)
        Matrices of any shape and rank, of dtype float32, float64, complex64 or complex128.
    t : float or array_like (...)
        The threshold, at least 0: one number, or an array with one for every member, whose axes broadcast with the
        leading axes of M. It may differ from that of the call before.
    state : array_like (..., k, p), optional
        The ``state`` of the result for an earlier matrix of this shape, k = min(n, m). Default: no start; the result is
        that of a singular value decomposition.
    rank : int, optional
        The number p of singular vectors in the state of a call without a state; any number above k counts as k. A few
        more than are above ``t`` make a step shorter. Default: k // 16 + 8.
    tol : float, optional
        The error that is allowed, in the Frobenius norm and relative to that of M. Default, and the smallest value: 8
        √max(n, m) eps.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no answer: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    value : array (..., n, m)
        The soft_threshold of M, in the library, on the device and in the dtype of M.
    state : array (..., k, p)
        The start for the next matrix: the leading right singular vectors of M if n ≥ m, otherwise the left ones. Both
        are the fields of the named tuple `WarmResult`.

    Raises
    ------
    SpectrumError
        If a threshold in an array is negative or NaN, or a member holds NaN or infinity, and ``errors="raise"``.
    ValueError
        If a threshold that is a number is negative, a shape does not fit, an option has a value other than those above,
        or ``tol`` is below what the dtype can hold.
    TypeError
        If M is not a dense array of numbers of a supported dtype, a threshold in an array is not real, the arrays belong to
        different libraries, or the state is complex for real M, or a whole result.

    See Also
    --------
    soft_threshold : Without a start.
    warm_mclip : The other part of M.

    Notes
    -----
    Only the singular vectors with values above t are needed. From those of an earlier matrix, Newton's method squares
    their error in each step; each step is an equation that the conjugate gradient method solves by products of M with p
    columns (the block form of the Jacobi-Davidson method [1]_). The residual of the singular vectors bounds the error of
    the result, as soft thresholding is nonexpansive. That no other singular value is above t is tested by a Cholesky
    factor of t² I - GᴴG, where G is M without the part above t; this costs one product.

    A member for which a test fails is computed by a singular value decomposition, and the others are not: one with more
    than p - 1 values above t, a state that holds NaN or no orthonormal columns, or a matrix that has moved too far.
    docs/howto/slow_matrices.md has the time by speed of the motion.

    The state is an array of fixed shape, so that the function can be the body of ``jax.lax.scan``; zeros are a cold
    start.

    Derivatives of ``value`` are those of `soft_threshold`, and those of ``state``, and by the given state, are zero. A
    member of a batch gives the same bits as in a call by itself. Under ``jax.jit`` no error can be raised: a member
    without an answer is NaN.

    The backward error of `certify` is that of `soft_threshold`, and ``iterations`` is 0 for a cold start.

    References
    ----------
    .. [1] G. L. G. Sleijpen and H. A. van der Vorst, "A Jacobi-Davidson iteration method for linear eigenvalue
       problems", SIAM J. Matrix Anal. Appl. 17, 1996, pp. 401-425.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import soft_threshold, warm_soft_threshold
    >>> M = np.diag([9.0, 5.0, 0.5, 0.25, 0.125, 0.0])
    >>> X, state = warm_soft_threshold(M, 1.0, rank=3)
    >>> M[0, 1] += 1e-3
    >>> X, state = warm_soft_threshold(M, 1.0, state=state)
    >>> bool(np.linalg.norm(X - soft_threshold(M, 1.0)) < 1e-13)
    True
    """
    _check("warm_soft_threshold", M, state, rank)
    return WARM_SOFT_THRESHOLD(M, state, t=t, rank=rank, tol=tol, errors=errors)


def warm_mclip(
    M: ArrayLike[T],
    upper: NumberLike[T] = 1.0,
    *,
    state: OptionalArrayLike[T] = None,
    rank: int | None = None,
    tol: float | None = None,
    errors: str = "raise",
) -> WarmResult[T]:
    """Compute mclip of a matrix that moves slowly, from the state that the call for an earlier one returned.

    The result is mclip(M, 0, upper) to within ``tol``, whatever the state is: one that is too far away costs time and no
    accuracy. It saves time where few singular values, fewer than the state has columns, are above ``upper``.

    Parameters
    ----------
    M : array_like (..., n, m)
        Matrices of any shape and rank, of dtype float32, float64, complex64 or complex128.
    upper : float or array_like (...), default 1.0
        The largest singular value of the result, at least 0: one number, or an array with one for every member, whose
        axes broadcast with the leading axes of M; it may be infinite, and may differ from that of the call before.
    state : array_like (..., k, p), optional
        The ``state`` of the result for an earlier matrix of this shape, k = min(n, m). Default: no start; the result is
        that of a singular value decomposition.
    rank : int, optional
        The number p of singular vectors in the state of a call without a state; any number above k counts as k. A few
        more than are above ``upper`` make a step shorter. Default: k // 16 + 8.
    tol : float, optional
        The error that is allowed, in the Frobenius norm and relative to that of M. Default, and the smallest value: 8
        √max(n, m) eps.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no answer: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    value : array (..., n, m)
        The mclip of M, in the library, on the device and in the dtype of M.
    state : array (..., k, p)
        The start for the next matrix: the leading right singular vectors of M if n ≥ m, otherwise the left ones. Both
        are the fields of the named tuple `WarmResult`.

    Raises
    ------
    SpectrumError
        If a threshold in an array is negative or NaN, or a member holds NaN or infinity, and ``errors="raise"``.
    ValueError
        If a threshold that is a number is negative, a shape does not fit, an option has a value other than those above,
        or ``tol`` is below what the dtype can hold.
    TypeError
        If M is not a dense array of numbers of a supported dtype, a threshold in an array is not real, the arrays belong to
        different libraries, or the state is complex for real M, or a whole result.

    See Also
    --------
    mclip : Without a start, and with a lower bound as well.
    warm_soft_threshold : The other part of M.

    Notes
    -----
    The result is M less its `soft_threshold` at ``upper``. The method, its tests and its state are those of
    `warm_soft_threshold`, and a state of one function serves the other. Lower bounds above 0 need all singular vectors,
    which is a task for `mclip`.

    Derivatives of ``value`` are those of `mclip`, and those of ``state``, and by the given state, are zero. A member of
    a batch gives the same bits as in a call by itself. Under ``jax.jit`` no error can be raised: a member without an
    answer is NaN.

    The backward error of `certify` is that of `mclip`, and ``iterations`` is 0 for a cold start.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import mclip, warm_mclip
    >>> M = np.diag([9.0, 5.0, 0.5, 0.25, 0.125, 0.0])
    >>> X, state = warm_mclip(M, rank=3)
    >>> M[0, 1] += 1e-3
    >>> X, state = warm_mclip(M, state=state)
    >>> bool(np.linalg.norm(X - mclip(M)) < 1e-13)
    True
    """
    _check("warm_mclip", M, state, rank)
    return WARM_MCLIP(M, state, upper=upper, rank=rank, tol=tol, errors=errors)


WARM_SOFT_THRESHOLD = public_function(
    warm_soft_threshold,
    "(n,m),(k,p)->(n,m),(k,p)",
    solve=solve_warm_soft,
    residual=_soft_residual,
    tangent=_soft_tangent,
    cotangent=_soft_cotangent,
    numbers=("t",),
    keyword_arrays=("state",),
    sizes=_sizes,
    guesses=(1,),
    wrap=with_state,
)


WARM_MCLIP = public_function(
    warm_mclip,
    "(n,m),(k,p)->(n,m),(k,p)",
    solve=solve_warm_clip,
    residual=_clip_residual,
    tangent=_clip_tangent,
    cotangent=_clip_cotangent,
    numbers=("upper",),
    keyword_arrays=("state",),
    sizes=_sizes,
    guesses=(1,),
    wrap=with_state,
)
