"""The solver classes for pyMOR on the cases of its own tests, and what registration changes and restores.

The cases are those of pymortests/solvers/matrix_equations of pyMOR 2026.1, which its wheel has not: convection and diffusion by
finite differences, or with E by finite elements, with the same residuals and bounds.
"""

import itertools
import pickle
import sys

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse

from matsign import SpectrumError, plugins

pytest.importorskip("pymor", reason="pyMOR is not installed")
from pymor.models.iosys import LTIModel
from pymor.reductors.bt import BTReductor
from pymor.solvers.matrix_equations.default import MatrixEquationSolvers
from pymor.solvers.matrix_equations.equations import (
    LyapunovEquation,
    PositiveRiccatiEquation,
    RiccatiEquation,
    SylvesterEquation,
)

from matsign.plugins.pymor import (
    MatsignLyapunovSolver,
    MatsignLyapunovSolverLR,
    MatsignPositiveRiccatiSolver,
    MatsignPositiveRiccatiSolverLR,
    MatsignRiccatiSolver,
    MatsignRiccatiSolverLR,
    MatsignSylvesterSolver,
)

N = 10
BOOLEANS = (False, True)


def convection_diffusion(n, convection, with_e, discrete=False):
    h = n + 1
    a = scipy.sparse.diags_array(
        [-2.0 * h**2, h**2 + convection * h / 2, h**2 - convection * h / 2], offsets=[0, -1, 1], shape=(n, n)
    )
    e = scipy.sparse.diags_array([2 / 3, 1 / 6, 1 / 6], offsets=[0, -1, 1], shape=(n, n)) if with_e else None
    if discrete:
        a = (scipy.sparse.eye_array(n) if e is None else e) + 0.1 / (4 * h**2 + convection * h) * a
    return a.tocsc(), e if e is None else e.tocsc()


def dense(x, n=N):
    return np.eye(n) if x is None else x.toarray() if scipy.sparse.issparse(x) else x


@pytest.mark.parametrize("discrete", BOOLEANS)
@pytest.mark.parametrize("with_e", BOOLEANS)
def test_lyapunov_equations(discrete, with_e, rng):
    for trans, m in itertools.product(BOOLEANS, (1, 2)):
        a, e = convection_diffusion(N, 0.1, with_e, discrete)
        b = rng.standard_normal((N, m))
        equation = LyapunovEquation.from_matrices(a, e, b.T if trans else b, trans=trans, cont_time=not discrete)
        z = equation.solve_lr(MatsignLyapunovSolverLR()).to_numpy()
        assert z.shape[1] <= N
        assert lyapunov_residual(a, e, b, z @ z.T, trans, discrete) < 1e-10
        general = rng.standard_normal((N, N))  # not stable
        equation = LyapunovEquation.from_matrices(general, e, b.T if trans else b, trans=trans, cont_time=not discrete)
        x = equation.solve(MatsignLyapunovSolver())
        assert type(x) is np.ndarray
        size = (
            1 + np.linalg.norm(general) ** 2 * np.linalg.norm(x) / np.linalg.norm(b) ** 2
        )  # large for nearly singular ones
        assert lyapunov_residual(general, e, b, x, trans, discrete) < 1e-13 * size


def lyapunov_residual(a, e, b, x, trans, discrete):
    a, e = (dense(m).T if trans else dense(m) for m in (a, e))
    left = a @ x @ a.T - e @ x @ e.T if discrete else a @ x @ e.T + e @ x @ a.T
    return np.linalg.norm(left + b @ b.T) / np.linalg.norm(b @ b.T)


@pytest.mark.parametrize("positive", BOOLEANS)
@pytest.mark.parametrize("with_e", BOOLEANS)
def test_riccati_equations(positive, with_e, rng):
    kind = PositiveRiccatiEquation if positive else RiccatiEquation
    dense_solver, factor_solver = (
        (MatsignPositiveRiccatiSolver, MatsignPositiveRiccatiSolverLR)
        if positive
        else (MatsignRiccatiSolver, MatsignRiccatiSolverLR)
    )
    for trans, with_r, with_s, m in itertools.product(BOOLEANS, BOOLEANS, BOOLEANS, (1, 2)):
        a, e = convection_diffusion(N, 1, with_e)
        b, c = rng.standard_normal((N, m)), rng.standard_normal((2, N))
        d, root = rng.standard_normal((2, m)), rng.standard_normal((m, m) if trans else (2, 2))
        r = root @ root.T + (d.T @ d if trans else d @ d.T) if with_r else None
        s = 0.1 * (c.T @ d if trans else d @ b.T) if with_s else None
        equation = kind.from_matrices(a, e, b, c, r, s, trans=trans)
        x = equation.solve(dense_solver())
        arguments = (a, e, b, c, r, s) if trans else transposed(a, e, c.T, b.T, r, s)
        assert riccati_residual(*arguments, x, positive) < 1e-8
        if np.linalg.eigvalsh(x).min() > 0:
            z = equation.solve_lr(factor_solver()).to_numpy()
            assert riccati_residual(*arguments, z @ z.T, positive) < 1e-8


def transposed(a, e, b, c, r, s):
    return a.T, e if e is None else e.T, b, c, r, s if s is None else s.T


def riccati_residual(a, e, b, c, r, s, x, positive):
    a, e = dense(a), dense(e)
    r = (np.eye(b.shape[1]) if r is None else r) * (-1 if positive else 1)
    right = b.T @ x @ e + (0 if s is None else s.T)
    gain = np.linalg.solve(r, right)
    assert scipy.linalg.eigvals(a - b @ gain, e).real.max() < 0
    return np.linalg.norm(a.T @ x @ e + e.T @ x @ a - right.T @ gain + c.T @ c) / np.linalg.norm(c.T @ c)


@pytest.mark.parametrize("with_e", BOOLEANS)
def test_sylvester_equations(with_e, rng):
    n, k = 30, 5
    a, e = convection_diffusion(n, 1, with_e)
    ar = rng.standard_normal((k, k)) - k * np.eye(k)
    er = rng.standard_normal((k, k))
    er = (er + er.T) / 2 + k * np.eye(k) if with_e else None
    b, br, c, cr = (rng.standard_normal(shape) for shape in ((n, 2), (k, 2), (1, n), (1, k)))
    equation = SylvesterEquation.from_matrices(a, ar, e, er, B=b, Br=br, C=c, Cr=cr)
    v, w = (x.to_numpy() for x in equation.solve(MatsignSylvesterSolver()))
    a, e, er = dense(a), dense(e, n), dense(er, k)
    assert np.linalg.norm(a @ v @ er.T + e @ v @ ar.T + b @ br.T) < 1e-10 * np.linalg.norm(b @ br.T)
    assert np.linalg.norm(a.T @ w @ er + e.T @ w @ ar + c.T @ cr) < 1e-10 * np.linalg.norm(c.T @ cr)
    only = SylvesterEquation.from_matrices(a, ar, e, er, B=b, Br=br).solve(MatsignSylvesterSolver())
    np.testing.assert_allclose(only.to_numpy(), v)


def model(rng, **options):
    a, e = convection_diffusion(N, 1, True)
    return LTIModel.from_matrices(
        a.toarray(), rng.standard_normal((N, 2)), rng.standard_normal((1, N)), E=e.toarray(), **options
    )


def test_registration_changes_the_defaults_and_restores_them(rng, monkeypatch):
    used = []
    for solver in (MatsignLyapunovSolver, MatsignLyapunovSolverLR, MatsignRiccatiSolverLR, MatsignSylvesterSolver):
        solve = solver._solve
        monkeypatch.setattr(solver, "_solve", lambda self, x, f=solve: used.append(type(self).__name__) or f(self, x))
    system = model(rng)
    expected = system.gramian("c_dense")
    assert used == []
    with plugins.register_pymor():
        with plugins.register_pymor():
            pass
        again = system.with_(name="another")
        np.testing.assert_allclose(again.gramian("c_dense"), expected, rtol=1e-9, atol=1e-12)
        again.gramian("lqg_c_lr")
        small = BTReductor(again).reduce(3)
        assert set(used) == {"MatsignLyapunovSolver", "MatsignLyapunovSolverLR", "MatsignRiccatiSolverLR"}
    bound = 2 * sum(system.hsv()[3:])
    for w in (0, 1, 30):
        assert (
            np.linalg.norm(system.transfer_function.eval_tf(1j * w) - small.transfer_function.eval_tf(1j * w)) < bound
        )
    used.clear()
    system.with_(name="third").gramian("o_dense")
    assert used == []


def test_sparse_equations_stay_with_the_sparse_solvers(rng, monkeypatch):
    def never(self, equation):
        raise AssertionError("a sparse equation became dense")

    for solver in (MatsignLyapunovSolverLR, MatsignRiccatiSolverLR, MatsignSylvesterSolver):
        monkeypatch.setattr(solver, "_solve", never)
    a, _ = convection_diffusion(1000, 1, False)
    b = rng.standard_normal((1000, 1))
    with plugins.register_pymor():
        assert len(LyapunovEquation.from_matrices(a, None, b).solve_lr()) < 100
        sylvester = SylvesterEquation.from_matrices(a, -np.eye(2), B=b, Br=np.ones((2, 1)))
        assert len(sylvester.solve()) == 2


def test_solvers_of_one_model(rng):
    solvers = MatrixEquationSolvers(lyapunov=MatsignLyapunovSolver(), lyapunov_lr=MatsignLyapunovSolverLR())
    system = model(rng, matrix_equation_solvers=solvers)
    np.testing.assert_allclose(system.gramian("c_dense"), system.with_(matrix_equation_solvers=None).gramian("c_dense"))
    assert isinstance(pickle.loads(pickle.dumps(solvers)).lyapunov, MatsignLyapunovSolver)


def test_what_has_no_answer_is_an_error():
    b = np.ones((2, 1))
    unstable = LyapunovEquation.from_matrices(np.diag([1.0, -2]), None, b)
    with pytest.raises(SpectrumError, match=r"^lyapunov_factor: a is not stable"):
        unstable.solve_lr(MatsignLyapunovSolverLR())
    indefinite = RiccatiEquation.from_matrices(np.diag([-1.0, -1]), None, b, b.T, np.eye(1), 3 * b.T)
    with pytest.raises(np.linalg.LinAlgError, match=r"^the solution has no factor Z Zᴴ: its least eigenvalue is -"):
        indefinite.solve_lr(MatsignRiccatiSolverLR())


@pytest.mark.parametrize("change", ["missing", "old"])
def test_without_pymor(monkeypatch, change):
    if change == "missing":
        monkeypatch.setitem(sys.modules, "pymor", None)
        match = r"^register_pymor needs pyMOR, which is not installed: pip install pymor$"
    else:
        monkeypatch.setitem(sys.modules, "pymor.solvers.matrix_equations.default", None)
        match = r"^register_pymor needs pyMOR 2026\.1 or newer; .* has no pymor\.solvers\.matrix_equations\.default\."
    with pytest.raises(ImportError, match=match):
        plugins.register_pymor()
