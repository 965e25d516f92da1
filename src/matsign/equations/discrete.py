"""The discrete algebraic Riccati equation  aᴴ x a - eᴴ x e - (aᴴ x b + s) (r + bᴴ x b)⁻¹ (bᴴ x a + sᴴ) + q = 0.

Its stabilising solution brings every eigenvalue of the closed loop (a - b k, e), k = (r + bᴴ x b)⁻¹(bᴴ x a + sᴴ), inside the unit
circle. In standard form, x = q + aᴴ x (I + g x)⁻¹ a with g = b r⁻¹ bᴴ, it is what the doubling of a symplectic pencil
converges to (Chu, Fan, Lin & Wang 2004), at one inverse of size n a step.

r may be singular, as long as r + bᴴ x b is not. Then x = y + γI moves part of the solution into r: y solves the equation with
r + γ bᴴb, s + γ aᴴb and q + γ (aᴴa - I).

Differential:  a_cᴴ dx a_c - eᴴ dx e = -(the variation of the left side), a Stein equation with the closed loop.
"""

from __future__ import annotations

import functools
from typing import Any

from matsign.backends import Backend
from matsign.engine.declare import declared
from matsign.engine.linear import adjoint, eye, hermitian, norm
from matsign.engine.symplectic import Closed, Symplectic, closed_stein, double
from matsign.equations import exactly
from matsign.equations.algebraic import METHODS, residual_of, solver_of
from matsign.equations.closed_loop import riccati_cotangent, riccati_tangent
from matsign.equations.newton_kleinman import Equation, Gap, solve_weighted
from matsign.equations.plant import Plant, Standard

Array = Any


def _gap(be: Backend, p: Plant, x: Array) -> Gap:
    xa = x @ p.a
    inner, weight = adjoint(p.b) @ xa, p.r + adjoint(p.b) @ x @ p.b
    if p.s is not None:
        inner = inner + adjoint(p.s)
    gain = solve_weighted(be, weight, inner)
    moved, paid = adjoint(p.a) @ xa, adjoint(gain) @ inner
    kept = x if p.e is None else adjoint(p.e) @ x @ p.e
    gap = hermitian(moved - kept + p.q - paid)
    terms = norm(be, moved) + norm(be, kept) + norm(be, p.q) + norm(be, paid)
    return Gap(gap, p.a - p.b @ gain, gain, terms)


def _step(be: Backend, p: Plant, closed: Array, gap: Array) -> Closed:
    """dx with a_cᴴ dx a_c - eᴴ dx e + gap = 0."""
    if p.e is not None:
        inverse = be.inv(p.e)
        closed, gap = closed @ inverse, adjoint(inverse) @ gap @ inverse
    return closed_stein(be, adjoint(closed), gap)


def _dual(be: Backend, p: Plant, closed: Array, c: Array) -> Array:
    """y with a_c y a_cᴴ - e y eᴴ + c = 0."""
    if p.e is None:
        return closed_stein(be, closed, c).x
    inverse = be.inv(p.e)
    return inverse @ closed_stein(be, closed @ inverse, c).x @ adjoint(inverse)


def _doubling(be: Backend, p: Standard) -> tuple[Array, Array]:
    return double(be, p.a, lambda: Symplectic(p.a, p.g, p.q))


def _hamiltonian(be: Backend, p: Standard) -> tuple[Array, Array, Array, Array]:
    """The Cayley transform (m - l)⁻¹(m + l) of the pencil m = [[a, 0], [-q, I]], l = [[I, g], [0, aᴴ]]."""
    xp, n = be.xp, p.a.shape[-1]
    one, ah = eye(be, p.a) + 0 * p.a, adjoint(p.a)

    def block(sign: int) -> Array:
        return xp.concat(
            [
                xp.concat([p.a + sign * one, sign * p.g], axis=-1),
                xp.concat([-p.q, one + sign * ah], axis=-1),
            ],
            axis=-2,
        )

    c = be.solve(block(-1), block(1))
    return c[:, :n, :n], c[:, :n, n:], c[:, n:, :n], c[:, n:, n:]


DISCRETE = Equation(True, 32, 1, _gap, exactly.discrete, _step, _dual, _doubling, _hamiltonian)


@declared(
    "(n,n),(n,m),(n,n),(m,m),(n,n),(n,m)->(n,n)",
    solve=solver_of(DISCRETE),
    residual=residual_of(DISCRETE),
    tangent=functools.partial(riccati_tangent, equation=DISCRETE),
    cotangent=functools.partial(riccati_cotangent, equation=DISCRETE),
    choices={"method": METHODS},
    hermitian=("q", "r"),
    neutral={"m": 1.0},
)
def solve_discrete_are(
    a: Array,
    b: Array,
    q: Array,
    r: Array,
    e: Array | None = None,
    s: Array | None = None,
    balanced: bool = True,
    *,
    method: str = "auto",
    errors: str = "raise",
) -> Array:
    """aᴴ x a - eᴴ x e - (aᴴ x b + s) (r + bᴴ x b)⁻¹ (bᴴ x a + sᴴ) + q = 0, stabilising, with SciPy's name and order.

    Parameters
    ----------
    a, b, q, r, e, s : arrays (..., n, n), (..., n, m), (..., n, n), (..., m, m), (..., n, n), (..., n, m), float32, float64,
        complex64 or complex128; q and r Hermitian, r may be singular, e invertible (default I), s by default 0
    balanced : whether each state is measured in a unit of its own, which keeps models in unlike units accurate
    method : "doubling" (Chu, Fan, Lin & Wang 2004), "sign" (of a Cayley transform; Roberts 1980), "qz" (Van Dooren 1981, on
        the CPU), each corrected by Newton's method (Hewer 1971), or "auto": doubling, and for members that it leaves short
        of working precision the best of it, the sign and QZ
    errors : "raise", or "nan" to get NaN for the members without an answer

    Notes
    -----
    In a compiled program a member without a stabilising solution is NaN. For an accelerator it holds doubling and Newton's
    method alone, right to three quarters of the digits or better, and NumPy solves what these leave; exported, that is NaN.

    What working precision leaves open, such as strongly unstable plants with few inputs, is solved in as many digits as it needs
    where it can be: on a CPU or in uncompiled calls, up to n = 32 (complex 16), in up to a second or two. Where that fails, the
    error brings the best iterate. q ⪰ 0 and r ≻ 0 make x ⪰ 0, to rounding.

    Derivatives solve a Stein equation with the closed loop, to the digits that rounding of the closed loop leaves of that; NaN
    where it leaves none, as with poles of 1e7 and a single input.

    The backward error of `certify` is the norm of the left side over ‖aᴴ x a‖ + ‖eᴴ x e‖ + ‖kᴴ (r + bᴴ x b) k‖ + ‖q‖.
    It may be large where x is right to the last bit: for strongly unstable plants the exact solution, rounded, leaves as much.

    x is Hermitian, and the eigenvalues of (a - b k, e) with the gain k = (r + bᴴ x b)⁻¹(bᴴ x a + sᴴ) lie inside the unit circle.
    Where some can only be moved to the circle the semi-stabilising solution is returned and the certificate says
    ``boundary``. Where there is none, `SpectrumError` says why: e singular, (a, b) not stabilisable, (a, q) not detectable on
    the circle, or none of these (then q or r is indefinite). ``ValueError`` for NumPy arrays q or r that are not Hermitian;
    on PyTorch and JAX their Hermitian part is taken.

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
    """
    raise NotImplementedError
