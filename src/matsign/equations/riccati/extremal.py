"""Both extremal solutions of the continuous and the discrete algebraic Riccati equation, each pair from one iteration.

With r ≻ 0 every Hermitian solution x has x₋ ≤ x ≤ x₊ (Willems 1971). `equations.riccati.extremal_methods` has the iterations
and the derivatives.
"""

from __future__ import annotations

from matsign._typing import ArrayLike, OptionalArrayLike, OptionalVectorLike, T, VectorLike
from matsign.core.public import public_function
from matsign.equations.riccati import care, dare
from matsign.equations.riccati.extremal_methods import (
    BothSides,
    by_one_doubling,
    by_one_sign,
    cotangent_of_both,
    residual_of_both,
    solver_of_both,
    tangent_of_both,
)
from matsign.equations.riccati.forms import check_forms

_CONTINUOUS = BothSides(
    (care.EQUATIONS["left"], care.EQUATIONS["right"]), (care.SOLVERS["left"], care.SOLVERS["right"]), by_one_sign
)
_DISCRETE = BothSides(
    (dare.EQUATIONS["inside"], dare.EQUATIONS["outside"]),
    (dare.SOLVERS["inside"], dare.SOLVERS["outside"]),
    by_one_doubling,
)


def extremal_solutions(
    a: ArrayLike[T],
    b: OptionalVectorLike[T],
    q: VectorLike[T],
    r: OptionalVectorLike[T],
    e: OptionalArrayLike[T] = None,
    s: OptionalArrayLike[T] = None,
    *,
    g: OptionalVectorLike[T] = None,
    errors: str = "raise",
) -> tuple[T, T]:
    """Solve the continuous algebraic Riccati equation for its stabilising and its anti-stabilising solution.

    They are computed from one sign of the Hamiltonian matrix. If r ≻ 0, the first is the largest and the second the
    least of all Hermitian solutions.

    Parameters
    ----------
    a : array_like (..., n, n)
        System matrices, of dtype float32, float64, complex64 or complex128.
    b : array_like (..., n, m) or None
        Input matrices. b and r are None if g is given.
    q : array_like (..., n, n)
        Weights of the states, Hermitian.
    r : array_like (..., m, m) or None
        Weights of the inputs, Hermitian and invertible.
    e : array_like (..., n, n), optional
        Descriptor matrices, invertible. Default: I.
    s : array_like (..., n, m), optional
        Weights of the products of states and inputs. Default: 0.
    g : array_like (..., n, n), optional
        Matrices of the quadratic term in place of b, r and s, Hermitian: definite, indefinite or singular.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch lacks one of the solutions: raise `SpectrumError`, or return NaN for both
        solutions of that member and the right results for the others.

    Returns
    -------
    stabilising : array (..., n, n)
        The solutions x₊ whose closed loop has its eigenvalues in the left half plane.
    anti_stabilising : array (..., n, n)
        The solutions x₋ whose closed loop has its eigenvalues in the right half plane.

    Raises
    ------
    SpectrumError
        If one of the solutions does not exist or is not found, and ``errors="raise"``; the reasons are those of
        `solve_continuous_are`. Both exist if (a, b) is controllable, r ≻ 0 and [[q, s], [sᴴ, r]] ⪰ 0, and the cost
        detects the modes of a on the imaginary axis.
    ValueError
        If a shape does not fit, the arrays lie on different devices, ``errors`` has another value, or q or r in NumPy
        arrays is not Hermitian. On PyTorch and JAX their Hermitian parts are taken.
    TypeError
        If an argument is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    solve_continuous_are : One of the two, by other methods.
    discrete_extremal_solutions : Both in discrete time.

    Notes
    -----
    Let W be the sign of the Hamiltonian matrix [[a, -b r⁻¹ bᴴ], [-q, -aᴴ]], after the elimination of e and s. [I; x₊]
    spans the null space of W + I, and [I; x₋] that of W - I [1]_. Newton's method corrects both; where the sign is not
    accurate enough, the methods of `solve_continuous_are` follow.

    All Hermitian solutions lie between the two if r ≻ 0: x - x₋ and x₊ - x are positive semidefinite [2]_. The two
    differ by the inverse of the controllability Gramian of the closed loop of x₊ (for e = I).

    Both are differentiable to any order. A member of a batch gives the same bits as in a call by itself. The
    `Certificate` has the larger of the errors and the smaller separation of the two.

    Numbers and vectors stand for matrices as in `solve_continuous_are`.

    References
    ----------
    .. [1] J. D. Roberts, "Linear model reduction and solution of the algebraic Riccati equation by use of the sign
       function", Int. J. Control 32(4), 1980, pp. 677-687, doi:10.1080/00207178008922881.
    .. [2] J. C. Willems, "Least squares stationary optimal control and the algebraic Riccati equation", IEEE Trans.
       Automat. Control 16(6), 1971, pp. 621-634, doi:10.1109/TAC.1971.1099831.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import extremal_solutions
    >>> a, b = np.array([[0.0, 1.0], [0.0, 0.0]]), np.array([[0.0], [1.0]])
    >>> largest, least = extremal_solutions(a, b, np.eye(2), np.eye(1))
    >>> bool(np.linalg.eigvalsh(largest)[0] > 0), bool(np.linalg.eigvalsh(least)[-1] < 0)
    (True, True)
    """
    return EXTREMAL(a, b, q, r, e, s, g, errors=errors)


EXTREMAL = public_function(
    extremal_solutions,
    "(n,n),(n,m),(n,n),(m,m),(n,n),(n,m),(n,n)->(n,n),(n,n)",
    solve=solver_of_both(_CONTINUOUS),
    residual=residual_of_both(_CONTINUOUS),
    tangent=tangent_of_both(_CONTINUOUS),
    cotangent=cotangent_of_both(_CONTINUOUS),
    unstacked=lambda **options: True,
    hermitian=("q", "r", "g"),
    neutral={"m": 1.0},
    keyword_arrays=("g",),
    replaceable=("b", "r"),
    check_given=check_forms,
    weights=("q", "r", "g"),
    columns=("b", "s"),
)


def discrete_extremal_solutions(
    a: ArrayLike[T],
    b: OptionalVectorLike[T],
    q: VectorLike[T],
    r: OptionalVectorLike[T],
    e: OptionalArrayLike[T] = None,
    s: OptionalArrayLike[T] = None,
    *,
    g: OptionalVectorLike[T] = None,
    errors: str = "raise",
) -> tuple[T, T]:
    """Solve the discrete algebraic Riccati equation for its stabilising and its anti-stabilising solution.

    They are computed from one doubling iteration. If r + bᴴ x b ≻ 0 for the second, it is the least and the first the
    largest of all Hermitian solutions.

    Parameters
    ----------
    a : array_like (..., n, n)
        System matrices, of dtype float32, float64, complex64 or complex128.
    b : array_like (..., n, m) or None
        Input matrices. b and r are None if g is given.
    q : array_like (..., n, n)
        Weights of the states, Hermitian.
    r : array_like (..., m, m) or None
        Weights of the inputs, Hermitian.
    e : array_like (..., n, n), optional
        Descriptor matrices, invertible. Default: I.
    s : array_like (..., n, m), optional
        Weights of the products of states and inputs. Default: 0.
    g : array_like (..., n, n), optional
        Matrices of the quadratic term in place of b, r and s, Hermitian: definite, indefinite or singular.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch lacks one of the solutions: raise `SpectrumError`, or return NaN for both
        solutions of that member and the right results for the others.

    Returns
    -------
    stabilising : array (..., n, n)
        The solutions x₊ whose closed loop has its eigenvalues inside the unit circle.
    anti_stabilising : array (..., n, n)
        The solutions x₋ whose closed loop has its eigenvalues outside the unit circle.

    Raises
    ------
    SpectrumError
        If one of the solutions does not exist or is not found, and ``errors="raise"``; the reasons are those of
        `solve_discrete_are`. With a singular [[a, b], [sᴴ, r]], for s = 0 a singular a or r, every closed loop has the
        eigenvalue 0, and there is no anti-stabilising solution. Otherwise both exist if (a, b) is controllable, r ≻ 0
        and [[q, s], [sᴴ, r]] ⪰ 0, and the cost detects the modes of a on the unit circle.
    ValueError
        If a shape does not fit, the arrays lie on different devices, ``errors`` has another value, or q or r in NumPy
        arrays is not Hermitian. On PyTorch and JAX their Hermitian parts are taken.
    TypeError
        If an argument is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    solve_discrete_are : One of the two, by other methods.
    extremal_solutions : Both in continuous time.

    Notes
    -----
    The equation is that of `solve_discrete_are`. Doubling of the symplectic pencil of the equation converges to x₊ and
    at the same time to -x₋⁻¹, because x₋ solves the equation with time reversed [1]_. Newton's method corrects both;
    where doubling is not accurate enough, the methods of `solve_discrete_are` follow.

    All Hermitian solutions lie between the two if r + bᴴ x₋ b ≻ 0: x - x₋ and x₊ - x are positive semidefinite [2]_.

    Both are differentiable to any order. A member of a batch gives the same bits as in a call by itself. The
    `Certificate` has the larger of the errors and the smaller separation of the two.

    Numbers and vectors stand for matrices as in `solve_continuous_are`.

    References
    ----------
    .. [1] B. D. O. Anderson, "Second-order convergent algorithms for the steady-state Riccati equation", Int. J.
       Control 28(2), 1978, pp. 295-306, doi:10.1080/00207177808922455.
    .. [2] A. C. M. Ran and R. Vreugdenhil, "Existence and comparison theorems for algebraic Riccati equations for
       continuous- and discrete-time systems", Linear Algebra Appl. 99, 1988, pp. 63-83,
       doi:10.1016/0024-3795(88)90125-5.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import discrete_extremal_solutions
    >>> a, b = np.array([[1.0, 1.0], [0.0, 1.0]]), np.array([[0.0], [1.0]])
    >>> largest, least = discrete_extremal_solutions(a, b, np.eye(2), np.eye(1))
    >>> bool(np.linalg.eigvalsh(largest)[0] > 0), bool(np.linalg.eigvalsh(least)[-1] < 0)
    (True, True)
    """
    return DISCRETE_EXTREMAL(a, b, q, r, e, s, g, errors=errors)


DISCRETE_EXTREMAL = public_function(
    discrete_extremal_solutions,
    "(n,n),(n,m),(n,n),(m,m),(n,n),(n,m),(n,n)->(n,n),(n,n)",
    solve=solver_of_both(_DISCRETE),
    residual=residual_of_both(_DISCRETE),
    tangent=tangent_of_both(_DISCRETE),
    cotangent=cotangent_of_both(_DISCRETE),
    unstacked=lambda **options: True,
    hermitian=("q", "r", "g"),
    neutral={"m": 1.0},
    keyword_arrays=("g",),
    replaceable=("b", "r"),
    check_given=check_forms,
    weights=("q", "r", "g"),
    columns=("b", "s"),
)
