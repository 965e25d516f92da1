"""The leading singular values and vectors of a matrix that moves slowly, with those of an earlier one as the start.

The rule for their derivatives, `warm_svd_derivatives`, does not know the start: derivatives by the state, and of it, are zero.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from matsign._typing import Array, ArrayLike, Arrays, Generic, OptionalArrayLike, T
from matsign.backends import Backend
from matsign.core.options import short_repr
from matsign.core.public import Residual, public_function
from matsign.functions.polar.warm_msign import refuse_result
from matsign.functions.singular.warm_svd_derivatives import cotangent, tangent
from matsign.functions.singular.warm_svd_methods import solve_warm_svd, state_columns
from matsign.linalg.stacks import adjoint, eye, rounding_probe, safe_divisor, scale_to_unit


class LeadingSVD(NamedTuple, Generic[T]):
    """Hold leading singular values and vectors, and the start for the next matrix.

    The result of `warm_svd`: a named tuple, so ``u, s, vh, state = warm_svd(M, k)`` works.

    Attributes
    ----------
    u : array (..., n, k)
        The left singular vectors as columns.
    s : array (..., k)
        The singular values, the largest one first.
    vh : array (..., k, m)
        The right singular vectors as conjugated rows.
    state : array (..., min(n, m), p)
        The start for the next matrix.

    See Also
    --------
    warm_svd : Compute it.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import warm_svd
    >>> result = warm_svd(np.diag([3.0, 2.0, 1.0]), 2)
    >>> result._fields, result.s.round(12)
    (('u', 's', 'vh', 'state'), array([3., 2.]))
    """

    u: T
    s: T
    vh: T
    state: T


def _check(M: Any, k: Any, state: Any) -> None:
    """Raise an error for a k that is no positive integer, and for a k or a state that does not fit the matrix."""
    refuse_result("warm_svd", state)
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise ValueError(f"warm_svd: k must be an integer of at least 1, got {short_repr(k)}")
    shape = tuple(getattr(M, "shape", None) or np.shape(M))
    if len(shape) < 2:
        return  # no matrix, which is reported with the other checks
    rows = min(shape[-2:])
    if k > rows:
        raise ValueError(f"warm_svd: k must be at most {rows} for {shape[-2]} x {shape[-1]} matrices, got {k}")
    given = (rows, k) if state is None else tuple(getattr(state, "shape", None) or np.shape(state))
    if len(given) < 2 or given[-2] != rows or not k <= given[-1] <= rows:
        raise ValueError(
            f"warm_svd: state must have the shape (..., {rows}, p) of a state for {shape[-2]} x {shape[-1]} matrices, "
            f"{k} <= p <= {rows}, got {given}"
        )


def _sizes(known: dict[str, int], *, k: int, **_: Any) -> dict[str, int]:
    smaller = min(known["n"], known["m"])
    return {"q": smaller, "p": known.get("p", state_columns(smaller, k)), "k": k}


def _residual(backend: Backend, value: Arrays, m: Array, state: Array | None, *, k: int) -> Residual:
    """‖M V - U S‖ and ‖Mᴴ U - V S‖, the loss of orthogonality, and by how much the rest of M exceeds S."""
    (u, s, vh, start), v = value, adjoint(value[2])
    scaled, e = scale_to_unit(backend, m)
    near = backend.ldexp(s, -e[..., None])[..., None, :]
    right, left = scaled @ v - u * near, adjoint(scaled) @ u - v * near
    size = safe_divisor(backend, backend.norm(scaled))
    largest = backend.svd(scaled - (u * near) @ vh)[1][..., 0]
    excess = backend.xp.maximum(largest - near[..., 0, -1], 0 * size)
    skew = [backend.norm(adjoint(x) @ x - eye(backend, x)) / k**0.5 for x in (u, v)]
    backward = 0 * size
    for gap in (backend.norm(right) / size, backend.norm(left) / size, excess / size, *skew):
        backward = backend.xp.maximum(backward, gap)
    outside = left - v @ (adjoint(v) @ left)
    change = right @ vh + u @ adjoint(outside) + rounding_probe(backend, scaled, size)
    du, ds, dvh, _ = tangent(backend, (u, near[..., 0, :], vh, start), (scaled, state), (change, None), k=k)
    return Residual(backward, (du, backend.ldexp(ds, e[..., None]), dvh, backend.xp.zeros_like(start)))


def _has_no_gap(backend: Backend, value: Arrays, m: Array, state: Array | None) -> Array:
    """The members with equal singular values, or with others that equal the last one: their vectors are arbitrary."""
    u, s, vh, _ = value
    scaled, e = scale_to_unit(backend, m)
    near = backend.ldexp(s, -e[..., None])
    rest = backend.svd(scaled - (u * near[..., None, :]) @ vh)[1][..., :1]
    values = backend.xp.concat([near, rest], axis=-1) if s.shape[-1] < min(m.shape[-2:]) else near
    rounding = max(m.shape[-2:]) * backend.eps(m)
    gaps = values[..., :-1] - values[..., 1:]
    return (gaps <= rounding * values[..., :1]).any(-1) | ~(near[..., -1] > rounding * near[..., 0])


def warm_svd(
    M: ArrayLike[T],
    k: int,
    *,
    state: OptionalArrayLike[T] = None,
    tol: float | None = None,
    errors: str = "raise",
) -> LeadingSVD[T]:
    """Compute the leading singular values and vectors of a matrix that moves slowly, from the state of an earlier one.

    The result is that of a singular value decomposition to within ``tol``, whatever the state is: one that is too far
    away costs time and no accuracy.

    Parameters
    ----------
    M : array_like (..., n, m)
        Matrices of any shape and rank, of dtype float32, float64, complex64 or complex128.
    k : int
        The number of singular values, at least 1 and at most min(n, m).
    state : array_like (..., min(n, m), p), optional
        The ``state`` of the result for an earlier matrix of this shape, p ≥ k. Default: no start; the result is that of
        a singular value decomposition, and p = k + max(k // 2, 8), at most min(n, m).
    tol : float, optional
        The backward error that is allowed: the result is exact for a matrix whose distance from M, relative and in the
        Frobenius norm, is about this. Default, and the smallest value: 8 √max(n, m) eps.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no answer: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    u : array (..., n, k)
        The left singular vectors as columns, in the library, on the device and in the dtype of M.
    s : array (..., k)
        The singular values, the largest one first.
    vh : array (..., k, m)
        The right singular vectors as conjugated rows.
    state : array (..., min(n, m), p)
        The start for the next matrix: p leading right singular vectors of M if n ≥ m, otherwise left ones. All are the
        fields of the named tuple `LeadingSVD`.

    Raises
    ------
    SpectrumError
        If a member holds NaN or infinity, and ``errors="raise"``.
    ValueError
        If a shape does not fit, an option has a value other than those above, or ``tol`` is below what the dtype can
        hold.
    TypeError
        If M is not a dense array of numbers of a supported dtype, the arrays belong to different libraries, or the state is
        complex for real M, or a whole result.

    See Also
    --------
    warm_soft_threshold : Without the choice of a number of singular values.
    warm_msign : The function of all singular vectors.

    Notes
    -----
    The p - k further vectors of the state make the steps short. The method is that of `warm_soft_threshold`: Newton's
    method squares the error of the vectors, and ‖MᴴU - V S‖ bounds the backward error. That no other singular value is
    above the last one is tested by a Cholesky factor of s² I - GᴴG, where G = M - U S Vᴴ. A member for which a test
    fails is computed by a singular value decomposition, and the others are not. It saves time where k is small compared
    with min(n, m), for sizes of some hundreds and more; docs/howto/slow_matrices.md has the time by speed of the motion.

    With a state the signs of the vectors, or the phases of complex ones, follow it: they do not jump from one matrix to
    the next. Vectors of equal singular values are arbitrary.

    The state is an array of fixed shape, so that the function can be the body of ``jax.lax.scan``. Zeros are a cold
    start, and their number of columns chooses p.

    Derivatives of ``u``, ``s`` and ``vh`` do not depend on the state, and those of ``state``, and by the given state,
    are zero. They exist where the singular values are distinct and positive, and the last one is above the rest of M;
    where some of the k values are equal, they are right for functions that do not depend on the choice of their
    vectors, such as u diag(s) vh. A member of a batch gives the same bits as in a call by itself. Under ``jax.jit`` no
    error can be raised: a member without an answer is NaN.

    The backward error of `certify` is the largest of ‖M V - U S‖ / ‖M‖, ‖MᴴU - V S‖ / ‖M‖, the loss of orthogonality, and the
    share of ‖M‖ by which another singular value is above the last one.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import warm_svd
    >>> M = np.diag([9.0, 5.0, 2.0, 1.0, 0.5])
    >>> u, s, vh, state = warm_svd(M, 2)
    >>> M[0, 1] += 1e-3
    >>> u, s, vh, state = warm_svd(M, 2, state=state)
    >>> bool(np.linalg.norm(s - np.linalg.svd(M)[1][:2]) < 1e-13)
    True
    """
    _check(M, k, state)
    return WARM_SVD(M, state, k=int(k), tol=tol, errors=errors)


WARM_SVD = public_function(
    warm_svd,
    "(n,m),(q,p)->(n,k),(k),(k,m),(q,p)",
    solve=solve_warm_svd,
    residual=_residual,
    tangent=tangent,
    cotangent=cotangent,
    unbounded=_has_no_gap,
    keyword_arrays=("state",),
    kinds=("same", "real", "same", "same"),
    sizes=_sizes,
    guesses=(1,),
    wrap=lambda backend, u, s, vh, state: LeadingSVD(u, s, vh, backend.stop_gradient(state)),
)
