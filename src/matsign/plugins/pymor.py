"""Solver classes for pyMOR's matrix equations.

pyMOR writes an equation for a model or, with `trans`, for its dual; the columns of its vector arrays B, C and S are those of
the tall matrices here, so that the equation of the dual has aᴴ and eᴴ in place of a and e.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pymor.algorithms.to_matrix import to_matrix
from pymor.solvers.matrix_equations.interface import (
    LyapunovSolver,
    LyapunovSolverLR,
    PositiveRiccatiSolver,
    PositiveRiccatiSolverLR,
    RiccatiSolver,
    RiccatiSolverLR,
    SylvesterSolver,
)

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
    """Compute the solution of a Lyapunov equation of pyMOR.

    See Also
    --------
    MatsignLyapunovSolverLR : A factor of the solution.

    Notes
    -----
    `matsign.solve_continuous_lyapunov` or `matsign.solve_discrete_lyapunov` solve it: A need not be stable, and E is not
    inverted. A singular equation raises `matsign.SpectrumError`.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign.plugins.pymor import MatsignLyapunovSolver
    >>> from pymor.solvers.matrix_equations.equations import LyapunovEquation
    >>> a, b = np.array([[-1.0, 1.0], [0.0, -2.0]]), np.ones((2, 1))
    >>> x = LyapunovEquation.from_matrices(a, None, b).solve(MatsignLyapunovSolver())
    >>> bool(np.abs(a @ x + x @ a.T + b @ b.T).max() < 1e-15)
    True
    """

    def _solve(self, equation: Any) -> NDArray:
        a, e, b = _lyapunov_matrices(equation)
        if equation.cont_time:
            return matsign.solve_continuous_lyapunov(a, -b @ b.conj().T, e=e)
        return matsign.solve_discrete_lyapunov(a, b @ b.conj().T, e=e)


class MatsignLyapunovSolverLR(LyapunovSolverLR):
    """Compute a factor Z of the solution Z Zᴴ of a Lyapunov equation of pyMOR.

    See Also
    --------
    MatsignLyapunovSolver : The solution itself.

    Notes
    -----
    `matsign.lyapunov_factor` or `matsign.discrete_lyapunov_factor` compute it without the solution. An A that is not stable
    raises `matsign.SpectrumError`.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign.plugins.pymor import MatsignLyapunovSolverLR
    >>> from pymor.solvers.matrix_equations.equations import LyapunovEquation
    >>> a, b = np.array([[-1.0, 1.0], [0.0, -2.0]]), np.ones((2, 1))
    >>> z = LyapunovEquation.from_matrices(a, None, b).solve_lr(MatsignLyapunovSolverLR()).to_numpy()
    >>> bool(np.abs(a @ z @ z.T + z @ z.T @ a.T + b @ b.T).max() < 1e-14)
    True
    """

    def _solve(self, equation: Any) -> Any:
        a, e, b = _lyapunov_matrices(equation)
        factor = matsign.lyapunov_factor if equation.cont_time else matsign.discrete_lyapunov_factor
        return equation.A.source.from_numpy(_without_zero_columns(factor(a, b, e=e)))


class MatsignRiccatiSolver(RiccatiSolver):
    """Compute the stabilising solution of a Riccati equation of pyMOR.

    See Also
    --------
    MatsignRiccatiSolverLR : A factor of the solution.

    Notes
    -----
    `matsign.solve_continuous_are` solves it, with R, S and E. Without a stabilising solution it raises
    `matsign.SpectrumError`.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign.plugins.pymor import MatsignRiccatiSolver
    >>> from pymor.solvers.matrix_equations.equations import RiccatiEquation
    >>> a, b = np.array([[-1.0, 1.0], [0.0, -2.0]]), np.ones((2, 1))
    >>> x = RiccatiEquation.from_matrices(a, None, b, b.T).solve(MatsignRiccatiSolver())
    >>> bool(np.abs(a @ x + x @ a.T - x @ b @ b.T @ x + b @ b.T).max() < 1e-14)
    True
    """

    def _solve(self, equation: Any) -> NDArray:
        return _solve_riccati(equation, 1)


class MatsignRiccatiSolverLR(RiccatiSolverLR):
    """Compute a factor Z of the stabilising solution Z Zᴴ of a Riccati equation of pyMOR.

    See Also
    --------
    MatsignRiccatiSolver : The solution itself.

    Notes
    -----
    Without E, R and S it is that of `matsign.riccati_factor`, which never forms the solution; otherwise it has as many
    columns as the solution of `MatsignRiccatiSolver` has rank. With an S the solution may be indefinite; it has no factor
    then, which is a `numpy.linalg.LinAlgError`.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign.plugins.pymor import MatsignRiccatiSolverLR
    >>> from pymor.solvers.matrix_equations.equations import RiccatiEquation
    >>> a, b = np.array([[-1.0, 1.0], [0.0, -2.0]]), np.ones((2, 1))
    >>> z = RiccatiEquation.from_matrices(a, None, b, b.T).solve_lr(MatsignRiccatiSolverLR()).to_numpy()
    >>> x = z @ z.T
    >>> bool(np.abs(a @ x + x @ a.T - x @ b @ b.T @ x + b @ b.T).max() < 1e-14)
    True
    """

    def _solve(self, equation: Any) -> Any:
        if equation.E is None and equation.R is None and equation.S is None:
            a, b, c = _riccati_matrices(equation)
            z = matsign.riccati_factor(a, b, c.conj().T)
        else:
            z = _factor(_solve_riccati(equation, 1))
        return equation.A.source.from_numpy(z)


class MatsignPositiveRiccatiSolver(PositiveRiccatiSolver):
    """Compute the stabilising solution of a positive Riccati equation of pyMOR.

    See Also
    --------
    MatsignPositiveRiccatiSolverLR : A factor of the solution.

    Notes
    -----
    These are the equations of bounded-real and positive-real balancing, where the quadratic term has a plus sign:
    `matsign.solve_continuous_are` solves them with -R. A model that is not bounded or positive real has no solution, which is
    a `matsign.SpectrumError`.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign.plugins.pymor import MatsignPositiveRiccatiSolver
    >>> from pymor.solvers.matrix_equations.equations import PositiveRiccatiEquation
    >>> a, b = np.array([[-1.0, 1.0], [0.0, -2.0]]), np.ones((2, 1))
    >>> x = PositiveRiccatiEquation.from_matrices(a, None, b / 4, b.T / 4).solve(MatsignPositiveRiccatiSolver())
    >>> bool(np.abs(a @ x + x @ a.T + x @ b @ b.T @ x / 16 + b @ b.T / 16).max() < 1e-15)
    True
    """

    def _solve(self, equation: Any) -> NDArray:
        return _solve_riccati(equation, -1)


class MatsignPositiveRiccatiSolverLR(PositiveRiccatiSolverLR):
    """Compute a factor Z of the stabilising solution Z Zᴴ of a positive Riccati equation of pyMOR.

    See Also
    --------
    MatsignPositiveRiccatiSolver : The solution itself.

    Notes
    -----
    It has as many columns as the solution of `MatsignPositiveRiccatiSolver` has rank. A solution that is not positive
    semidefinite is a `numpy.linalg.LinAlgError`.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign.plugins.pymor import MatsignPositiveRiccatiSolverLR
    >>> from pymor.solvers.matrix_equations.equations import PositiveRiccatiEquation
    >>> a, b = np.array([[-1.0, 1.0], [0.0, -2.0]]), np.ones((2, 1))
    >>> equation = PositiveRiccatiEquation.from_matrices(a, None, b / 4, b.T / 4)
    >>> z = equation.solve_lr(MatsignPositiveRiccatiSolverLR()).to_numpy()
    >>> x = z @ z.T
    >>> bool(np.abs(a @ x + x @ a.T + x @ b @ b.T @ x / 16 + b @ b.T / 16).max() < 1e-15)
    True
    """

    def _solve(self, equation: Any) -> Any:
        return equation.A.source.from_numpy(_factor(_solve_riccati(equation, -1)))


class MatsignSylvesterSolver(SylvesterSolver):
    """Compute the solutions V, W or both of a Sylvester equation of pyMOR with dense matrices.

    See Also
    --------
    MatsignLyapunovSolver : The equation for Gramians.

    Notes
    -----
    `matsign.solve_sylvester` solves it, or with E or Er `matsign.solve_generalized_sylvester`. All matrices become dense: for a
    large sparse A pyMOR's own solver is the better one. A singular equation raises `matsign.SpectrumError`.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign.plugins.pymor import MatsignSylvesterSolver
    >>> from pymor.solvers.matrix_equations.equations import SylvesterEquation
    >>> a, b = np.array([[-1.0, 1.0], [0.0, -2.0]]), np.ones((2, 1))
    >>> equation = SylvesterEquation.from_matrices(a, -np.eye(1), B=b, Br=np.ones((1, 1)))
    >>> v = equation.solve(MatsignSylvesterSolver()).to_numpy()
    >>> bool(np.abs(a @ v - v + b).max() < 1e-15)
    True
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


def _dense(operator: Any, *, adjoint: bool) -> NDArray:
    """The matrix of an operator, or its adjoint."""
    x = to_matrix(operator, format="dense")
    return x.conj().T if adjoint else x


def _lyapunov_matrices(equation: Any) -> tuple[NDArray, NDArray | None, NDArray]:
    """a, e and b of a x eᴴ + e x aᴴ + b bᴴ = 0 or a x aᴴ - e x eᴴ + b bᴴ = 0."""
    e = None if equation.E is None else _dense(equation.E, adjoint=equation.trans)
    return _dense(equation.A, adjoint=equation.trans), e, equation.B.to_numpy()


def _riccati_matrices(equation: Any) -> tuple[NDArray, NDArray, NDArray]:
    """a, b and c of aᴴ x e + eᴴ x a - (eᴴ x b + s) r⁻¹ (bᴴ x e + sᴴ) + c cᴴ = 0."""
    b, c = (equation.B, equation.C) if equation.trans else (equation.C, equation.B)
    return _dense(equation.A, adjoint=not equation.trans), b.to_numpy(), c.to_numpy()


def _solve_riccati(equation: Any, sign: int) -> NDArray:
    """The stabilising solution of the equation with R, or with -R if the sign is -1."""
    a, b, c = _riccati_matrices(equation)
    e = None if equation.E is None else _dense(equation.E, adjoint=not equation.trans)
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
