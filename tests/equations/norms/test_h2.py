"""h2_norm and discrete_h2_norm: exact norms, both Gramians, cancellation, units, and what has no norm."""

import mpmath as mp
import numpy as np
import pytest

import matsign
import truth
from matrices import DTYPES, adjoint, contraction, gaussian, stable
from matsign import SpectrumError, certify, discrete_h2_norm, h2_norm

EPS = {"float32": 1.2e-7, "float64": 2.3e-16, "complex64": 1.2e-7, "complex128": 2.3e-16}
both = pytest.mark.parametrize("discrete", [False, True], ids=["continuous", "discrete"])


def model(rng, discrete, n=4, m=2, p=3, dtype="float64"):
    a = contraction(rng, n, dtype) if discrete else -stable(rng, n, dtype)
    return a, gaussian(rng, n, m, dtype=dtype), gaussian(rng, p, n, dtype=dtype)


def function(discrete):
    return discrete_h2_norm if discrete else h2_norm


def exact(discrete, a, b, c):
    x = (truth.discrete_gramian if discrete else truth.gramian)(a, b)
    c = truth.exact(c)
    return mp.sqrt(mp.re(np.trace(c @ x @ truth.adjoint(c))))


@both
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_exact_norm(discrete, dtype, eager, rng):
    a, b, c = model(rng, discrete, dtype=dtype)
    norm, certificate = eager(certify(function(discrete)), a, b, c)
    expected = exact(discrete, a, b, c)
    assert norm.shape == ()
    assert norm.dtype == np.dtype(dtype).type(0).real.dtype
    assert abs(norm - expected) < 20 * EPS[dtype] * expected
    assert abs(norm - expected) < 20 * (EPS[dtype] + certificate.forward_error) * expected
    assert certificate.forward_error < 100 * EPS[dtype]
    assert certificate.backward_error < 20 * EPS[dtype]


@both
def test_the_dual_model_has_the_same_norm(discrete, eager, rng):
    a, b, c = model(rng, discrete, dtype="complex128")
    f = function(discrete)
    assert eager(f, a, b, c) == pytest.approx(eager(f, *map(adjoint, (a, c, b))), rel=1e-13)


@both
def test_a_descriptor_that_is_nearly_singular(discrete, rng):
    """(e a, e b, c, e) is the model (a, b, c): of the errors of its data the norm feels some, the certificate no more."""
    a, b, c = model(rng, discrete)
    e = np.diag([1, 1e-3, 1e-6, 1e-8]) @ np.linalg.qr(gaussian(rng, 4, 4))[0]
    e = np.linalg.qr(gaussian(rng, 4, 4))[0] @ e
    norm, certificate = certify(function(discrete))(e @ a, e @ b, c, e=e)
    assert abs(norm - exact(discrete, a, b, c)) < 1e-6 * norm
    assert 1e-12 < certificate.forward_error < 1e-6


def test_the_direct_term_counts_in_discrete_time(eager, rng):
    a, b, c = model(rng, True)
    d = gaussian(rng, 3, 2)
    expected = np.hypot(eager(discrete_h2_norm, a, b, c), np.linalg.norm(d))
    assert eager(discrete_h2_norm, a, b, c, d) == pytest.approx(expected, rel=1e-14)
    assert eager(discrete_h2_norm, a, b, c, 1e200 * d) == pytest.approx(1e200 * np.linalg.norm(d), rel=1e-14)
    assert eager(discrete_h2_norm, a, 1e-200 * b, c, 0 * d) == pytest.approx(1e-200 * eager(discrete_h2_norm, a, b, c))


def test_cancellation_costs_as_many_digits_as_the_outputs_cancel():
    """Two states that differ by 1e-6: the root of tr c x cᴴ has an error of 1e-5, relative."""
    a, b, c = np.diag([-1.0, -1.0 - 2.0**-20]), np.ones((2, 1)), np.array([[1.0, -1.0]])
    norm, certificate = certify(h2_norm)(a, b, c)
    expected = exact(False, a, b, c)
    x = matsign.solve_continuous_lyapunov(a, -b @ b.T)
    assert abs(norm - expected) < 1e-9 * expected
    assert abs(norm - expected) <= certificate.forward_error * expected
    assert certificate.forward_error < 1e-8
    assert abs(np.sqrt(max((c @ x @ c.T).item(), 0)) - expected) > 1e-7 * expected


@both
@pytest.mark.parametrize("units", [2.0**300, 1e-150])
def test_units(discrete, units, eager, rng):
    """Of the inputs and outputs, and of the states."""
    f, (a, b, c) = function(discrete), model(rng, discrete)
    norm = f(a, b, c)
    assert eager(f, a, units * b, c) == pytest.approx(units * norm, rel=1e-13)
    states = 2.0 ** np.array([0, 40, -60, 100])
    args = a * states[:, None] / states, b * states[:, None], c / states
    assert eager(f, *args) == pytest.approx(norm, rel=1e-12)


@both
def test_members_and_what_has_no_norm(discrete, eager, rng):
    f, models = function(discrete), [model(rng, discrete) for _ in range(3)]
    a, b, c = (np.stack(x) for x in zip(*models, strict=True))
    a[1] = 2 * np.eye(4)
    norm = eager(f, a, b, c, errors="nan")
    assert np.isnan(norm).tolist() == [False, True, False]
    assert [norm[k] for k in (0, 2)] == [f(*models[k]) for k in (0, 2)]
    with pytest.raises(SpectrumError, match="batch members 1: a is not stable, so the norm of the model is infinite"):
        eager(f, a, b, c)
    with pytest.raises(SpectrumError, match="not stable to working precision"):
        eager(
            f,
            np.array([[1 - 2.0**-52 if discrete else -1e-17, 1e3], [0, 0.5 if discrete else -1]]),
            b[0, :2],
            c[0, :, :2],
        )
    with pytest.raises(SpectrumError, match="larger than the largest"):
        eager(f, a[0], 1e200 * b[0], 1e200 * c[0])


@both
def test_nothing_in_nothing_out(discrete, everywhere):
    f, stable_one = function(discrete), -0.5 * np.eye(2)
    for a, b, c in (
        (np.zeros((0, 0)), np.zeros((0, 2)), np.zeros((3, 0))),
        (stable_one, np.zeros((2, 0)), np.eye(2)),
        (stable_one, np.eye(2), np.zeros((0, 2))),
        (stable_one, np.zeros((2, 2)), np.eye(2)),
    ):
        norm, certificate = everywhere(certify(f), a, b, c)
        assert norm == 0
        assert certificate.converged
    with pytest.raises(SpectrumError, match="infinite"):
        f(2 * np.eye(2), np.zeros((2, 0)), np.eye(2))


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_at_zero_the_gradient_is_a_subgradient(name):
    library = pytest.importorskip(name)
    a, b, c = -np.eye(2), np.zeros((2, 1)), np.ones((1, 2))
    if name == "torch":
        arrays = [library.tensor(x, requires_grad=True) for x in (a, b, c)]
        h2_norm(*arrays).backward()
        gradients = [x.grad for x in arrays]
    else:
        gradients = library.grad(h2_norm, argnums=(0, 1, 2))(*map(library.numpy.asarray, (a, b, c)))
    assert all(not np.asarray(x).any() for x in gradients)


@both
def test_second_derivatives_in_torch(discrete, rng):
    torch = pytest.importorskip("torch")
    arrays = [torch.tensor(x, requires_grad=True) for x in model(rng, discrete, n=2, m=1, p=1)]
    assert torch.autograd.gradcheck(function(discrete), arrays)
    assert torch.autograd.gradgradcheck(function(discrete), arrays)
