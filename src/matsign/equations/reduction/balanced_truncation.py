"""Balanced truncation of a stable system ẋ = a x + b u, y = c x.

The balancing projections (`equations.reduction.balancing`) make both Gramians equal to diag(S), S the Hankel singular values;
keeping only the states of the largest entries of S is balanced truncation (Moore 1981).
"""

from __future__ import annotations

from typing import overload

from matsign._typing import Array, ArrayLike, Arrays, Model, NDArray, OptionalArrayLike, T, VectorLike
from matsign.backends import Backend
from matsign.core import scaling
from matsign.core.objects import takes_model
from matsign.core.public import public_function
from matsign.equations.reduction import derivatives
from matsign.equations.reduction.balancing import cotangent_of_model, powers_of_model, tangent_of_model
from matsign.equations.reduction.certificates import truncate_residual
from matsign.equations.reduction.derivatives import BalancingProjections
from matsign.equations.reduction.methods import reduced_order, solve_truncation
from matsign.equations.reduction.reduced_model import Reduced
from matsign.linalg.stacks import adjoint


def _truncate_tangent(
    backend: Backend, at: BalancingProjections, arrays: Arrays, tangents: Arrays, *, order: int
) -> Arrays:
    (a, b, c), (da, db, dc) = arrays, tangents
    dvalues, dl, dt, _ = derivatives.tangent(backend, at, arrays, tangents)
    lh, dlh, t, dt = adjoint(at.left)[:, :order], adjoint(dl)[:, :order], at.right[:, :, :order], dt[:, :, :order]
    return dlh @ a @ t + lh @ (da @ t + a @ dt), dlh @ b + lh @ db, dc @ t + c @ dt, dvalues


def _truncate_cotangent(
    backend: Backend, at: BalancingProjections, arrays: Arrays, cotangents: Arrays, *, order: int
) -> Arrays:
    (a, b, c), (bar_a, bar_b, bar_c, bar_values) = arrays, cotangents
    left, right = at.left[:, :, :order], at.right[:, :, :order]

    def pad_columns(x: Array) -> Array:
        return backend.xp.concat([x, 0 * at.left[:, :, order:]], axis=-1)

    bar_left = pad_columns(a @ right @ adjoint(bar_a) + b @ adjoint(bar_b))
    bar_right = pad_columns(adjoint(a) @ left @ bar_a + adjoint(c) @ bar_c)
    by_a, by_b, by_c = derivatives.cotangent(backend, at, arrays, (bar_values, bar_left, bar_right, None))
    return by_a + left @ bar_a @ adjoint(right), by_b + left @ bar_b, by_c + bar_c @ adjoint(right)


def _model_powers(backend: Backend, *system: Array) -> scaling.Powers:
    half, of_b, of_c = powers_of_model(backend, *system)
    share = (of_b + of_c) // 2
    return scaling.Powers((2 * half, of_b, of_c), (2 * half, share, share, 2 * (share - half)))


@overload
def balanced_truncation(
    a: ArrayLike[T],
    b: VectorLike[T],
    c: VectorLike[T],
    order: int,
    *,
    e: OptionalArrayLike[T] = None,
    errors: str = "raise",
) -> Reduced[T]: ...
@overload
def balanced_truncation(
    sys: Model, /, order: int, *, e: OptionalArrayLike[NDArray] = None, errors: str = "raise"
) -> Model: ...
@takes_model("ABC", discrete=False, returns_model=True)
def balanced_truncation(
    a: ArrayLike[T],
    b: VectorLike[T],
    c: VectorLike[T],
    order: int,
    *,
    e: OptionalArrayLike[T] = None,
    errors: str = "raise",
) -> Reduced[T]:
    """Reduce the number of states of a linear system.

    For the stable system ẋ = a x + b u, y = c x: the model of the ``order`` states that are most controllable and most
    observable.

    Parameters
    ----------
    a : array_like (..., n, n)
        System matrices with all eigenvalues in the open left half plane; float32, float64, complex64 or complex128.
    b : array_like (..., n, m)
        Input matrices.
    c : array_like (..., p, n)
        Output matrices.
    order : int
        The number r of states to keep, from 1 to n; choose it by the Hankel singular values.
    e : array_like (..., n, n), optional
        Descriptor matrices, invertible, of the model e ẋ = a x + b u; the reduced model has e = I. Default: I.
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
    hsv : array (..., n)
        All Hankel singular values, the largest first. The four are the fields of the named tuple `Reduced`.

    Raises
    ------
    SpectrumError
        If a is not stable, or stable only by rounding, if e is singular (the message has its reciprocal condition
        number), or if a member holds NaN or infinity, and ``errors="raise"``.
    ValueError
        If a shape does not fit, an option has a value other than those above, or the arrays lie on different devices.
    TypeError
        If an argument is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    hankel_singular_values : The values alone.
    Reduced : The form of the result.

    Notes
    -----
    The method is square-root balanced truncation [1]_ [2]_ with factors of the Gramians. Both Gramians of the reduced
    model are diag(hsv[:r]). The model is stable, and its transfer function c (s I - a)⁻¹ b differs from that of the
    full model on the whole imaginary axis by at most twice the sum of the Hankel singular values left out, each
    distinct value counted once [3]_ [4]_. States beyond the numerical rank of the system are decoupled from input and
    output.

    The model is differentiable where the Hankel singular values are simple. In complex arithmetic the derivatives keep
    the largest entry of each column of the projection real. A member of a batch gives the same bits as in a call by
    itself. Under ``jax.jit`` no error can be raised: a member without an answer is NaN.

    The backward error of `certify` is the larger one of the two Gramians, each as for `lyapunov_factor`, in the scaling
    that balances a.

    ``balanced_truncation(sys, order)`` takes the matrices of a model ``sys``, a ``scipy.signal.StateSpace`` or a
    ``control.StateSpace``, and returns a model of the same class with the same D and dt; `hankel_singular_values` has
    the values. A vector as b is a column, as c a row.

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

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import balanced_truncation
    >>> a = np.array([[-1.0, 2.0, 0.0], [0.0, -3.0, 1.0], [0.0, 0.0, -5.0]])
    >>> b, c = np.array([[1.0], [1.0], [1.0]]), np.array([[1.0, 0.0, 2.0]])
    >>> small = balanced_truncation(a, b, c, 2)
    >>> def transfer(s, a, b, c):
    ...     return (c @ np.linalg.solve(s * np.eye(len(a)) - a, b))[0, 0]
    >>> gap = max(abs(transfer(1j * w, a, b, c) - transfer(1j * w, *small[:3])) for w in np.geomspace(1e-2, 1e2, 50))
    >>> bool(gap <= 2 * small.hsv[2:].sum() * (1 + 1e-12))
    True
    >>> x = np.diag(small.hsv[:2])  # its Gramian
    >>> bool(np.linalg.norm(small.a @ x + x @ small.a.T + small.b @ small.b.T) < 1e-14)
    True
    """
    return BALANCED_TRUNCATION(a, b, c, e, order=order, errors=errors)


BALANCED_TRUNCATION = public_function(
    balanced_truncation,
    "(n,n),(n,m),(p,n),(n,n)->(r,r),(r,m),(p,r),(n)",
    keyword_arrays=("e",),
    kinds=("same", "same", "same", "real"),
    solve=solve_truncation,
    residual=truncate_residual,
    tangent=tangent_of_model(_model_powers, _truncate_tangent),
    cotangent=cotangent_of_model(_model_powers, _truncate_cotangent),
    wrap=lambda backend, *model: Reduced(*model),
    sizes=reduced_order,
    columns=("b",),
    rows=("c",),
)
