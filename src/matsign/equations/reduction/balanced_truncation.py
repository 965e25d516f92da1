"""Balanced truncation of a system ẋ = a x + b u, y = c x + d u, or x⁺ = a x + b u, y = c x + d u in discrete time.

The balancing projections (`equations.reduction.balancing`) make both Gramians equal to diag(S), S the Hankel singular values;
keeping only the states of the largest entries of S is balanced truncation (Moore 1981). `equations.reduction.projection` has the
two ways to leave out the other states, `equations.reduction.kept` the split of a model with poles that are not stable.
"""

from __future__ import annotations

from typing import overload

from matsign._typing import ArrayLike, Model, NDArray, OptionalArrayLike, T, VectorLike
from matsign.core.objects import takes_model
from matsign.core.public import public_function
from matsign.equations.reduction.certificates import truncate_residual
from matsign.equations.reduction.methods import reduced_order, solve_truncation
from matsign.equations.reduction.orders import check_reduction, order_by_bound
from matsign.equations.reduction.reduced_model import Reduced
from matsign.equations.reduction.truncation_derivatives import truncate_cotangent, truncate_tangent


@overload
def balanced_truncation(
    a: ArrayLike[T],
    b: VectorLike[T],
    c: VectorLike[T],
    order: int | None = None,
    *,
    d: OptionalArrayLike[T] = None,
    e: OptionalArrayLike[T] = None,
    tol: float | None = None,
    method: str = "truncate",
    dt: float | None = None,
    errors: str = "raise",
) -> Reduced[T]: ...
@overload
def balanced_truncation(
    sys: Model,
    /,
    order: int | None = None,
    *,
    e: OptionalArrayLike[NDArray] = None,
    tol: float | None = None,
    method: str = "truncate",
    dt: float | None = None,
    errors: str = "raise",
) -> Model: ...
@takes_model("ABC", discrete=None, keywords=("d", "dt"), returns_model=True)
def balanced_truncation(
    a: ArrayLike[T],
    b: VectorLike[T],
    c: VectorLike[T],
    order: int | None = None,
    *,
    d: OptionalArrayLike[T] = None,
    e: OptionalArrayLike[T] = None,
    tol: float | None = None,
    method: str = "truncate",
    dt: float | None = None,
    errors: str = "raise",
) -> Reduced[T]:
    """Reduce the number of states of a linear system.

    For the system ẋ = a x + b u, y = c x + d u, or x⁺ = a x + b u, y = c x + d u in discrete time: the model of the
    states that are most controllable and most observable. Poles that are not stable are kept.

    Parameters
    ----------
    a : array_like (..., n, n)
        System matrices; float32, float64, complex64 or complex128.
    b : array_like (..., n, m)
        Input matrices.
    c : array_like (..., p, n)
        Output matrices.
    order : int, optional
        The number r of states to keep, from 1 to n, which counts all poles that are not stable; choose it by the Hankel
        singular values. Either this or ``tol`` must be given.
    d : array_like (..., p, m), optional
        Direct terms. Default: 0.
    e : array_like (..., n, n), optional
        Descriptor matrices, invertible, of the model e ẋ = a x + b u or e x⁺ = a x + b u; the reduced model has e = I.
        Default: I.
    tol : float, optional
        A bound for the error of the transfer function: the order is the smallest one, at least 1, for which twice the
        sum of the distinct Hankel singular values left out is at most ``tol``. All members of a batch get the largest
        order that one of them needs.
    method : {"truncate", "matchdc"}, default "truncate"
        Whether the other states are left out, or replaced by their steady state ("matchdc"), which keeps the transfer
        function exactly at s = 0 (in discrete time at z = 1) and may change d; the names are those of python-control.
    dt : float, optional
        The sampling time of a model in discrete time, any positive number or True. Default: None, continuous time, as 0.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no answer: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    a : array (..., r, r)
        System matrices of the reduced models.
    b : array (..., r, m)
        Their input matrices.
    c : array (..., p, r)
        Their output matrices.
    d : array (..., p, m)
        Their direct terms.
    hsv : array (..., n)
        All Hankel singular values, the largest first, as `hankel_singular_values` returns them. The five are the fields
        of the named tuple `Reduced`.

    Raises
    ------
    SpectrumError
        If a has more poles that are not stable than ``order``, if rounding decides which poles are stable, if e is
        singular (the message has its reciprocal condition number), or if a member holds NaN or infinity, and
        ``errors="raise"``.
    ValueError
        If a shape does not fit, an option has a value other than those above, not exactly one of ``order`` and ``tol``
        is given, or the arrays lie on different devices; or if ``tol`` is given where the values are not at hand: under
        ``jax.jit`` or another transformation, for chunked or distributed arrays.
    TypeError
        If an argument is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    hankel_singular_values : The values alone.
    Reduced : The form of the result.

    Notes
    -----
    The method is square-root balanced truncation [1]_ [2]_ with factors of the Gramians. In continuous time with
    ``method="truncate"``, and in discrete time with "matchdc", both Gramians of the reduced model of a stable system are
    diag(hsv[:r]). The model is then stable, and its transfer function differs from that of the full model on the whole
    boundary of stability by at most twice the sum of the Hankel singular values left out, each distinct value counted
    once [3]_ [4]_; the bound holds in the two other cases, too [5]_ [6]_. States beyond the numerical rank of the system are
    decoupled from input and output.

    The steady state is kept by singular perturbation [5]_, from the inverse of a (in discrete time of a - I): without
    the balanced model of all states, whose small Hankel singular values would amplify rounding.

    If a is not stable, an ordered Schur form splits the model into the sum of a stable one, which is reduced, and one
    with the other poles, which come first in the result and are not changed; the error bound still holds. A pole then
    counts as not stable from a real part of -√eps times the largest modulus of a pole (in discrete time from a modulus
    of 1 - √eps), so that poles on the boundary, such as integrators, are kept. The bases of the kept part consist of
    columns and rows of the spectral projector, so that it changes smoothly with the model.

    The model is differentiable where the Hankel singular values of the stable part are simple, and no pole lies on the
    boundary of stability. In complex arithmetic the derivatives keep the largest entry of each column of the projection
    real. A member of a batch gives the same bits as in a call by itself. Under ``jax.jit`` no error can be raised: a
    member without an answer is NaN.

    The backward error of `certify` is the larger one of the two Gramians of the stable part, each as for
    `lyapunov_factor`, in the scaling that balances a.

    ``balanced_truncation(sys, order)`` takes the matrices and the kind of time of a model ``sys``, a
    ``scipy.signal.StateSpace`` or a ``control.StateSpace``, and returns a model of the same class with the same dt;
    `hankel_singular_values` has the values. A vector as b is a column, as c a row.

    References
    ----------
    .. [1] B. C. Moore, "Principal component analysis in linear systems: Controllability, observability, and model
       reduction", IEEE Trans. Automat. Control 26(1), 1981, pp. 17-32, doi:10.1109/TAC.1981.1102568.
    .. [2] M. S. Tombs and I. Postlethwaite, "Truncated balanced realization of a stable non-minimal state-space
       system", Int. J. Control 46(4), 1987, pp. 1319-1330, doi:10.1080/00207178708933971.
    .. [3] D. F. Enns, "Model reduction with balanced realizations: An error bound and a frequency weighted
       generalization", 23rd IEEE Conference on Decision and Control, 1984, pp. 127-132.
    .. [4] K. Glover, "All optimal Hankel-norm approximations of linear multivariable systems and their L∞-error
       bounds", Int. J. Control 39(6), 1984, pp. 1115-1193, doi:10.1080/00207178408933239.
    .. [5] Y. Liu and B. D. O. Anderson, "Singular perturbation approximation of balanced systems", Int. J. Control
       50(4), 1989, pp. 1379-1405, doi:10.1080/00207178908953437.
    .. [6] U. M. Al-Saggaf and G. F. Franklin, "An error bound for a discrete reduced order model of a linear
       multivariable system", IEEE Trans. Automat. Control 32(9), 1987, pp. 815-819.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import balanced_truncation
    >>> a = np.array([[-1.0, 2.0, 0.0], [0.0, -3.0, 1.0], [0.0, 0.0, -5.0]])
    >>> b, c = np.array([[1.0], [1.0], [1.0]]), np.array([[1.0, 0.0, 2.0]])
    >>> small = balanced_truncation(a, b, c, 2)
    >>> def transfer(s, a, b, c, d=0):
    ...     return (c @ np.linalg.solve(s * np.eye(len(a)) - a, b) + d)[0, 0]
    >>> gap = max(abs(transfer(1j * w, a, b, c) - transfer(1j * w, *small[:4])) for w in np.geomspace(1e-2, 1e2, 50))
    >>> bool(gap <= 2 * small.hsv[2:].sum() * (1 + 1e-12))
    True
    >>> steady = balanced_truncation(a, b, c, 2, method="matchdc")
    >>> bool(abs(transfer(0, *steady[:4]) - transfer(0, a, b, c)) < 1e-14)
    True

    An integrator beside a fast mode stays as it is:

    >>> small = balanced_truncation(np.diag([0.0, -1.0, -20.0]), np.ones((3, 1)), np.ones((1, 3)), tol=0.1)
    >>> small.hsv.round(4).tolist(), bool(abs(np.linalg.eigvals(small.a)).min() < 1e-14)
    ([inf, 0.5047, 0.0203], True)
    """
    return BALANCED_TRUNCATION(a, b, c, d, e, order=order, tol=tol, method=method, dt=dt, errors=errors)


BALANCED_TRUNCATION = public_function(
    balanced_truncation,
    "(n,n),(n,m),(p,n),(p,m),(n,n)->(r,r),(r,m),(p,r),(p,m),(n)",
    keyword_arrays=("d", "e"),
    kinds=("same", "same", "same", "same", "real"),
    choices={"method": ("truncate", "matchdc")},
    solve=solve_truncation,
    residual=truncate_residual,
    tangent=truncate_tangent,
    cotangent=truncate_cotangent,
    wrap=lambda backend, a, b, c, d, hsv: Reduced(a, b, c, d, hsv),
    sizes=reduced_order,
    check=check_reduction,
    bounds=("tol",),
    decides="tol",
    decide=order_by_bound,
    columns=("b",),
    rows=("c",),
)
