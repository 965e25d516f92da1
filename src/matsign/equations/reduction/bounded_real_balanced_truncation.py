"""Bounded real balanced truncation of a stable ẋ = a x + b u, y = c x + d u (Opdenacker & Jonckheere 1988).

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
    check_bound,
    cotangent_of,
    reduced_order,
    residual_of,
    solver_of,
    tangent_of,
)

_SIGMA = -1.0
_SIZES = reduced_order("bounded_real_balanced_truncation")


@overload
def bounded_real_balanced_truncation(
    a: ArrayLike[T],
    b: VectorLike[T],
    c: VectorLike[T],
    order: int,
    *,
    d: OptionalArrayLike[T] = None,
    gamma: float = 1.0,
    errors: str = "raise",
) -> BalancedModel[T]: ...
@overload
def bounded_real_balanced_truncation(
    sys: Model, /, order: int, *, gamma: float = 1.0, errors: str = "raise"
) -> Model: ...
@takes_model("ABC", discrete=False, keywords=("d",), returns_model=True)
def bounded_real_balanced_truncation(
    a: ArrayLike[T],
    b: VectorLike[T],
    c: VectorLike[T],
    order: int,
    *,
    d: OptionalArrayLike[T] = None,
    gamma: float = 1.0,
    errors: str = "raise",
) -> BalancedModel[T]:
    """Reduce the number of states of a linear system and keep a bound of its gain.

    For the stable system ẋ = a x + b u, y = c x + d u with H∞ norm below γ: a stable model of ``order`` states with H∞ norm
    below γ.

    Parameters
    ----------
    a : array_like (..., n, n)
        System matrices with all eigenvalues in the open left half plane; float32, float64, complex64 or complex128.
    b : array_like (..., n, m)
        Input matrices.
    c : array_like (..., p, n)
        Output matrices.
    order : int
        The number r of states to keep, from 1 to n; choose it by the characteristic values.
    d : array_like (..., p, m), optional
        Direct terms, which do not change. Default: 0.
    gamma : float, default 1
        The bound γ of the gain, larger than the H∞ norm of each model.
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
        All bounded real characteristic values, between 0 and 1, the largest first. The five are the fields of the named
        tuple `BalancedModel`.

    Raises
    ------
    SpectrumError
        If a is not stable, the H∞ norm is not below ``gamma``, or a member holds NaN or infinity, and
        ``errors="raise"``.
    ValueError
        If a shape does not fit, an option has a value other than those above, or the arrays lie on different devices.
    TypeError
        If an argument is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    hinf_norm : The smallest gamma.
    balanced_truncation : Balancing by Gramians, whose error is often smaller, but which may exceed the bound.
    BalancedModel : The form of the result.

    Notes
    -----
    For γ = 1, w and x are the stabilising solutions of the Riccati equations of the bounded real lemma [1]_: with
    r = I - dᴴ d ≻ 0,

        aᴴ w + w a + (w b + cᴴ d) r⁻¹ (w b + cᴴ d)ᴴ + cᴴ c = 0,

    and the same for x with aᴴ, cᴴ, bᴴ and dᴴ. Another γ scales b and c by γ^-1/2 and d by γ^-1, and the reduced model
    back. The transfer functions of both models differ on the imaginary axis by at most 2 γ times the sum of the values that
    are left out, each distinct value counted once.

    They are the singular values of yᴴ z for factors x = z zᴴ and w = y yᴴ, which are computed as those of Gramians; so
    small values are accurate relative to the first one. States beyond the numerical rank are decoupled from input and
    output. Everything else is as for `lqg_balanced_truncation`.

    References
    ----------
    .. [1] P. C. Opdenacker and E. A. Jonckheere, "A contraction mapping preserving balanced reduction scheme and its
       infinity norm error bounds", IEEE Trans. Circuits Syst. 35(2), 1988, pp. 184-189, doi:10.1109/31.1720.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import bounded_real_balanced_truncation, hinf_norm
    >>> a = np.array([[-1.0, 2.0, 0.0], [0.0, -3.0, 1.0], [0.0, 0.0, -5.0]])
    >>> b, c = np.array([[1.0], [1.0], [1.0]]), np.array([[1.0, 0.0, 2.0]])
    >>> small = bounded_real_balanced_truncation(a, b, c, 2, gamma=2.5)
    >>> bool(hinf_norm(a, b, c)[0] < 2.5), bool(hinf_norm(*small[:4])[0] < 2.5)
    (True, True)
    """
    return BOUNDED_REAL_BALANCED_TRUNCATION(a, b, c, d, order=order, gamma=gamma, errors=errors)


BOUNDED_REAL_BALANCED_TRUNCATION = public_function(
    bounded_real_balanced_truncation,
    SIGNATURE,
    keyword_arrays=("d",),
    kinds=KINDS,
    solve=solver_of(_SIGMA, _SIZES),
    residual=residual_of(_SIGMA),
    tangent=tangent_of(_SIGMA),
    cotangent=cotangent_of(_SIGMA),
    wrap=lambda backend, *model: BalancedModel(*model),
    check=check_bound,
    sizes=_SIZES,
    neutral={"n": -1.0},
    columns=("b",),
    rows=("c",),
)
