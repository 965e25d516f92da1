"""Hankel singular values and balanced truncation of a stable system ẋ = a x + b u, y = c x.

With factors of the Gramians, a x + x aᴴ + b bᴴ = 0 for x = z zᴴ and aᴴ w + w a + cᴴ c = 0 for w = y yᴴ, the Hankel singular
values are the singular values of yᴴ z (Laub, Heath, Paige & Ward 1987; Tombs & Postlethwaite 1987): the square roots of the
eigenvalues of x w without forming either, which would square their range. From yᴴ z = U S Vᴴ the projections y U S^-1/2 and
z V S^-1/2 make both Gramians equal to S; keeping only the states of the largest entries of S is balanced truncation (Moore
1981). `equations.reduction.derivatives` states the differentials.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast, overload

from matsign._typing import (
    Array,
    ArrayLike,
    Arrays,
    Generic,
    Model,
    NDArray,
    OptionalArrayLike,
    StateSpace,
    T,
    VectorLike,
)
from matsign.backends import Backend
from matsign.core import scaling
from matsign.core.members import Solution, solution
from matsign.core.objects import takes_model
from matsign.core.operations import Operation, apply, shapes_of
from matsign.core.public import public_function
from matsign.equations.lyapunov.descriptor_factors import (
    StandardForm,
    with_descriptor_cotangent,
    with_descriptor_tangent,
)
from matsign.equations.reduction import derivatives as balancing
from matsign.equations.reduction.certificates import hankel_residual, truncate_residual
from matsign.equations.reduction.methods import (
    balance_system,
    balancing_projections,
    reduced_order,
    solve_hankel,
    solve_truncation,
    values_of_system,
)
from matsign.linalg.stacks import adjoint, broadcast_scalar


class Reduced(NamedTuple, Generic[T]):
    """Hold a reduced model.

    The result of `balanced_truncation`: a named tuple of the model ẋ = a x + b u, y = c x with r states, and of all
    Hankel singular values of the full model.

    Attributes
    ----------
    a : array (..., r, r)
        System matrix.
    b : array (..., r, m)
        Input matrix.
    c : array (..., p, r)
        Output matrix.
    hsv : array (..., n)
        Hankel singular values of the full model, the largest first.

    See Also
    --------
    balanced_truncation : Compute the model.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import balanced_truncation
    >>> a = np.array([[-1.0, 2.0], [0.0, -3.0]])
    >>> small = balanced_truncation(a, np.ones((2, 1)), np.ones((1, 2)), 1)
    >>> small._fields, small.a.shape, small.hsv.shape
    (('a', 'b', 'c', 'hsv'), (1, 1), (2,))
    >>> bool(np.linalg.norm(2 * small.a * small.hsv[0] + small.b @ small.b.T) < 1e-14)
    True
    """

    a: T
    b: T
    c: T
    hsv: T


def _balancing(backend: Backend, a: Array, b: Array, c: Array, e: Array | None) -> Solution:
    """Hankel singular values, all columns of both projections, and the positions of their largest entries.

    With a descriptor the projections are those of the model (e⁻¹ a, e⁻¹ b, c).
    """
    balanced = balance_system(backend, a, b, c, e)
    left, right, _ = balancing_projections(backend, balanced, a.shape[-1])
    if balanced.system.descriptor is not None:
        left = adjoint(balanced.system.descriptor) @ left
    anchor = backend.eye(a.shape[-1], right)[backend.xp.argmax(backend.xp.abs(right), axis=-2)].mT.real
    s = balanced.system
    shift = s.e[:, :, None] + broadcast_scalar((s.b_scale - s.c_scale) // 2)
    value = (values_of_system(backend, balanced), backend.ldexp(left, -shift), backend.ldexp(right, shift), anchor)
    return solution(backend, value, iterations=balanced.gramians.steps)._replace(failure=balanced.gramians.failure)


_BALANCING = Operation(
    "balancing",
    shapes_of("(n,n),(n,m),(p,n),(n,n)"),
    shapes_of("(n),(n,n),(n,n),(n,n)"),
    solve=_balancing,
    tangent=with_descriptor_tangent(balancing.tangent),
    cotangent=with_descriptor_cotangent(balancing.cotangent),
    kinds=("real", "same", "same", "real"),
)


def _balanced_at(backend: Backend, arrays: Arrays) -> balancing.BalancingProjections:
    return balancing.BalancingProjections(*apply(backend, _BALANCING, *arrays))


def _tangent_of(powers: Callable[..., scaling.Powers], tangent: Callable[..., Arrays]) -> Callable[..., Arrays]:
    """The tangent for (a, b, c, e), from ``tangent(backend, at, model, tangents)`` for a model in standard form."""

    def standard(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, **options: Any) -> Arrays:
        return tangent(backend, _balanced_at(backend, (*arrays, None)), arrays, tangents, **options)

    at_size = scaling.tangent_at_size(powers, standard)

    def rule(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, **options: Any) -> Arrays:
        if arrays[-1] is None:
            return cast("Arrays", at_size(backend, value, arrays[:-1], tangents[:-1], **options))
        form = StandardForm.of(backend, arrays)
        return tangent(backend, _balanced_at(backend, arrays), form.model, form.tangents(tangents), **options)

    return rule


def _cotangent_of(powers: Callable[..., scaling.Powers], cotangent: Callable[..., Arrays]) -> Callable[..., Arrays]:
    """The adjoint of `_tangent_of`."""

    def standard(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, **options: Any) -> Arrays:
        return cotangent(backend, _balanced_at(backend, (*arrays, None)), arrays, cotangents, **options)

    at_size = scaling.cotangent_at_size(powers, standard)

    def rule(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, **options: Any) -> Arrays:
        if arrays[-1] is None:
            return (*at_size(backend, value, arrays[:-1], cotangents, **options), None)
        form = StandardForm.of(backend, arrays)
        bars = cotangent(backend, _balanced_at(backend, arrays), form.model, cotangents, **options)
        return form.cotangents(bars)

    return rule


def _hankel_tangent(backend: Backend, at: balancing.BalancingProjections, arrays: Arrays, tangents: Arrays) -> Arrays:
    return (balancing.values_jvp(backend, at, *balancing.gramians_jvp(backend, arrays, tangents)),)


def _hankel_cotangent(
    backend: Backend, at: balancing.BalancingProjections, arrays: Arrays, cotangents: Arrays
) -> Arrays:
    return balancing.gramians_vjp(backend, arrays, *balancing.values_vjp(at, cotangents[0]))


def _truncate_tangent(
    backend: Backend, at: balancing.BalancingProjections, arrays: Arrays, tangents: Arrays, *, order: int
) -> Arrays:
    (a, b, c), (da, db, dc) = arrays, tangents
    dvalues, dl, dt, _ = balancing.tangent(backend, at, arrays, tangents)
    lh, dlh, t, dt = adjoint(at.left)[:, :order], adjoint(dl)[:, :order], at.right[:, :, :order], dt[:, :, :order]
    return dlh @ a @ t + lh @ (da @ t + a @ dt), dlh @ b + lh @ db, dc @ t + c @ dt, dvalues


def _truncate_cotangent(
    backend: Backend, at: balancing.BalancingProjections, arrays: Arrays, cotangents: Arrays, *, order: int
) -> Arrays:
    (a, b, c), (bar_a, bar_b, bar_c, bar_values) = arrays, cotangents
    left, right = at.left[:, :, :order], at.right[:, :, :order]

    def pad_columns(x: Array) -> Array:
        return backend.xp.concat([x, 0 * at.left[:, :, order:]], axis=-1)

    bar_left = pad_columns(a @ right @ adjoint(bar_a) + b @ adjoint(bar_b))
    bar_right = pad_columns(adjoint(a) @ left @ bar_a + adjoint(c) @ bar_c)
    by_a, by_b, by_c = balancing.cotangent(backend, at, arrays, (bar_values, bar_left, bar_right, None))
    return by_a + left @ bar_a @ adjoint(right), by_b + left @ bar_b, by_c + bar_c @ adjoint(right)


def _powers(backend: Backend, a: Array, b: Array, c: Array) -> tuple[Array, Array, Array]:
    """(j, k, l) with 4^-j a, 2^-k b and 2^-l c near 1, and k + l even."""
    half, of_b, of_c = -(-scaling.size_of(backend, a) // 2), scaling.size_of(backend, b), scaling.size_of(backend, c)
    return half, of_b, of_c + (of_b + of_c) % 2


def _hankel_powers(backend: Backend, *system: Array) -> scaling.Powers:
    half, of_b, of_c = _powers(backend, *system)
    return scaling.Powers((2 * half, of_b, of_c), (of_b + of_c - 2 * half,))


def _model_powers(backend: Backend, *system: Array) -> scaling.Powers:
    half, of_b, of_c = _powers(backend, *system)
    share = (of_b + of_c) // 2
    return scaling.Powers((2 * half, of_b, of_c), (2 * half, share, share, 2 * (share - half)))


@overload
def hankel_singular_values(
    a: ArrayLike[T], b: VectorLike[T], c: VectorLike[T], *, e: OptionalArrayLike[T] = None, errors: str = "raise"
) -> T: ...
@overload
def hankel_singular_values(
    sys: StateSpace, /, *, e: OptionalArrayLike[NDArray] = None, errors: str = "raise"
) -> NDArray: ...
@takes_model("ABC", discrete=False)
def hankel_singular_values(
    a: ArrayLike[T], b: VectorLike[T], c: VectorLike[T], *, e: OptionalArrayLike[T] = None, errors: str = "raise"
) -> T:
    """Compute the Hankel singular values of a linear system.

    For the stable system ẋ = a x + b u, y = c x, they are the square roots of the eigenvalues of the product of the two
    Gramians. They show how many states a reduced model needs.

    Parameters
    ----------
    a : array_like (..., n, n)
        System matrices with all eigenvalues in the open left half plane; float32, float64, complex64 or complex128.
    b : array_like (..., n, m)
        Input matrices.
    c : array_like (..., p, n)
        Output matrices.
    e : array_like (..., n, n), optional
        Descriptor matrices, invertible, of the model e ẋ = a x + b u. Default: I.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no answer: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    sigma : array (..., n)
        The Hankel singular values, real, the largest first.

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
    balanced_truncation : A reduced model.
    lyapunov_factor : A factor of one Gramian.

    Notes
    -----
    With the Gramians x and w::

        a x + x aᴴ + b bᴴ = 0,    aᴴ w + w a + cᴴ c = 0,    σₖ = √λₖ(x w).

    They are computed as the singular values of yᴴ z for factors x = z zᴴ and w = y yᴴ [1]_, without forming x or w;
    both factors come from one inverse. They are accurate to rounding relative to the first one.

    The derivatives of values at the level of rounding are zero; second derivatives need values that are simple. A
    member of a batch gives the same bits as in a call by itself. Under ``jax.jit`` no error can be raised: a member
    without an answer is NaN.

    The backward error of `certify` is the larger one of the two Gramians, each as for `lyapunov_factor`, in the scaling
    that balances a.

    ``hankel_singular_values(sys)`` takes the matrices of a model ``sys``, a ``scipy.signal.StateSpace`` or a
    ``control.StateSpace``. A vector as b is a column, as c a row.

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
    return HANKEL_SINGULAR_VALUES(a, b, c, e, errors=errors)


HANKEL_SINGULAR_VALUES = public_function(
    hankel_singular_values,
    "(n,n),(n,m),(p,n),(n,n)->(n)",
    keyword_arrays=("e",),
    kinds=("real",),
    solve=solve_hankel,
    residual=hankel_residual,
    tangent=_tangent_of(_hankel_powers, _hankel_tangent),
    cotangent=_cotangent_of(_hankel_powers, _hankel_cotangent),
    columns=("b",),
    rows=("c",),
)


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
    tangent=_tangent_of(_model_powers, _truncate_tangent),
    cotangent=_cotangent_of(_model_powers, _truncate_cotangent),
    wrap=lambda backend, *model: Reduced(*model),
    sizes=reduced_order,
    columns=("b",),
    rows=("c",),
)
