"""Both extremal solutions of the continuous algebraic Riccati equation, from one sign of the Hamiltonian matrix.

Let W be the sign of h = [[a, -g], [-q, -aᴴ]] (in standard form). [I; x₊] spans the null space of W + I, the stable invariant
subspace, and [I; x₋] that of W - I, the unstable one. With r ≻ 0 every Hermitian solution x has x₋ ≤ x ≤ x₊ (Willems 1971).
Newton's method corrects both, x₋ as the negative stabilising solution of the problem with time reversed (`time_reversal`).

Differential: that of the equation at each of the two (`equations.riccati.derivatives`).
"""

from __future__ import annotations

from matsign._typing import Array, ArrayLike, Arrays, OptionalArrayLike, T, VectorLike
from matsign.backends import Backend
from matsign.core.members import Solution
from matsign.core.public import Residual, public_function
from matsign.equations.riccati.care import EQUATIONS, SOLVERS
from matsign.equations.riccati.certificates import error_estimate
from matsign.equations.riccati.derivatives import add_present, riccati_cotangent, riccati_tangent
from matsign.equations.riccati.nonsymmetric_methods import graph_of_sign
from matsign.equations.riccati.problem import RiccatiProblem
from matsign.equations.riccati.solver import in_good_units
from matsign.iterations.block_structures import Riccati
from matsign.iterations.newton import newton
from matsign.linalg.stacks import hermitian

_SIDES = ("left", "right")


def _by_one_sign(backend: Backend, p: RiccatiProblem) -> tuple[Array, Array, Array]:
    """(x₊, x₋, steps) of a plant, not yet corrected."""
    problem = in_good_units(backend, EQUATIONS["left"], p, True)
    h11, h12, h21, h22 = EQUATIONS["left"].hamiltonian(backend, problem.simple)
    # -h with its rows and columns exchanged: [x; I] of its right half plane is [I; x] of the left one of h.
    sign = newton(backend, Riccati(-h22, -h21, -h12, -h11))
    first, second = (graph_of_sign(backend, sign.value, side)[0] for side in (1.0, -1.0))
    return *(problem.units.restore(backend, hermitian(x)) for x in (first, second)), sign.steps


def _solve(backend: Backend, *arrays: Array) -> Solution:
    a, b, q, r, e, s = arrays
    *starts, steps = _by_one_sign(backend, RiccatiProblem(a, b, hermitian(q), hermitian(r), e, s))
    one, other = (
        SOLVERS[side](backend, *arrays, method="auto", start=start) for side, start in zip(_SIDES, starts, strict=True)
    )
    failed = one.failure > 0
    return Solution(
        one.value + other.value,
        backend.xp.where(failed, one.failure, other.failure),
        backend.astype(steps, "int32") + one.iterations + other.iterations,
        backend.xp.where(failed[..., None], one.detail, other.detail),
    )


def _residual(backend: Backend, value: Arrays, *arrays: Array) -> Residual:
    xp, p = backend.xp, RiccatiProblem(*arrays)
    one, other = (error_estimate(backend, EQUATIONS[side], x, p) for side, x in zip(_SIDES, value, strict=True))
    assert one.boundary is not None
    return Residual(
        xp.maximum(one.backward, other.backward),
        one.correction + other.correction,
        xp.minimum(one.separation, other.separation),
        one.boundary | other.boundary,
    )


def _tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays) -> Arrays:
    one, other = (
        riccati_tangent(backend, (x,), arrays, tangents, equation=EQUATIONS[side])
        for side, x in zip(_SIDES, value, strict=True)
    )
    return one + other


def _cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays) -> Arrays:
    each = (
        RiccatiProblem(*riccati_cotangent(backend, (x,), arrays, (bar,), equation=EQUATIONS[side]))
        for side, x, bar in zip(_SIDES, value, cotangents, strict=True)
    )
    return tuple(add_present(*each))


def extremal_solutions(
    a: ArrayLike[T],
    b: VectorLike[T],
    q: VectorLike[T],
    r: VectorLike[T],
    e: OptionalArrayLike[T] = None,
    s: OptionalArrayLike[T] = None,
    *,
    errors: str = "raise",
) -> tuple[T, T]:
    """Solve the continuous algebraic Riccati equation for its stabilising and its anti-stabilising solution.

    They are computed from one sign of the Hamiltonian matrix. If r ≻ 0, the first is the largest and the second the
    least of all Hermitian solutions.

    Parameters
    ----------
    a : array_like (..., n, n)
        System matrices, of dtype float32, float64, complex64 or complex128.
    b : array_like (..., n, m)
        Input matrices.
    q : array_like (..., n, n)
        Weights of the states, Hermitian.
    r : array_like (..., m, m)
        Weights of the inputs, Hermitian and invertible.
    e : array_like (..., n, n), optional
        Descriptor matrices, invertible. Default: I.
    s : array_like (..., n, m), optional
        Weights of the products of states and inputs. Default: 0.
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
    solve_discrete_are : The equation in discrete time, whose option ``circle`` chooses the solution.

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
    return EXTREMAL(a, b, q, r, e, s, errors=errors)


EXTREMAL = public_function(
    extremal_solutions,
    "(n,n),(n,m),(n,n),(m,m),(n,n),(n,m)->(n,n),(n,n)",
    solve=_solve,
    residual=_residual,
    tangent=_tangent,
    cotangent=_cotangent,
    unstacked=lambda **options: True,
    hermitian=("q", "r"),
    neutral={"m": 1.0},
    weights=("q", "r"),
    columns=("b", "s"),
)
