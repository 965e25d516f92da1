"""Hankel singular values of a system ẋ = a x + b u, y = c x, or x⁺ = a x + b u, y = c x in discrete time.

With factors of the Gramians, a x + x aᴴ + b bᴴ = 0 for x = z zᴴ and aᴴ w + w a + cᴴ c = 0 for w = y yᴴ (in discrete time
a x aᴴ - x + b bᴴ = 0 and aᴴ w a - w + cᴴ c = 0), the Hankel singular
values are the singular values of yᴴ z (Laub, Heath, Paige & Ward 1987; Tombs & Postlethwaite 1987): the square roots of the
eigenvalues of x w without forming either, which would square their range.
`equations.reduction.derivatives` states the differential.
"""

from __future__ import annotations

from typing import overload

from matsign._typing import Array, ArrayLike, Arrays, NDArray, OptionalArrayLike, StateSpace, T, VectorLike
from matsign.backends import Backend
from matsign.core import scaling
from matsign.core.objects import takes_model
from matsign.core.public import public_function
from matsign.equations.reduction.balancing import Balancing, cotangent_of_model, tangent_of_model
from matsign.equations.reduction.certificates import hankel_residual
from matsign.equations.reduction.derivatives import gramians_jvp, gramians_vjp
from matsign.equations.reduction.methods import solve_hankel
from matsign.equations.reduction.pair_balancing import values_jvp as stable_values_jvp
from matsign.equations.reduction.pair_balancing import values_vjp as stable_values_vjp
from matsign.equations.reduction.times import check_sampling_time
from matsign.equations.reduction.truncation_derivatives import values_jvp, values_vjp


def _tangent(backend: Backend, at: Balancing, tangents: Arrays) -> Arrays:
    _, of_stable = at.split_jvp(backend, tangents)
    gramians = gramians_jvp(backend, at.time, at.stable, of_stable)
    return (values_jvp(backend, at.kept, stable_values_jvp(backend, at.at, *gramians)),)


def _cotangent(backend: Backend, at: Balancing, cotangents: Arrays) -> Arrays:
    bars = stable_values_vjp(at.at, values_vjp(backend, at.kept, cotangents[0]))
    by_stable = gramians_vjp(backend, at.time, at.stable, *bars)
    return at.split_vjp(backend, backend.xp.zeros_like(at.model[0]), by_stable)


def _powers(half: Array, of_b: Array, of_c: Array) -> scaling.Powers:
    return scaling.Powers((2 * half, of_b, of_c), (of_b + of_c - 2 * half,))


@overload
def hankel_singular_values(
    a: ArrayLike[T],
    b: VectorLike[T],
    c: VectorLike[T],
    *,
    e: OptionalArrayLike[T] = None,
    dt: float | None = None,
    errors: str = "raise",
) -> T: ...
@overload
def hankel_singular_values(
    sys: StateSpace,
    /,
    *,
    e: OptionalArrayLike[NDArray] = None,
    dt: float | None = None,
    errors: str = "raise",
) -> NDArray: ...
@takes_model("ABC", discrete=None, keywords=("dt",))
def hankel_singular_values(
    a: ArrayLike[T],
    b: VectorLike[T],
    c: VectorLike[T],
    *,
    e: OptionalArrayLike[T] = None,
    dt: float | None = None,
    errors: str = "raise",
) -> T:
    """Compute the Hankel singular values of a linear system.

    For the stable system ẋ = a x + b u, y = c x, or x⁺ = a x + b u, y = c x in discrete time, they are the square roots
    of the eigenvalues of the product of the two Gramians. They show how many states a reduced model needs.

    Parameters
    ----------
    a : array_like (..., n, n)
        System matrices; float32, float64, complex64 or complex128.
    b : array_like (..., n, m)
        Input matrices.
    c : array_like (..., p, n)
        Output matrices.
    e : array_like (..., n, n), optional
        Descriptor matrices, invertible, of the model e ẋ = a x + b u or e x⁺ = a x + b u. Default: I.
    dt : float, optional
        The sampling time of a model in discrete time, any positive number or True. Default: None, continuous time, as 0.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no answer: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    sigma : array (..., n)
        The Hankel singular values, real, the largest first: infinite for each pole that is not stable, then those of
        the stable part of the model.

    Raises
    ------
    SpectrumError
        If rounding decides which poles are stable, if e is singular (the message has its reciprocal condition number),
        or if a member holds NaN or infinity, and ``errors="raise"``.
    ValueError
        If a shape does not fit, an option has a value other than those above, or the arrays lie on different devices.
    TypeError
        If an argument is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    balanced_truncation : A reduced model.
    lyapunov_factor : A factor of one Gramian.

    Notes
    -----
    With the Gramians x and w::

        a x + x aᴴ + b bᴴ = 0,    aᴴ w + w a + cᴴ c = 0,    σₖ = √λₖ(x w),
        a x aᴴ - x + b bᴴ = 0,    aᴴ w a - w + cᴴ c = 0    in discrete time.

    They are computed as the singular values of yᴴ z for factors x = z zᴴ and w = y yᴴ [1]_, without forming x or w;
    both factors come from one inverse. They are accurate to rounding relative to the first one.

    A model that is not stable is split first, as for `balanced_truncation`; MATLAB's ``hsvd`` reports infinite values,
    too, and python-control refuses such models.

    The derivatives of values at the level of rounding are zero; second derivatives need values that are simple. A
    member of a batch gives the same bits as in a call by itself. Under ``jax.jit`` no error can be raised: a member
    without an answer is NaN.

    The backward error of `certify` is the larger one of the two Gramians, each as for `lyapunov_factor`, in the scaling
    that balances a.

    ``hankel_singular_values(sys)`` takes the matrices and the kind of time of a model ``sys``, a
    ``scipy.signal.StateSpace`` or a ``control.StateSpace``. A vector as b is a column, as c a row.

    References
    ----------
    .. [1] A. J. Laub, M. T. Heath, C. C. Paige and R. C. Ward, "Computation of system balancing transformations and
       other applications of simultaneous diagonalization algorithms", IEEE Trans. Automat. Control 32(2), 1987, pp.
       115-122, doi:10.1109/TAC.1987.1104549.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import hankel_singular_values, solve_continuous_lyapunov
    >>> a, b, c = np.array([[-1.0, 2.0], [0.0, -3.0]]), np.array([[1.0], [1.0]]), np.array([[1.0, 1.0]])
    >>> x, w = solve_continuous_lyapunov(a, -b @ b.T), solve_continuous_lyapunov(a.T, -c.T @ c)
    >>> sigma = hankel_singular_values(a, b, c)
    >>> bool(np.linalg.norm(np.sort(np.linalg.eigvals(x @ w).real)[::-1] - sigma**2) < 1e-14)
    True
    """
    return HANKEL_SINGULAR_VALUES(a, b, c, e, dt=dt, errors=errors)


HANKEL_SINGULAR_VALUES = public_function(
    hankel_singular_values,
    "(n,n),(n,m),(p,n),(n,n)->(n)",
    keyword_arrays=("e",),
    kinds=("real",),
    solve=solve_hankel,
    residual=hankel_residual,
    tangent=tangent_of_model(_powers, _tangent),
    cotangent=cotangent_of_model(_powers, _cotangent),
    check=lambda dt: check_sampling_time("hankel_singular_values", dt),
    columns=("b",),
    rows=("c",),
)
