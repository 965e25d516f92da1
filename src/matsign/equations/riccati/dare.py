"""The discrete algebraic Riccati equation  aᴴ x a - eᴴ x e - (aᴴ x b + s) (r + bᴴ x b)⁻¹ (bᴴ x a + sᴴ) + q = 0.

With its stabilising solution all eigenvalues of the closed loop (a - b k, e), k = (r + bᴴ x b)⁻¹(bᴴ x a + sᴴ), lie inside the
unit circle. In standard form, x = q + aᴴ x (I + g x)⁻¹ a with g = b r⁻¹ bᴴ, it is the limit of the doubling of a symplectic
pencil (Chu, Fan, Lin & Wang 2004), at one inverse of size n a step.

r may be singular if r + bᴴ x b is not. Then x = y + γI, where y solves the equation with r + γ bᴴb, s + γ aᴴb and
q + γ (aᴴa - I).

Differential:  a_cᴴ dx a_c - eᴴ dx e = -(left side's differential at fixed x), a_c = a - b k: a Stein equation with the closed
loop (`equations.riccati.derivatives`).
"""

from __future__ import annotations

from typing import Any

from matsign._typing import Array, ArrayLike, Arrays, OptionalArrayLike, OptionalVectorLike, T, VectorLike
from matsign.backends import Backend
from matsign.core.members import Solution
from matsign.core.public import Residual, public_function
from matsign.equations.riccati import double_word_residual
from matsign.equations.riccati.anti_stabilising import anti_solver_of, anti_stabilising
from matsign.equations.riccati.certificates import error_estimate
from matsign.equations.riccati.derivatives import close, solution_jvp, solution_vjp
from matsign.equations.riccati.forms import Arguments, check_forms
from matsign.equations.riccati.newton_kleinman import Equation, Gap, solve_weighted
from matsign.equations.riccati.problem import RiccatiProblem, StandardForm
from matsign.equations.riccati.solver import METHODS, solver_of
from matsign.iterations.structured_doubling import (
    ClosedLoopSolution,
    Symplectic,
    closed_loop_stein,
    closed_steins,
    double,
)
from matsign.linalg.stacks import adjoint, eye, hermitian


def _gap(backend: Backend, p: RiccatiProblem, x: Array) -> Gap:
    xa = x @ p.a
    inner, weight = adjoint(p.b) @ xa, p.weight(backend, x, discrete=True)
    if p.s is not None:
        inner = inner + adjoint(p.s)
    gain = solve_weighted(backend, weight, xa if p.r is None else inner)
    ahxa, quadratic_term = adjoint(p.a) @ xa, adjoint(gain) @ inner
    ehxe = x if p.e is None else adjoint(p.e) @ x @ p.e
    gap = hermitian(ahxa - ehxe + p.q - quadratic_term)
    terms = backend.norm(ahxa) + backend.norm(ehxe) + backend.norm(p.q) + backend.norm(quadratic_term)
    return Gap(gap, p.a - p.b @ gain, gain, terms)


def _steps(backend: Backend, p: RiccatiProblem, closed: Array, *gaps: Array) -> ClosedLoopSolution:
    """dx with a_cᴴ dx a_c - eᴴ dx e + gap = 0."""
    if p.e is not None:
        inverse = backend.inv(p.e)
        closed, gaps = closed @ inverse, tuple(adjoint(inverse) @ gap @ inverse for gap in gaps)
    return closed_steins(backend, adjoint(closed), *gaps)


def _operator(p: RiccatiProblem, closed: Array, x: Array) -> Array:
    """a_cᴴ x a_c - eᴴ x e."""
    return adjoint(closed) @ x @ closed - (x if p.e is None else adjoint(p.e) @ x @ p.e)


def _dual(backend: Backend, p: RiccatiProblem, closed: Array, c: Array) -> Array:
    """y with a_c y a_cᴴ - e y eᴴ + c = 0."""
    if p.e is None:
        return closed_loop_stein(backend, closed, c).x
    inverse = backend.inv(p.e)
    return inverse @ closed_loop_stein(backend, closed @ inverse, c).x @ adjoint(inverse)


def _doubling(backend: Backend, p: StandardForm) -> tuple[Array, Array]:
    pencil, steps = double(backend, p.a, lambda: Symplectic(p.a, p.g, p.q))
    return pencil.h, steps


def _hamiltonian(backend: Backend, p: StandardForm) -> tuple[Array, Array, Array, Array]:
    """The Cayley transform (m - l)⁻¹(m + l) of the pencil m = [[a, 0], [-q, I]], l = [[I, g], [0, aᴴ]]."""
    xp, n = backend.xp, p.a.shape[-1]
    one, ah = eye(backend, p.a) + 0 * p.a, adjoint(p.a)

    def block(sign: int) -> Array:
        return xp.concat(
            [
                xp.concat([p.a + sign * one, sign * p.g], axis=-1),
                xp.concat([-p.q, one + sign * ah], axis=-1),
            ],
            axis=-2,
        )

    c = backend.solve(block(-1), block(1))
    return c[..., :n, :n], c[..., :n, n:], c[..., n:, :n], c[..., n:, n:]


DISCRETE = Equation(True, 32, 1, _gap, double_word_residual.discrete, _steps, _operator, _dual, _doubling, _hamiltonian)

EQUATIONS = {"inside": DISCRETE, "outside": anti_stabilising(DISCRETE)}
SOLVERS = {"inside": solver_of(DISCRETE), "outside": anti_solver_of(EQUATIONS["outside"])}


def _solve(backend: Backend, *arrays: Array, circle: str, **options: Any) -> Solution:
    given = Arguments(*arrays)
    result = SOLVERS[circle](backend, given.problem(), start=given.x0, **options)
    return given.in_own_words(backend, result)


def _residual(backend: Backend, value: Arrays, *arrays: Array, circle: str) -> Residual:
    return error_estimate(backend, EQUATIONS[circle], value[0], Arguments(*arrays).problem())


def _tangent(
    backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, circle: str, **options: Any
) -> Arrays:
    at = close(backend, EQUATIONS[circle], Arguments(*arrays).problem(), value[0])
    return (solution_jvp(backend, at, Arguments(*tangents).problem()),)


def _cotangent(
    backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, circle: str, **options: Any
) -> Arrays:
    given = Arguments(*arrays)
    at = close(backend, EQUATIONS[circle], given.problem(), value[0])
    return given.cotangents(backend, solution_vjp(backend, at, cotangents[0]))


def solve_discrete_are(
    a: ArrayLike[T],
    b: OptionalVectorLike[T],
    q: VectorLike[T],
    r: OptionalVectorLike[T],
    e: OptionalArrayLike[T] = None,
    s: OptionalArrayLike[T] = None,
    balanced: bool = True,
    *,
    g: OptionalVectorLike[T] = None,
    x0: OptionalArrayLike[T] = None,
    circle: str = "inside",
    method: str = "auto",
    errors: str = "raise",
) -> T:
    """Solve the discrete-time algebraic Riccati equation (DARE) of optimal control.

    The solution x is the stabilising one: the eigenvalues of (a - b k, e) with the gain k = (r + bᴴ x b)⁻¹(bᴴ x a + sᴴ)
    lie inside the unit circle. With ``circle="outside"`` it is the anti-stabilising one. The arguments have the names
    and the order of `scipy.linalg.solve_discrete_are`.

    Parameters
    ----------
    a : array_like (..., n, n)
        System matrices, of dtype float32, float64, complex64 or complex128.
    b : array_like (..., n, m) or None
        Input matrices. b and r are None if g is given.
    q : array_like (..., n, n)
        Weights of the states, Hermitian.
    r : array_like (..., m, m) or None
        Weights of the inputs, Hermitian; they may be singular.
    e : array_like (..., n, n), optional
        Descriptor matrices, invertible. Default: I.
    s : array_like (..., n, m), optional
        Weights of the products of states and inputs. Default: 0.
    balanced : bool, default True
        Whether to scale each state by a power of two, which keeps models with states in very different units accurate.
    g : array_like (..., n, n), optional
        Matrices of the quadratic term in place of b, r and s, Hermitian: definite, indefinite or singular.
    x0 : array_like (..., n, n), optional
        Estimates of the solution, such as that of a similar problem, from which Newton's method starts. They only save
        time: where it does not converge to the wanted solution, as from an estimate that is not stabilising or holds
        NaN, ``method`` is used. Derivatives with respect to x0 are 0.
    circle : {"inside", "outside"}, default "inside"
        Where the eigenvalues of the closed loop lie: "inside" the unit circle for the stabilising solution, "outside"
        for the anti-stabilising one.
    method : {"auto", "doubling", "sign", "qz"}, default "auto"
        How the equation is solved; Newton's method [4]_ corrects the result of each:

        - "doubling": by structure-preserving doubling of a symplectic pencil [1]_; one inverse of size n a step.
        - "sign": by the sign of a Cayley transform of the pencil [2]_; one inverse of size 2 n a step.
        - "qz": by the QZ algorithm on the extended pencil [3]_, on the CPU.
        - "auto": by doubling; for members where doubling does not reach working precision, the best result of doubling,
          sign and QZ.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no stabilising solution: raise `SpectrumError`, or return NaN for that
        member and the right result for the others.

    Returns
    -------
    x : array (..., n, n)
        The stabilising solutions, Hermitian. For q ⪰ 0 and r ≻ 0 they are positive semidefinite, to rounding, and the
        anti-stabilising ones negative semidefinite.

    Raises
    ------
    SpectrumError
        If there is no such solution, or none was found, and ``errors="raise"``; the message says why: e is
        singular, r + bᴴ x b is singular, (a, b) is not stabilisable, (a, q) is not detectable on the unit circle, none
        of these (then q or r is indefinite), or a member holds NaN or infinity. If no method reaches working precision,
        the ``value`` of the error is the best iterate.
    ValueError
        If a shape does not fit, an option has a value other than those above, the arrays lie on different devices, or q
        or r in NumPy arrays is not Hermitian. On PyTorch and JAX their Hermitian parts are taken.
    TypeError
        If an argument is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    dlqr : Also return the gain and the poles of the closed loop.
    solve_continuous_are : The equation in continuous time.
    scipy.linalg.solve_discrete_are : SciPy's function.

    Notes
    -----
    The equation is::

        aᴴ x a - eᴴ x e - (aᴴ x b + s) (r + bᴴ x b)⁻¹ (bᴴ x a + sᴴ) + q = 0.

    With g, any Hermitian matrix, it is::

        aᴴ x (I + g x)⁻¹ a - eᴴ x e + q = 0,

    with the closed loop ((I + g x)⁻¹ a, e). b and an invertible r state the same for g = b r⁻¹ bᴴ; g itself is neither
    inverted nor factored.

    The covariance of a stationary Kalman filter with measurements y = c x solves it with aᴴ for a and cᴴ for b.

    If some eigenvalues cannot be moved beyond the unit circle, the semi-stabilising solution is returned, with about
    half of the digits, and the `Certificate` has ``boundary`` set.

    The anti-stabilising solution is minus the stabilising one of the problem with time reversed, e and a having changed
    places. There is none if [[a, b], [sᴴ, r]] is singular (for s = 0: if a or r is), because the closed loop of every
    solution then has the eigenvalue 0. r + bᴴ x b may be indefinite and much smaller than r, which makes the residual
    large although x is accurate.

    Equations that working precision cannot solve, such as those of strongly unstable systems with few inputs, are
    solved in decimal arithmetic where this is possible: on a CPU or in calls that are not compiled, up to n = 32
    (complex: 16), in up to a second or two.

    The solution is differentiable to any order; a derivative is one Stein equation with the closed loop. Its accuracy
    is limited by rounding of the closed loop; it is NaN where no digit is correct, as with poles of 1e7 and a single
    input. The solution depends on the Hermitian parts of q, r and g. A member of a batch gives the same bits as in a call
    by itself.

    Under ``jax.jit`` no error can be raised: a member without a stabilising solution is NaN. A program compiled for an
    accelerator contains only doubling and Newton's method, accurate to three quarters of the digits or better, and
    calls NumPy for members that they do not solve; in an exported program those are NaN.

    The backward error of `certify` is the norm of the left side divided by ‖aᴴ x a‖ + ‖eᴴ x e‖ + ‖kᴴ (r + bᴴ x b) k‖ +
    ‖q‖. For strongly unstable systems it may be large although x is right to the last bit: the exact solution, rounded,
    has a residual as large.

    A number c as q or r stands for c I, a vector for a diagonal matrix, and a vector as b for a column.

    References
    ----------
    .. [1] E. K.-W. Chu, H.-Y. Fan, W.-W. Lin and C.-S. Wang, "Structure-preserving algorithms for periodic
       discrete-time algebraic Riccati equations", Int. J. Control 77(8), 2004, pp. 767-788,
       doi:10.1080/00207170410001714988.
    .. [2] J. D. Roberts, "Linear model reduction and solution of the algebraic Riccati equation by use of the sign
       function", Int. J. Control 32(4), 1980, pp. 677-687, doi:10.1080/00207178008922881.
    .. [3] P. Van Dooren, "A generalized eigenvalue approach for solving Riccati equations", SIAM J. Sci. Stat. Comput.
       2(2), 1981, pp. 121-135, doi:10.1137/0902010.
    .. [4] G. A. Hewer, "An iterative technique for the computation of the steady state gains for the discrete optimal
       regulator", IEEE Trans. Automat. Control 16(4), 1971, pp. 382-384, doi:10.1109/TAC.1971.1099755.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import solve_discrete_are
    >>> a, b = np.array([[1.0, 1.0], [0.0, 1.0]]), np.array([[0.0], [1.0]])
    >>> q, r = np.eye(2), np.eye(1)
    >>> x = solve_discrete_are(a, b, q, r)
    >>> k = np.linalg.solve(r + b.T @ x @ b, b.T @ x @ a)
    >>> bool(np.linalg.norm(a.T @ x @ (a - b @ k) - x + q) < 1e-13)
    True
    >>> smallest = solve_discrete_are(a, b, q, r, circle="outside")
    >>> k = np.linalg.solve(r + b.T @ smallest @ b, b.T @ smallest @ a)
    >>> bool(abs(np.linalg.eigvals(a - b @ k)).min() > 1)
    True
    """
    return DARE(a, b, q, r, e, s, g, x0, balanced=balanced, circle=circle, method=method, errors=errors)


DARE = public_function(
    solve_discrete_are,
    "(n,n),(n,m),(n,n),(m,m),(n,n),(n,m),(n,n),(n,n)->(n,n)",
    solve=_solve,
    residual=_residual,
    tangent=_tangent,
    cotangent=_cotangent,
    unstacked=lambda **options: True,
    choices={"circle": tuple(EQUATIONS), "method": METHODS},
    hermitian=("q", "r", "g"),
    neutral={"m": 1.0},
    keyword_arrays=("g", "x0"),
    replaceable=("b", "r"),
    check_given=check_forms,
    estimates=("x0",),
    weights=("q", "r", "g"),
    columns=("b", "s"),
)
