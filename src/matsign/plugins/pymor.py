"""Solver classes for pyMOR's matrix equations, and their registration as its defaults.

pyMOR writes an equation for a model or, with `trans`, for its dual; the columns of its vector arrays B, C and S are those of
the tall matrices here, so that the equation of the dual has aᴴ and eᴴ in place of a and e.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
from pymor.algorithms.to_matrix import to_matrix
from pymor.solvers.matrix_equations import default
from pymor.solvers.matrix_equations.interface import (
    LyapunovSolver,
    LyapunovSolverLR,
    PositiveRiccatiSolver,
    PositiveRiccatiSolverLR,
    RiccatiSolver,
    RiccatiSolverLR,
    SylvesterSolver,
)
from pymor.solvers.matrix_equations.utils import mat_eqn_sparse_min_size

import matsign
from matsign._typing import NDArray

__all__ = [
    "MatsignLyapunovSolver",
    "MatsignLyapunovSolverLR",
    "MatsignPositiveRiccatiSolver",
    "MatsignPositiveRiccatiSolverLR",
    "MatsignRiccatiSolver",
    "MatsignRiccatiSolverLR",
    "MatsignSylvesterSolver",
]


class MatsignLyapunovSolver(LyapunovSolver):
    """Compute the solution of a Lyapunov equation, which needs no stable A.

    `matsign.solve_continuous_lyapunov` or `matsign.solve_discrete_lyapunov`; E is not inverted.
    """

    def _solve(self, equation: Any) -> NDArray:
        a, e, b = _lyapunov_matrices(equation)
        if equation.cont_time:
            return matsign.solve_continuous_lyapunov(a, -b @ b.conj().T, e=e)
        return matsign.solve_discrete_lyapunov(a, b @ b.conj().T, e=e)


class MatsignLyapunovSolverLR(LyapunovSolverLR):
    """Compute a factor of the solution of a Lyapunov equation with a stable A, without the solution itself.

    `matsign.lyapunov_factor` or `matsign.discrete_lyapunov_factor`; a model that is not stable is an error.
    """

    def _solve(self, equation: Any) -> Any:
        a, e, b = _lyapunov_matrices(equation)
        factor = matsign.lyapunov_factor if equation.cont_time else matsign.discrete_lyapunov_factor
        return equation.A.source.from_numpy(_without_zero_columns(factor(a, b, e=e)))


class MatsignRiccatiSolver(RiccatiSolver):
    """Compute the stabilising solution of a Riccati equation by `matsign.solve_continuous_are`."""

    def _solve(self, equation: Any) -> NDArray:
        return _solve_riccati(equation, 1)


class MatsignRiccatiSolverLR(RiccatiSolverLR):
    """Compute a factor of the stabilising solution of a Riccati equation by `matsign.solve_continuous_are`."""

    def _solve(self, equation: Any) -> Any:
        return equation.A.source.from_numpy(_factor(_solve_riccati(equation, 1)))


class MatsignPositiveRiccatiSolver(PositiveRiccatiSolver):
    """Compute the stabilising solution of a positive Riccati equation by `matsign.solve_continuous_are` with -R."""

    def _solve(self, equation: Any) -> NDArray:
        return _solve_riccati(equation, -1)


class MatsignPositiveRiccatiSolverLR(PositiveRiccatiSolverLR):
    """Compute a factor of the stabilising solution of a positive Riccati equation, which is positive semidefinite."""

    def _solve(self, equation: Any) -> Any:
        return equation.A.source.from_numpy(_factor(_solve_riccati(equation, -1)))


class MatsignSylvesterSolver(SylvesterSolver):
    """Compute the solutions of a Sylvester equation with dense matrices.

    `matsign.solve_sylvester`, or with E or Er `matsign.solve_generalized_sylvester`.
    """

    def _solve(self, equation: Any) -> Any:
        a, ar, e, er, b, br, c, cr = equation.to_matrices()
        found = []
        if b is not None:
            found.append(_solve_sylvester(a, _adjoint(ar), e, _adjoint(er), -b @ br.conj().T))
        if c is not None:
            found.append(_solve_sylvester(_adjoint(a), ar, _adjoint(e), er, -c.conj().T @ cr))
        arrays = [equation.A.source.from_numpy(x) for x in found]
        return arrays[0] if len(arrays) == 1 else tuple(arrays)


def _adjoint(x: Any) -> Any:
    return None if x is None else x.conj().T


def _solve_sylvester(a: NDArray, ar: NDArray, e: NDArray | None, er: NDArray | None, q: NDArray) -> NDArray:
    """a x er + e x ar = q."""
    if e is None and er is None:
        return matsign.solve_sylvester(a, ar, q)
    e = np.eye(len(a)) if e is None else e
    er = np.eye(len(ar)) if er is None else er
    return matsign.solve_generalized_sylvester(a, er, e, ar, q)


def _coefficients(equation: Any, adjoint: bool) -> tuple[NDArray, NDArray | None]:
    """A and E, or their adjoints."""
    a = to_matrix(equation.A, format="dense")
    e = None if equation.E is None else to_matrix(equation.E, format="dense")
    return (_adjoint(a), _adjoint(e)) if adjoint else (a, e)


def _lyapunov_matrices(equation: Any) -> tuple[NDArray, NDArray | None, NDArray]:
    """a, e and b of a x eᴴ + e x aᴴ + b bᴴ = 0 or a x aᴴ - e x eᴴ + b bᴴ = 0."""
    a, e = _coefficients(equation, equation.trans)
    return a, e, equation.B.to_numpy()


def _solve_riccati(equation: Any, sign: int) -> NDArray:
    """The stabilising solution of the equation with R, or with -R if the sign is -1."""
    a, e = _coefficients(equation, not equation.trans)
    b, c = (x.to_numpy() for x in ((equation.B, equation.C) if equation.trans else (equation.C, equation.B)))
    r = np.eye(b.shape[1]) if equation.R is None else equation.R
    s = None if equation.S is None else equation.S.to_numpy()
    return matsign.solve_continuous_are(a, b, c @ c.conj().T, sign * r, e, s)


def _factor(x: NDArray) -> NDArray:
    """z with z zᴴ = x to rounding for a positive semidefinite x, with as many columns as x has rank."""
    values, vectors = np.linalg.eigh((x + x.conj().T) / 2)
    size, rounding = np.abs(values).max(initial=0), len(x) * np.finfo(x.dtype).eps
    if values.min(initial=0) < -np.sqrt(rounding) * size:
        raise np.linalg.LinAlgError(
            f"the solution has no factor Z Zᴴ: its least eigenvalue is {values.min():.1e}, its largest {size:.1e}; "
            "use the solver that returns the solution itself"
        )
    kept = values > rounding * size
    return vectors[:, kept] * np.sqrt(values[kept])


def _without_zero_columns(z: NDArray) -> NDArray:
    return z[:, np.any(z != 0, axis=0)]


def register() -> ExitStack:
    """Make these solvers the defaults for dense equations; closing the result undoes it."""
    undo = ExitStack()
    for cls, solver, is_sparse in _DEFAULTS:
        original = cls._solve
        if not hasattr(original, "without_matsign"):
            cls._solve = _default(original, solver, is_sparse)
            undo.callback(setattr, cls, "_solve", original)
    return undo


def _default(original: Callable[..., Any], solver: type, is_sparse: Callable[[Any], bool]) -> Callable[..., Any]:
    """The method `_solve` of a default solver, which leaves sparse equations to the original one."""

    def _solve(self: Any, equation: Any) -> Any:
        return original(self, equation) if is_sparse(equation) else solver().solve(equation)

    _solve.__dict__["without_matsign"] = original
    return _solve


def _never(equation: Any) -> bool:
    return False


def _is_large(equation: Any) -> bool:
    return equation.dim >= mat_eqn_sparse_min_size()


def _has_no_dense_matrix(equation: Any) -> bool:
    return getattr(equation.A, "sparse", True)


def _is_large_and_continuous(equation: Any) -> bool:
    return equation.cont_time and _is_large(equation)


# Which equations pyMOR gives to its sparse solvers is written in its defaults; its only solver of Sylvester equations, by solves
# with shifted matrices, is slow for a dense A.
_DEFAULTS = (
    (default.DefaultLyapunovSolver, MatsignLyapunovSolver, _never),
    (default.DefaultLyapunovSolverLR, MatsignLyapunovSolverLR, _is_large_and_continuous),
    (default.DefaultRiccatiSolver, MatsignRiccatiSolver, _never),
    (default.DefaultRiccatiSolverLR, MatsignRiccatiSolverLR, _is_large),
    (default.DefaultPositiveRiccatiSolver, MatsignPositiveRiccatiSolver, _never),
    (default.DefaultPositiveRiccatiSolverLR, MatsignPositiveRiccatiSolverLR, _never),
    (default.DefaultSylvesterSolver, MatsignSylvesterSolver, _has_no_dense_matrix),
)
