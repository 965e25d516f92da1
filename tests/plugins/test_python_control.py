"""method="matsign" in python-control: its own tests with this method, and what registration changes and restores."""

import functools
import inspect
import sys
import types
import warnings

import numpy as np
import pytest

from matsign import SpectrumError, plugins

control = pytest.importorskip("control")
its_tests = pytest.importorskip("control.tests.mateqn_test", reason="python-control is installed without its tests")

A = np.array([[0, 1.0, 0], [-1, -1, 0.5], [0, 0.3, -2]])
B, C = np.array([[0.0], [1], [1]]), np.array([[1.0, 0, 0]])
FUNCTIONS = ("lyap", "dlyap", "care", "dare", "gram", "hsvd", "norm")


@pytest.fixture(autouse=True)
def registered():
    with plugins.register_control() as registration:
        yield registration


def with_method(name):
    return functools.partial(getattr(control, name), method="matsign")


def test_its_own_tests_of_matrix_equations(monkeypatch):
    """Those that need Slycot, too."""
    for name in FUNCTIONS[:4]:
        monkeypatch.setattr(its_tests, name, with_method(name))
    suite = its_tests.TestMatrixEquations()
    tests = [getattr(suite, name) for name in dir(suite) if name.startswith("test_")]
    assert len(tests) >= 14
    for test in tests:
        test()


@pytest.mark.parametrize("module", ["statefbk_test", "stochsys_test", "sysnorm_test", "modelsimp_test"])
def test_its_own_tests_of_what_takes_the_method(module, monkeypatch):
    suite = pytest.importorskip(f"control.tests.{module}")
    for name in ("norm", "lyap"):
        monkeypatch.setattr(control, name, with_method(name))
    for name in ("lqr", "dlqr", "lqe", "dlqe", "gram", "hsvd"):
        if hasattr(suite, name):
            monkeypatch.setattr(suite, name, with_method(name))
    ran = 0
    for test in its_tests_of(suite):
        parameters = inspect.signature(test).parameters
        test(**({"method": "matsign"} if "method" in parameters else {}))
        ran += 1
    assert ran == {"statefbk_test": 10, "stochsys_test": 2, "sysnorm_test": 4, "modelsimp_test": 1}[module]


def its_tests_of(suite):
    # Not testGramsys, which asks for the words "is unstable"; ours are "is not stable".
    words = ("LQR_3", "LQR_4", "LQR_int", "testGramW", "testGramR", "LQE", "test_norm_", "HSVD")
    for holder in (suite, *(x() for x in vars(suite).values() if inspect.isclass(x) and x.__name__.startswith("Test"))):
        for name in dir(holder):
            test = getattr(holder, name)
            if name.startswith("test") and any(word in name for word in words) and callable(test):
                yield test


def test_residuals():
    e, q = np.eye(3) + 0.1 * A, np.diag([1.0, 2, 3])
    x = control.lyap(A, q, None, e, method="matsign")
    assert np.abs(A @ x @ e.T + e @ x @ A.T + q).max() < 1e-14
    x = control.dlyap(A / 3, q, None, e, method="matsign")
    assert np.abs(A @ x @ A.T / 9 - e @ x @ e.T + q).max() < 1e-14
    for stable in (True, False):
        x, poles, k = control.care(A, B, q, 2.0, 0.1 * B, e, stabilizing=stable, method="matsign")
        assert np.abs(A.T @ x @ e + e.T @ x @ A - k.T @ k * 2 + q).max() < 1e-12
        assert ((poles.real < 0) == stable).all()
        x, poles, k = control.dare(A, B, q, 2.0, 0.1 * B, e, stabilizing=stable, method="matsign")
        assert np.abs(A.T @ x @ A - e.T @ x @ e - k.T @ (2 + B.T @ x @ B) @ k + q).max() < 1e-12 * np.abs(x).max()
        assert ((np.abs(poles) < 1) == stable).all()


def test_models_in_both_kinds_of_time():
    rng = np.random.default_rng(0)
    for dt in (0, 0.1):
        model = control.ss(A if dt == 0 else A / 2, B, C, 0.1, dt)
        for ours, theirs in zip(
            control.lqr(model, np.eye(3), 1, method="matsign"), control.lqr(model, np.eye(3), 1), strict=True
        ):
            np.testing.assert_allclose(np.sort_complex(ours.ravel()), np.sort_complex(theirs.ravel()), rtol=1e-10)
        unstable = control.ss(
            rng.standard_normal((3, 3)) + np.eye(3), rng.standard_normal((3, 2)), C, np.ones((1, 2)), dt
        )
        for system in (model, unstable):
            norm = control.norm(system, "inf", method="matsign")
            gains = [np.linalg.norm(np.atleast_2d(system(z)), 2) for z in points(dt)]
            assert max(gains) <= norm * (1 + 1e-12)
            assert max(gains) >= norm * 0.99


def points(dt):
    return np.exp(1j * np.linspace(0, np.pi, 400)) if dt else 1j * np.concatenate([[0], np.logspace(-2, 2, 800)])


def test_unstable_modes_that_no_input_moves_change_no_norm():
    hidden = control.ss(np.diag([1.0, -1]), [[0], [1]], [[1, 1]], 0)
    assert control.norm(hidden, "inf", method="matsign") == pytest.approx(1, rel=1e-12)


def test_indefinite_weights():
    """The equation of a bounded-real model, which is no minimisation."""
    for f, a in ((control.care, A), (control.dare, A / 3)):
        x, poles, k = f(a, 0.3 * B, 0.1 * np.eye(3), -1, method="matsign")
        theirs = f(a, 0.3 * B, 0.1 * np.eye(3), -1, method="scipy")
        np.testing.assert_allclose(x, theirs[0], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(k, theirs[2], rtol=1e-9, atol=1e-12)
        assert (poles.real < 0).all() if f is control.care else (np.abs(poles) < 1).all()


def test_infinite_norms_have_a_warning():
    fed_through = control.ss(A, B, C, 1)
    with pytest.warns(UserWarning, match="feedthrough"):
        assert control.norm(fed_through, method="matsign") == np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert control.norm(fed_through, print_warning=False, method="matsign") == np.inf
    with pytest.raises(control.ControlArgument, match="p=1 currently not supported"):
        control.norm(fed_through, 1, method="matsign")


def test_symmetric_to_rounding_at_any_size():
    """python-control takes only an absolute difference, and none in one of the two directions."""
    q = 1e8 * np.array([[2.0, 1, 0], [1, 2, 0], [0, 0, 1]])
    q[0, 1] *= 1 + 1e-15
    with pytest.raises(control.ControlArgument):
        control.lyap(A, q)
    assert np.abs(A @ (x := control.lyap(A, q, method="matsign")) + x @ A.T + q).max() < 1e-6
    with pytest.raises(control.ControlArgument, match=r"^Q must be a symmetric matrix$"):
        control.lyap(A, q + 1e3 * np.eye(3, k=1), method="matsign")


def test_no_solution_is_an_error():
    with pytest.raises(SpectrumError, match=r"^solve_continuous_lyapunov: "):
        control.lyap(np.diag([1.0, -1]), np.eye(2), method="matsign")
    with pytest.raises(SpectrumError):
        control.lqr(np.eye(2), np.zeros((2, 1)), np.eye(2), 1, method="matsign")
    with pytest.raises(ValueError, match=r"^gramian: a is not stable"):
        control.gram(control.ss(-A, B, C, 0), "c", method="matsign")
    with pytest.raises(control.ControlDimension, match=r"^Incompatible dimensions of B .* \(3, 3\) but found \(1, 3\)"):
        control.care(A, [1, 1, 1], np.eye(3), method="matsign")
    with pytest.raises(control.ControlDimension, match=r"^B must be a matrix, found an array of shape"):
        control.care(A, np.ones((2, 3, 1)), np.eye(3), method="matsign")


def test_other_methods_are_as_before():
    q = np.eye(3)
    np.testing.assert_array_equal(control.lyap(A, q), control.lyap(A, q, method="scipy"))
    for f, arguments in ((control.lyap, (A, q)), (control.gram, (control.ss(A, B, C, 0), "c"))):
        with pytest.raises(control.ControlArgument, match="Unknown method other"):
            f(*arguments, method="other")
    with pytest.raises(TypeError, match="required"):
        control.lyap(A)


def test_closing_restores_everything(registered):
    import control.matlab  # refers to the functions, too

    ours = [getattr(control, name) for name in FUNCTIONS]
    assert control.matlab.lyap is ours[0]
    plugins.register_control().close()  # registered already: this changes and restores nothing
    assert [getattr(control, name) for name in FUNCTIONS] == ours
    originals = [f.without_matsign for f in ours]
    assert not names_of(originals)
    registered.close()
    assert not names_of(ours)
    assert {"control.lyap", "control.mateqn.lyap", "control.matlab.lyap"} < names_of(originals)
    with pytest.raises(control.ControlArgument, match="Unknown method matsign"):
        control.lyap(A, np.eye(3), method="matsign")


def names_of(functions):
    """The names of functions in all modules of python-control but its tests."""
    modules = [m for n, m in sys.modules.items() if n.partition(".")[0] == "control" and ".tests" not in n]
    return {f"{m.__name__}.{k}" for m in modules for k, v in vars(m).items() if any(v is f for f in functions)}


def test_a_name_that_was_imported_before():
    before = control.lyap.without_matsign
    with pytest.raises(control.ControlArgument, match=r"^method=\"matsign\" needs a function .* control\.lyap$"):
        before(A, np.eye(3), method="matsign")
    assert before(A, np.eye(3)).shape == (3, 3)


@pytest.mark.parametrize("change", ["missing", "old", "other"])
def test_without_python_control(monkeypatch, change):
    if change == "missing":
        monkeypatch.setitem(sys.modules, "control", None)
        match = r"^register_control needs python-control, which is not installed: pip install control$"
    elif change == "old":
        monkeypatch.delattr(control.sysnorm, "system_norm")
        match = r"^register_control needs python-control 0.10 or newer; .* has no control\.sysnorm\.system_norm$"
    else:
        for name in [n for n in sys.modules if n.partition(".")[0] == "control"]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "control", types.ModuleType("control"))
        match = r"^register_control needs python-control 0.10 or newer; .*\(without a version\) has no control\.mateqn"
    with pytest.raises(ImportError, match=match):
        plugins.register_control()
