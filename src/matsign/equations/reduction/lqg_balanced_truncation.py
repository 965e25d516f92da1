"""LQG balanced truncation of ẋ = a x + b u, y = c x + d u, stable or not (Jonckheere & Silverman 1983).

`riccati_balancing` states the equations, `riccati_truncation` the reduced model.
"""

from __future__ import annotations

from typing import overload

from matsign._typing import ArrayLike, Model, OptionalArrayLike, T, VectorLike
from matsign.core.objects import takes_model
from matsign.core.public import public_function
from matsign.equations.reduction.balanced_model import BalancedModel
from matsign.equations.reduction.riccati_truncation import (
    KINDS,
    SIGNATURE,
    cotangent_of,
    reduced_order,
    residual_of,
    solver_of,
    tangent_of,
)

_SIGMA = 1.0
_SIZES = reduced_order("lqg_balanced_truncation")


@overload
def lqg_balanced_truncation(
    a: ArrayLike[T],
    b: VectorLike[T],
    c: VectorLike[T],
    order: int,
    *,
    d: OptionalArrayLike[T] = None,
    errors: str = "raise",
) -> BalancedModel[T]: ...
@overload
def lqg_balanced_truncation(sys: Model, /, order: int, *, errors: str = "raise") -> Model: ...
@takes_model("ABC", discrete=False, keywords=("d",), returns_model=True)
def lqg_balanced_truncation(
    a: ArrayLike[T],
    b: VectorLike[T],
    c: VectorLike[T],
    order: int,
    *,
    d: OptionalArrayLike[T] = None,
    errors: str = "raise",
) -> BalancedModel[T]:
    """Reduce the number of states of a linear system for the design of a controller, whether it is stable or not.

    For the system ẋ = a x + b u, y = c x + d u: the model of the ``order`` states that are hardest to control and to
    estimate in closed loop, so that a controller for the small model works for the full one.

    Parameters
    ----------
    a : array_like (..., n, n)
        System matrices, stable or not; float32, float64, complex64 or complex128.
    b : array_like (..., n, m)
        Input matrices. Modes of a that are not stable need inputs and outputs.
    c : array_like (..., p, n)
        Output matrices.
    order : int
        The number r of states to keep, from 1 to n; choose it by the characteristic values.
    d : array_like (..., p, m), optional
        Direct terms, which do not change. Default: 0.
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
        The direct terms.
    values : array (..., n)
        All LQG characteristic values, the largest first. The five are the fields of the named tuple `BalancedModel`.

    Raises
    ------
    SpectrumError
        If (a, b) is not stabilisable, (a, c) not detectable, a mode on the imaginary axis gets no input or shows in no
        output, or a member holds NaN or infinity, and ``errors="raise"``.
    ValueError
        If a shape does not fit, an option has a value other than those above, or the arrays lie on different devices.
    TypeError
        If an argument is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    balanced_truncation : Balancing by the Gramians of a stable model.
    bounded_real_balanced_truncation : Balancing that keeps a bound of the gain.
    BalancedModel : The form of the result.

    Notes
    -----
    w and x are the solutions of the Riccati equations of the regulator and the filter with unit weights [1]_: with
    r = I + dᴴ d,

        aᴴ w + w a - (w b + cᴴ d) r⁻¹ (w b + cᴴ d)ᴴ + cᴴ c = 0,

    and the same for x with aᴴ, cᴴ, bᴴ and dᴴ. Units of the inputs and outputs matter: choose them so that one unit of
    input costs as much as one of output. In the balanced coordinates both solutions are diag(values). The reduced model is
    not stable where the full one is not. The normalised coprime factors of both transfer functions differ by at most twice
    the sum of μ/√(1 + μ²) over the values μ that are left out [2]_.

    They are the singular values of yᴴ z for factors x = z zᴴ and w = y yᴴ, which are computed as those of the Gramians of
    the closed loops; so small values are accurate relative to the first one. States beyond the numerical rank are decoupled
    from input and output.

    The model is differentiable to any order where the values are simple. In complex arithmetic the derivatives keep the
    largest entry of each column of the projection real. A member of a batch gives the same bits as in a call by itself.
    Under ``jax.jit`` no error can be raised: a member without an answer is NaN.

    The backward error of `certify` is the larger one of the two Riccati equations, each as for `solve_continuous_are`.

    ``lqg_balanced_truncation(sys, order)`` takes a model ``sys`` in continuous time, a ``scipy.signal.StateSpace`` or a
    ``control.StateSpace``, and returns a model of the same class. A vector as b is a column, as c a row.

    References
    ----------
    .. [1] E. A. Jonckheere and L. M. Silverman, "A new set of invariants for linear systems - application to reduced order
       compensator design", IEEE Trans. Automat. Control 28(10), 1983, pp. 953-964, doi:10.1109/TAC.1983.1103159.
    .. [2] D. G. Meyer, "Fractional balanced reduction: model reduction via fractional representation", IEEE Trans.
       Automat. Control 35(12), 1990, pp. 1341-1345, doi:10.1109/9.61011.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import lqg_balanced_truncation, solve_continuous_are
    >>> a = np.array([[1.0, 2.0, 0.0], [0.0, -3.0, 1.0], [0.0, 0.0, -5.0]])  # not stable
    >>> b, c = np.array([[1.0], [1.0], [1.0]]), np.array([[1.0, 0.0, 2.0]])
    >>> small = lqg_balanced_truncation(a, b, c, 2)
    >>> x = solve_continuous_are(small.a, small.b, small.c.T @ small.c, np.eye(1))
    >>> bool(np.linalg.norm(x - np.diag(small.values[:2])) < 1e-13)
    True
    """
    return LQG_BALANCED_TRUNCATION(a, b, c, d, order=order, errors=errors)


LQG_BALANCED_TRUNCATION = public_function(
    lqg_balanced_truncation,
    SIGNATURE,
    keyword_arrays=("d",),
    kinds=KINDS,
    solve=solver_of(_SIGMA, _SIZES),
    residual=residual_of(_SIGMA),
    tangent=tangent_of(_SIGMA),
    cotangent=cotangent_of(_SIGMA),
    wrap=lambda backend, *model: BalancedModel(*model),
    sizes=_SIZES,
    neutral={"n": -1.0},
    columns=("b",),
    rows=("c",),
)
