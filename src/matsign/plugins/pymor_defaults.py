"""The solvers of matsign as the defaults of pyMOR."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from pymor.solvers.matrix_equations import default
from pymor.solvers.matrix_equations.utils import mat_eqn_sparse_min_size

from matsign.plugins.pymor import (
    MatsignLyapunovSolver,
    MatsignLyapunovSolverLR,
    MatsignPositiveRiccatiSolver,
    MatsignPositiveRiccatiSolverLR,
    MatsignRiccatiSolver,
    MatsignRiccatiSolverLR,
    MatsignSylvesterSolver,
)


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
