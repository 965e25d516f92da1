"""msign of a matrix that moves slowly, with the singular vectors of an earlier one as the start.

With R(M, dM) the rule of `polar_derivatives`, which does not know the start:

tangent(M, state, dM, ·):
    return R(M, dM), 0

cotangent(M, state, Ū, ·):
    return R(M, Ū), 0
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from matsign._typing import Array, ArrayLike, Arrays, Generic, OptionalArrayLike, T
from matsign.backends import Backend
from matsign.core.public import Residual, public_function
from matsign.functions.polar.certificates import msign_residual
from matsign.functions.polar.derivatives import msign_tangent
from matsign.functions.polar.warm_methods import warm_or_cold


class WarmResult(NamedTuple, Generic[T]):
    """Hold a result and the start for the next matrix.

    The result of `warm_msign`, `warm_mclip` and `warm_soft_threshold`: a named tuple, so ``U, state = warm_msign(M)``
    works.

    Attributes
    ----------
    value : array (..., n, m)
        The result for this matrix.
    state : array
        The start for the next matrix, whose shape depends on the function.

    See Also
    --------
    warm_msign : Compute it.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import warm_msign
    >>> result = warm_msign(np.array([[3.0, 0.0], [0.0, 0.5]]))
    >>> result._fields, result.state.shape
    (('value', 'state'), (4, 2))
    """

    value: T
    state: T


def with_state(backend: Backend, value: Array, state: Array) -> WarmResult[Any]:
    """The public result. Its state is a constant: a graph through it would hold the graphs of all earlier calls."""
    return WarmResult(value, backend.stop_gradient(state))


def refuse_result(name: str, state: Any) -> None:
    """Raise a TypeError if the state is the whole result of a call."""
    if isinstance(state, tuple) and hasattr(state, "state"):
        raise TypeError(f"{name}: state is a whole {type(state).__name__}; pass its field state")


def _tangent(
    backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, rtol: float | None, **_: Any
) -> Arrays:
    (du,) = msign_tangent(backend, value[:1], arrays[:1], tangents[:1], tol=None, rtol=rtol, method="auto")
    return du, backend.xp.zeros_like(value[1])


def _cotangent(
    backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, rtol: float | None, **_: Any
) -> Arrays:
    (bar,) = msign_tangent(backend, value[:1], arrays[:1], cotangents[:1], tol=None, rtol=rtol, method="auto")
    return bar, None if arrays[1] is None else backend.xp.zeros_like(arrays[1])


def _residual(backend: Backend, value: Arrays, m: Array, state: Array | None) -> Residual:
    """That of msign; a state is not right or wrong."""
    result = msign_residual(backend, (value[0],), m)
    return result._replace(correction=(*result.correction, backend.xp.zeros_like(value[1])))


def _check_state(M: Any, state: Any) -> None:
    """Raise an error if the last two axes of a state do not fit the matrix."""
    refuse_result("warm_msign", state)
    shape, given = (tuple(getattr(x, "shape", None) or np.shape(x)) for x in (M, state))
    if len(shape) < 2:
        return  # no matrix, which is reported with the other checks
    wanted = sum(shape[-2:]), min(shape[-2:])
    if given[-2:] != wanted:
        raise ValueError(
            f"warm_msign: state must have the shape (..., {wanted[0]}, {wanted[1]}) of a state for "
            f"{shape[-2]} x {shape[-1]} matrices, got {given}"
        )


def warm_msign(
    M: ArrayLike[T],
    state: OptionalArrayLike[T] = None,
    *,
    tol: float | None = None,
    rtol: float | None = None,
    errors: str = "raise",
) -> WarmResult[T]:
    """Compute msign of a matrix that moves slowly, from the state that the call for an earlier one returned.

    The result is msign(M) to within ``tol``, whatever the state is: one that is too far away costs time and no
    accuracy.

    Parameters
    ----------
    M : array_like (..., n, m)
        Matrices of any shape and rank, of dtype float32, float64, complex64 or complex128.
    state : array_like (..., n + m, k), optional
        The ``state`` of the result for an earlier matrix of this shape, k = min(n, m). Default: no start; the result
        is that of a singular value decomposition.
    tol : float, optional
        The backward error that is allowed: the result is exact for a matrix whose relative distance from M is about
        this. Default, and the smallest value: 8 √max(n, m) eps.
    rtol : float, optional
        A singular value of at most ``rtol`` times the largest one counts as zero and stays zero. Default: max(n, m)
        eps.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no answer: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    value : array (..., n, m)
        The msign of M, in the library, on the device and in the dtype of M.
    state : array (..., n + m, k)
        The start for the next matrix: the k columns of [U; V], with msign(M) = U Vᴴ. Both are the fields of the named
        tuple `WarmResult`.

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
    msign : Without a start.

    Notes
    -----
    With the singular vectors of an earlier matrix, T = Uᴴ M V is nearly diagonal, and its unitary factor follows entry
    by entry, without any gap between singular values; each step squares the error. One step costs four products, each
    further one three, where `msign` costs as much as 16 to 30. Each member takes one to three steps. The result is
    then checked with eight fixed random vectors: whether it is an isometry and UᴴM V Hermitian, to within ``tol``; and
    the entries of T must show that UᴴMV is positive definite. A member for which one of these fails is computed by a
    singular value decomposition, and the others are not; so are rank-deficient ones, those with states that hold NaN
    or no orthonormal vectors, and those that have moved too far. docs/howto/slow_matrices.md has the time by speed of
    the motion.

    The state is an array of fixed shape, so that the function can be the body of ``jax.lax.scan``. Vectors of equal
    singular values and signs are arbitrary in it.

    Derivatives of ``value`` are those of `msign`, and those of ``state``, and by the given state, are zero. A member of
    a batch gives the same bits as in a call by itself. Under ``jax.jit`` no error can be raised: a member without an
    answer is NaN.

    The backward error of `certify` and its measures ``orthogonality``, ``dual_gap`` and ``overshoot`` are those of
    `msign`.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import msign, warm_msign
    >>> M = np.array([[3.0, 1.0], [4.0, 2.0], [0.0, 1.0]])
    >>> U, state = warm_msign(M)
    >>> M[0, 1] += 1e-5
    >>> U, state = warm_msign(M, state)
    >>> bool(np.linalg.norm(U - msign(M)) < 1e-14)
    True
    """
    if state is not None:
        _check_state(M, state)
    return WARM_MSIGN(M, state, tol=tol, rtol=rtol, errors=errors)


WARM_MSIGN = public_function(
    warm_msign,
    "(n,m),(p,k)->(n,m),(p,k)",
    measures=("orthogonality", "dual_gap", "overshoot"),
    solve=warm_or_cold,
    residual=_residual,
    tangent=_tangent,
    cotangent=_cotangent,
    sizes=lambda known, **_: {"p": known["n"] + known["m"], "k": min(known["n"], known["m"])},
    guesses=(1,),
    wrap=with_state,
)
