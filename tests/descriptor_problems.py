"""One well-posed problem with a descriptor e for functions that take one, with independent references, as in `problems`.

The functions take e behind their other arrays here.
"""

import mpmath as mp
import numpy as np

import direct
import matrices
import matsign
import truth
from keyword_arrays import by_position
from matrices import adjoint
from problems import Problem


def _continuous(solver, a, q, e):
    return solver(a, adjoint(e), e, adjoint(a), q)


def _discrete(solver, a, q, e):
    return solver(e, adjoint(e), -a, adjoint(a), q)


def _gramian(equation, solver, a, b, e):
    exact = truth.exact if solver is truth.generalized_sylvester else np.asarray
    a, b, e = (exact(x) for x in (a, b, e))
    q = b @ adjoint(b)
    x = equation(solver, a, -q if equation is _continuous else q, e)
    return (x + adjoint(x)) / 2


def _factor(equation, solver, a, b, e):
    make = truth.principal_factor if solver is truth.generalized_sylvester else direct.principal_factor
    return make(_gramian(equation, solver, a, b, e))


def _h2_norm(equation, solver, a, b, c, *d_and_e):
    *d, e = d_and_e
    x = _gramian(equation, solver, a, b, e)
    power = np.trace(c @ x @ adjoint(c)) + (np.linalg.norm(d[0]) ** 2 if d else 0)
    return np.array(mp.sqrt(power.real) if x.dtype == object else np.sqrt(power.real))


def _solution(equation, solver, a, q, e):
    return equation(solver, a, q, e)


def _pencil(rng, dtype, equation, n=3):
    """(a, e), stable."""
    a = -matrices.stable(rng, n, dtype) if equation is _continuous else matrices.contraction(rng, n, dtype)
    e = (np.eye(n) + 0.2 * matrices.gaussian(rng, n, n, dtype=dtype)).astype(dtype)
    return e @ a, e


def _problem(name, equation, reference, shapes, scales):
    """The problem of a function of a, arrays of these shapes, and e."""

    def make(rng, dtype):
        a, e = _pencil(rng, dtype, equation)
        return a, *(matrices.gaussian(rng, *shape, dtype=dtype) for shape in shapes), e

    def by(solver):
        return lambda *arrays: reference(equation, solver, *arrays)

    f = by_position(getattr(matsign, name))
    solvers = direct.generalized_sylvester_by_kronecker, truth.generalized_sylvester
    return Problem(name, f, make, *map(by, solvers), lambda s: (scales(s)[:-1], scales(s)[-1:]))


PROBLEMS_WITH_E = [
    _problem(prefix + name, equation, reference, shapes, scales)
    for equation, prefix, reference, name, shapes, scales in (
        (_continuous, "solve_continuous_", _solution, "lyapunov", [(3, 3)], lambda s: (s, s, 1 / s, s)),
        (_discrete, "solve_discrete_", _solution, "lyapunov", [(3, 3)], lambda s: (s, s, s, 1 / s)),
        (_continuous, "", _gramian, "gramian", [(3, 2)], lambda s: (s, s, 1 / s, s**2)),
        (_discrete, "discrete_", _gramian, "gramian", [(3, 2)], lambda s: (s, s, s, 1)),
        (_continuous, "", _factor, "lyapunov_factor", [(3, 4)], lambda s: (s, s, s, 1)),
        (_discrete, "discrete_", _factor, "lyapunov_factor", [(3, 4)], lambda s: (s, s, s, 1)),
        (_continuous, "", _h2_norm, "h2_norm", [(3, 2), (2, 3)], lambda s: (s, s, 1 / s, s, 1 / s)),
        (_discrete, "discrete_", _h2_norm, "h2_norm", [(3, 2), (2, 3), (2, 2)], lambda s: (s, s, s, s, s, s)),
    )
]
