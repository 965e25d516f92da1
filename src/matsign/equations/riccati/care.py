"""The continuous algebraic Riccati equation  aᴴ x e + eᴴ x a - (eᴴ x b + s) r⁻¹ (bᴴ x e + sᴴ) + q = 0.

With its stabilising solution all eigenvalues of the closed loop (a - b k, e), k = r⁻¹(bᴴ x e + sᴴ), are stable. In standard
form, [I; x] spans the stable invariant subspace of the Hamiltonian matrix [[a, -g], [-q, -aᴴ]]. A Cayley transform turns it
into a symplectic pencil, whose doubling (Chu, Fan & Lin 2005) costs one inverse of size n a step. Where doubling is not
accurate enough: the sign of the Hamiltonian matrix (Roberts 1980), and on a CPU the QZ algorithm on the extended pencil (Van
Dooren 1981), which never inverts r. Newton's method corrects each result.

Differential:  a_cᴴ dx e + eᴴ dx a_c = -(left side's differential at fixed x), a_c = a - b k: a Lyapunov equation with the
closed loop (`equations.riccati.derivatives`).
"""

from __future__ import annotations

import math
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
    closed_loop_lyapunov,
    closed_lyapunovs,
    double,
)
from matsign.linalg.stacks import adjoint, broadcast_scalar, eye, hermitian, plus_identity, safe_divisor


def _gap(backend: Backend, p: RiccatiProblem, x: Array) -> Gap:
    xe = x if p.e is None else x @ p.e
    ahxe = adjoint(p.a) @ xe
    inner = adjoint(p.b) @ xe
    if p.s is not None:
        inner = inner + adjoint(p.s)
    gain = xe if p.r is None else solve_weighted(backend, p.r, inner)
    quadratic_term = adjoint(gain) @ inner
    terms = 2 * backend.norm(ahxe) + backend.norm(p.q) + backend.norm(quadratic_term)
    gap = 2 * ahxe + p.q - quadratic_term
    del ahxe, quadratic_term
    return Gap(hermitian(gap), p.a - p.b @ gain, gain, terms)


def _steps(backend: Backend, p: RiccatiProblem, closed: Array, *gaps: Array) -> ClosedLoopSolution:
    """dx with a_cᴴ dx e + eᴴ dx a_c + gap = 0."""
    if p.e is not None:
        inverse = backend.inv(p.e)
        closed, gaps = closed @ inverse, tuple(adjoint(inverse) @ gap @ inverse for gap in gaps)
    return closed_lyapunovs(backend, adjoint(closed), *gaps)


def _operator(p: RiccatiProblem, closed: Array, x: Array) -> Array:
    """a_cᴴ x e + eᴴ x a_c."""
    half = adjoint(closed) @ (x if p.e is None else x @ p.e)
    return half + adjoint(half)


def _dual(backend: Backend, p: RiccatiProblem, closed: Array, c: Array) -> Array:
    """y with a_c y eᴴ + e y a_cᴴ + c = 0."""
    if p.e is None:
        return closed_loop_lyapunov(backend, closed, c).x
    inverse = backend.inv(p.e)
    return inverse @ closed_loop_lyapunov(backend, closed @ inverse, c).x @ adjoint(inverse)


def _doubling(backend: Backend, p: StandardForm) -> tuple[Array, Array]:
    """(x, steps) of the standard equation."""
    pencil, steps = double(backend, p.a, lambda: _cayley(backend, p))
    return pencil.h, steps


def _cayley(backend: Backend, p: StandardForm) -> Symplectic:
    """The Cayley transform of [[a, -g], [-q, -aᴴ]] as a symplectic pencil, at a γ for which a - γI is well conditioned."""
    xp, n = backend.xp, p.a.shape[-1]
    size = xp.maximum(backend.norm(p.a), xp.sqrt(backend.norm(p.g)) * xp.sqrt(backend.norm(p.q)))

    def transform_at(state: Any) -> Any:
        a, _, _, gamma = state
        v = backend.inv(a - broadcast_scalar(gamma) * eye(backend, a))
        ill_conditioned = ~(backend.norm(v) * gamma < 50 * math.sqrt(n))
        return (a, v, gamma, xp.where(ill_conditioned, 1.7 * gamma, gamma)), ill_conditioned

    def move_further(a: Array, v: Array, gamma: Array, further: Array) -> tuple[Array, Array]:
        _, v, gamma, _ = backend.loop(transform_at, (a, v, gamma, further), 3)
        return v, gamma

    gamma = 1.1 / math.sqrt(n) * safe_divisor(backend, size)
    first, ill_conditioned = transform_at((p.a, p.a, gamma, gamma))
    v, gamma = backend.rare_cond(ill_conditioned, move_further, lambda a, v, gamma, _: (v, gamma), *first)
    vg, qv = v @ p.g, p.q @ v
    w = backend.inv(adjoint(p.a - broadcast_scalar(gamma) * eye(backend, p.a)) + qv @ p.g)
    two_gamma = broadcast_scalar(2 * gamma)
    return Symplectic(
        plus_identity(backend, 1.0, two_gamma * adjoint(w)),
        hermitian(two_gamma * (vg @ w)),
        hermitian(two_gamma * (w @ qv)),
    )


def _hamiltonian(backend: Backend, p: StandardForm) -> tuple[Array, Array, Array, Array]:
    return p.a, -p.g, -p.q, -adjoint(p.a)


CONTINUOUS = Equation(
    False, 32, 0, _gap, double_word_residual.continuous, _steps, _operator, _dual, _doubling, _hamiltonian
)

EQUATIONS = {"left": CONTINUOUS, "right": anti_stabilising(CONTINUOUS)}
SOLVERS = {"left": solver_of(CONTINUOUS), "right": anti_solver_of(EQUATIONS["right"])}


def _solve(backend: Backend, *arrays: Array, half_plane: str, **options: Any) -> Solution:
    given = Arguments(*arrays)
    result = SOLVERS[half_plane](backend, given.problem(), start=given.x0, **options)
    return given.in_own_words(backend, result)


def _residual(backend: Backend, value: Arrays, *arrays: Array, half_plane: str) -> Residual:
    return error_estimate(backend, EQUATIONS[half_plane], value[0], Arguments(*arrays).problem())


def _tangent(
    backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, half_plane: str, **options: Any
) -> Arrays:
    at = close(backend, EQUATIONS[half_plane], Arguments(*arrays).problem(), value[0])
    return (solution_jvp(backend, at, Arguments(*tangents).problem()),)


def _cotangent(
    backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, half_plane: str, **options: Any
) -> Arrays:
    given = Arguments(*arrays)
    at = close(backend, EQUATIONS[half_plane], given.problem(), value[0])
    return given.cotangents(backend, solution_vjp(backend, at, cotangents[0]))


def solve_continuous_are(
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
    half_plane: str = "left",
    method: str = "auto",
    errors: str = "raise",
) -> T:
    """Solve the continuous-time algebraic Riccati equation (CARE) of optimal control.

    The solution x is the stabilising one: the eigenvalues of (a - b k, e) with the gain k = r⁻¹(bᴴ x e + sᴴ) lie in the
    left half plane. With ``half_plane="right"`` it is the anti-stabilising one. The arguments have the names and the
    order of `scipy.linalg.solve_continuous_are`.

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
    balanced : bool, default True
        Whether to scale each state by a power of two, which keeps models with states in very different units accurate.
    g : array_like (..., n, n), optional
        Matrices of the quadratic term in place of b, r and s, Hermitian: definite, indefinite or singular.
    x0 : array_like (..., n, n), optional
        Estimates of the solution, such as that of a similar problem, from which Newton's method starts. They only save
        time: where it does not converge to the wanted solution, as from an estimate that is not stabilising or holds
        NaN, ``method`` is used. Derivatives with respect to x0 are 0.
    half_plane : {"left", "right"}, default "left"
        Where the eigenvalues of the closed loop lie: "left" for the stabilising solution, "right" for the
        anti-stabilising one, which is the least of all Hermitian solutions if r ≻ 0.
    method : {"auto", "doubling", "sign", "qz"}, default "auto"
        How the equation is solved; Newton's method [4]_ corrects the result of each:

        - "doubling": by structure-preserving doubling of a symplectic pencil [1]_; one inverse and eight products of n
          × n matrices a step.
        - "sign": by the sign of the Hamiltonian matrix [2]_; one inverse of size 2 n a step.
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
        If there is no such solution, or none was found, and ``errors="raise"``; the message says why: r or e is
        singular, (a, b) is not stabilisable (for the right half plane: (-a, b)), (a, q) is not detectable on the
        imaginary axis, none of these (then q or r is indefinite), or a member holds NaN or infinity. If no method
        reaches working precision, the ``value`` of the error is the best iterate.
    ValueError
        If a shape does not fit, an option has a value other than those above, the arrays lie on different devices, or q
        or r in NumPy arrays is not Hermitian. On PyTorch and JAX their Hermitian parts are taken.
    TypeError
        If an argument is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    lqr : Also return the gain and the poles of the closed loop.
    solve_discrete_are : The equation in discrete time.
    solve_riccati : The nonsymmetric equation.
    scipy.linalg.solve_continuous_are : SciPy's function.

    Notes
    -----
    The equation is::

        aᴴ x e + eᴴ x a - (eᴴ x b + s) r⁻¹ (bᴴ x e + sᴴ) + q = 0.

    With g, any Hermitian matrix, it is::

        aᴴ x e + eᴴ x a - eᴴ x g x e + q = 0,

    with the closed loop (a - g x e, e). b and r state the same for g = b r⁻¹ bᴴ; g itself is neither inverted nor
    factored. MATLAB's icare has the opposite sign of G.

    If some eigenvalues cannot be moved beyond the imaginary axis, the semi-stabilising solution is returned, with about
    half of the digits, and the `Certificate` has ``boundary`` set.

    The anti-stabilising solution is minus the stabilising one for -a, -b, q, r, e and s, the problem with time reversed
    [5]_.

    Equations that working precision cannot solve, such as those of strongly unstable systems with few inputs, are
    solved in decimal arithmetic where this is possible: on a CPU or in calls that are not compiled, up to n = 32
    (complex: 16), in up to a second or two.

    The solution is differentiable to any order; a derivative is one Lyapunov equation with the closed loop. The
    solution depends on the Hermitian parts of q, r and g. A member of a batch gives the same bits as in a call by itself.

    Under ``jax.jit`` no error can be raised: a member without a stabilising solution is NaN. A program compiled for an
    accelerator contains only doubling and Newton's method, accurate to three quarters of the digits or better, and
    calls NumPy for members that they do not solve; in an exported program those are NaN.

    The backward error of `certify` is the norm of the left side divided by ‖aᴴ x e‖ + ‖eᴴ x a‖ + ‖kᴴ r k‖ + ‖q‖. For
    strongly unstable systems it may be large although x is right to the last bit: the exact solution, rounded, has a
    residual as large.

    A number c as q or r stands for c I, a vector for a diagonal matrix, and a vector as b for a column.

    References
    ----------
    .. [1] E. K.-W. Chu, H.-Y. Fan and W.-W. Lin, "A structure-preserving doubling algorithm for continuous-time
       algebraic Riccati equations", Linear Algebra Appl. 396, 2005, pp. 55-80, doi:10.1016/j.laa.2004.10.010.
    .. [2] J. D. Roberts, "Linear model reduction and solution of the algebraic Riccati equation by use of the sign
       function", Int. J. Control 32(4), 1980, pp. 677-687, doi:10.1080/00207178008922881.
    .. [3] P. Van Dooren, "A generalized eigenvalue approach for solving Riccati equations", SIAM J. Sci. Stat. Comput.
       2(2), 1981, pp. 121-135, doi:10.1137/0902010.
    .. [4] D. L. Kleinman, "On an iterative technique for Riccati equation computations", IEEE Trans. Automat. Control
       13(1), 1968, pp. 114-115, doi:10.1109/TAC.1968.1098829.
    .. [5] J. C. Willems, "Least squares stationary optimal control and the algebraic Riccati equation", IEEE Trans.
       Automat. Control 16(6), 1971, pp. 621-634, doi:10.1109/TAC.1971.1099831.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import solve_continuous_are
    >>> a, b = np.array([[0.0, 1.0], [0.0, 0.0]]), np.array([[0.0], [1.0]])
    >>> q, r = np.eye(2), np.eye(1)
    >>> x = solve_continuous_are(a, b, q, r)
    >>> bool(np.linalg.norm(a.T @ x + x @ a - x @ b @ b.T @ x + q) < 1e-14)
    True
    >>> smallest = solve_continuous_are(a, b, q, r, half_plane="right")
    >>> bool(np.linalg.eigvals(a - b @ b.T @ smallest).real.min() > 0)
    True
    """
    return CARE(a, b, q, r, e, s, g, x0, balanced=balanced, half_plane=half_plane, method=method, errors=errors)


CARE = public_function(
    solve_continuous_are,
    "(n,n),(n,m),(n,n),(m,m),(n,n),(n,m),(n,n),(n,n)->(n,n)",
    solve=_solve,
    residual=_residual,
    tangent=_tangent,
    cotangent=_cotangent,
    unstacked=lambda **options: True,
    choices={"half_plane": tuple(EQUATIONS), "method": METHODS},
    hermitian=("q", "r", "g"),
    neutral={"m": 1.0},
    keyword_arrays=("g", "x0"),
    replaceable=("b", "r"),
    check_given=check_forms,
    estimates=("x0",),
    weights=("q", "r", "g"),
    columns=("b", "s"),
)
