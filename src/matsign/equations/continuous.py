"""The continuous algebraic Riccati equation  aᴴ x e + eᴴ x a - (eᴴ x b + s) r⁻¹ (bᴴ x e + sᴴ) + q = 0.

Its stabilising solution makes every eigenvalue of the closed loop (a - b k, e), k = r⁻¹(bᴴ x e + sᴴ), stable. In standard form,
[I; x] spans the stable invariant subspace of the Hamiltonian matrix [[a, -g], [-q, -aᴴ]]. A Cayley transform makes it a
symplectic pencil, whose doubling (Chu, Fan & Lin 2005) costs one inverse of size n a step; where that loses too much, the
sign of the Hamiltonian matrix (Roberts 1980), and on a CPU the QZ algorithm on the extended pencil (Van Dooren 1981), which
never inverts r. Newton's method corrects all of them.

Differential:  a_cᴴ dx e + eᴴ dx a_c = -(the variation of the left side), a Lyapunov equation with the closed loop.
"""

from __future__ import annotations

import functools
import math
from typing import Any

from matsign.backends import Backend
from matsign.engine.declare import declared
from matsign.engine.linear import adjoint, column, eye, hermitian, norm, plus_identity
from matsign.engine.symplectic import Closed, Symplectic, closed_lyapunov, double
from matsign.equations import exactly
from matsign.equations.algebraic import METHODS, residual_of, solver_of
from matsign.equations.closed_loop import riccati_cotangent, riccati_tangent
from matsign.equations.newton_kleinman import Equation, Gap, solve_weighted
from matsign.equations.plant import Plant, Standard

Array = Any


def _gap(be: Backend, p: Plant, x: Array) -> Gap:
    xe = x if p.e is None else x @ p.e
    once = adjoint(p.a) @ xe
    inner = adjoint(p.b) @ xe
    if p.s is not None:
        inner = inner + adjoint(p.s)
    gain = solve_weighted(be, p.r, inner)
    paid = adjoint(gain) @ inner
    terms = 2 * norm(be, once) + norm(be, p.q) + norm(be, paid)
    gap = 2 * once + p.q - paid
    del once, paid
    return Gap(hermitian(gap), p.a - p.b @ gain, gain, terms)


def _step(be: Backend, p: Plant, closed: Array, gap: Array) -> Closed:
    """dx with a_cᴴ dx e + eᴴ dx a_c + gap = 0."""
    if p.e is not None:
        inverse = be.inv(p.e)
        closed, gap = closed @ inverse, adjoint(inverse) @ gap @ inverse
    return closed_lyapunov(be, adjoint(closed), gap)


def _dual(be: Backend, p: Plant, closed: Array, c: Array) -> Array:
    """y with a_c y eᴴ + e y a_cᴴ + c = 0."""
    if p.e is None:
        return closed_lyapunov(be, closed, c).x
    inverse = be.inv(p.e)
    return inverse @ closed_lyapunov(be, closed @ inverse, c).x @ adjoint(inverse)


def _doubling(be: Backend, p: Standard) -> tuple[Array, Array]:
    """(x, steps) of the standard equation."""
    return double(be, p.a, lambda: _cayley(be, p))


def _cayley(be: Backend, p: Standard) -> Symplectic:
    """The Cayley transform of [[a, -g], [-q, -aᴴ]] at a point where it is well conditioned, as a pencil of three blocks."""
    xp, n = be.xp, p.a.shape[-1]
    size = xp.maximum(norm(be, p.a), xp.sqrt(norm(be, p.g)) * xp.sqrt(norm(be, p.q)))

    def shifted(state: Any) -> Any:
        a, _, _, gamma = state
        v = be.inv(a - column(gamma) * eye(be, a))
        near = ~(norm(be, v) * gamma < 50 * math.sqrt(n))
        return (a, v, gamma, xp.where(near, 1.7 * gamma, gamma)), near

    def again(a: Array, v: Array, gamma: Array, further: Array) -> tuple[Array, Array]:
        _, v, gamma, _ = be.loop(shifted, (a, v, gamma, further), 3)
        return v, gamma

    gamma = 1.1 / math.sqrt(n) * xp.where(size > 0, size, xp.ones_like(size))
    first, near = shifted((p.a, p.a, gamma, gamma))
    v, gamma = be.seldom(near, again, lambda a, v, gamma, _: (v, gamma), *first)
    vg, qv = v @ p.g, p.q @ v
    w = be.inv(adjoint(p.a - column(gamma) * eye(be, p.a)) + qv @ p.g)
    twice = column(2 * gamma)
    return Symplectic(
        plus_identity(be, 1.0, twice * adjoint(w)), hermitian(twice * (vg @ w)), hermitian(twice * (w @ qv))
    )


def _hamiltonian(be: Backend, p: Standard) -> tuple[Array, Array, Array, Array]:
    return p.a, -p.g, -p.q, -adjoint(p.a)


CONTINUOUS = Equation(False, 32, 0, _gap, exactly.continuous, _step, _dual, _doubling, _hamiltonian)


@declared(
    "(n,n),(n,m),(n,n),(m,m),(n,n),(n,m)->(n,n)",
    solve=solver_of(CONTINUOUS),
    residual=residual_of(CONTINUOUS),
    tangent=functools.partial(riccati_tangent, equation=CONTINUOUS),
    cotangent=functools.partial(riccati_cotangent, equation=CONTINUOUS),
    choices={"method": METHODS},
    hermitian=("q", "r"),
    neutral={"m": 1.0},
)
def solve_continuous_are(
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
    """aᴴ x e + eᴴ x a - (eᴴ x b + s) r⁻¹ (bᴴ x e + sᴴ) + q = 0, the stabilising solution, with SciPy's name and order.

    Parameters
    ----------
    a, b, q, r, e, s : arrays (..., n, n), (..., n, m), (..., n, n), (..., m, m), (..., n, n), (..., n, m), float32, float64,
        complex64 or complex128; q and r Hermitian, e invertible (default I), s by default 0
    balanced : whether each state is measured in a unit of its own, which keeps models in unlike units accurate
    method : "doubling" (Chu, Fan & Lin 2005), "sign" (Roberts 1980), "qz" (Van Dooren 1981, on the CPU), each corrected by
        Newton's method (Kleinman 1968), or "auto": doubling, and for members that it leaves short of working precision the
        best of it, the sign and QZ
    errors : "raise", or "nan" to get NaN for the members without an answer

    Notes
    -----
    In a compiled program a member without a stabilising solution is NaN. For an accelerator it holds doubling and Newton's
    method alone, right to three quarters of the digits or better, and NumPy solves what these leave; exported, that is NaN.

    What working precision leaves open, such as strongly unstable plants with few inputs, is solved in as many digits as it needs
    where it can be: on a CPU or in uncompiled calls, up to n = 32 (complex 16), in up to a second or two. Where that fails, the
    error brings the best iterate. q ⪰ 0 and r ≻ 0 make x ⪰ 0, to rounding.

    The backward error of `certify` is the norm of the left side over ‖aᴴ x e‖ + ‖eᴴ x a‖ + ‖kᴴ r k‖ + ‖q‖.
    It may be large where x is right to the last bit: for strongly unstable plants the exact solution, rounded, leaves as much.

    x is Hermitian, and the eigenvalues of (a - b k, e) with the gain k = r⁻¹(bᴴ x e + sᴴ) lie in the left half plane. Where
    some can only be moved to the imaginary axis the semi-stabilising solution is returned and the certificate says
    ``boundary``. Where there is none, `SpectrumError` says why: r or e singular, (a, b) not stabilisable, (a, q) not
    detectable on the axis, or none of these (then q or r is indefinite). ``ValueError`` for NumPy arrays q or r that are not
    Hermitian; on PyTorch and JAX their Hermitian part is taken.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import solve_continuous_are
    >>> a, b = np.array([[0.0, 1.0], [0.0, 0.0]]), np.array([[0.0], [1.0]])
    >>> q, r = np.eye(2), np.eye(1)
    >>> x = solve_continuous_are(a, b, q, r)
    >>> bool(np.linalg.norm(a.T @ x + x @ a - x @ b @ b.T @ x + q) < 1e-14)
    True
    """
    raise NotImplementedError
