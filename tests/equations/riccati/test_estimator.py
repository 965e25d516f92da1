"""lqe and dlqe: the dual regulator, the filter gain, simulated errors, and what has no estimator."""

import numpy as np
import pytest

import matsign
from fuzz import references
from matrices import DTYPES, adjoint, definite, gaussian
from matsign import SpectrumError, dlqe, dlqr, lqe, lqr

BOTH = pytest.mark.parametrize(("f", "dual"), [(lqe, lqr), (dlqe, dlqr)])
TOLERANCE = {"float32": 2e-4, "float64": 1e-11, "complex64": 2e-4, "complex128": 1e-11}


def model(rng, n=4, w=3, p=2, dtype="float64"):
    joint = definite(rng, w + p, dtype=dtype)
    a, g, c = (gaussian(rng, *s, dtype=dtype) for s in ((n, n), (n, w), (p, n)))
    return a, g, c, joint[:w, :w], joint[w:, w:], joint[:w, w:]


@BOTH
@pytest.mark.parametrize("dtype", DTYPES)
def test_it_is_the_regulator_of_the_dual_plant(f, dual, dtype, rng):
    a, g, c, qn, rn, nn = model(rng, dtype=dtype)
    (gain, x, poles), certificate = matsign.certify(f)(a, g, c, qn, rn, nn)
    expected = dual(adjoint(a), adjoint(c), g @ qn @ adjoint(g), rn, g @ nn)
    assert np.linalg.norm(x - expected.solution) < TOLERANCE[dtype] * np.linalg.norm(x)
    assert np.linalg.norm(gain - adjoint(expected.gain)) < TOLERANCE[dtype] * np.linalg.norm(gain)
    closed = np.poly((a - gain @ c).astype(complex))
    assert np.linalg.norm(np.poly(poles) - closed) < TOLERANCE[dtype] * np.linalg.norm(closed)
    assert certificate.converged
    assert certificate.backward_error < 20 * np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", DTYPES)
def test_filter_gain(dtype, rng):
    a, g, c, qn, rn, _ = model(rng, dtype=dtype)
    k, x, poles = dlqe(a, g, c, qn, rn, gain="filter")
    predictor = dlqe(a, g, c, qn, rn)
    assert np.linalg.norm(a @ k - predictor.gain) < TOLERANCE[dtype] * np.linalg.norm(predictor.gain)
    assert np.array_equal(x, predictor.solution)
    assert np.array_equal(poles, predictor.poles)
    assert np.linalg.norm(k @ (c @ x @ adjoint(c) + rn) - x @ adjoint(c)) < TOLERANCE[dtype] * np.linalg.norm(x)


def test_the_error_of_a_simulated_filter_has_this_covariance(rng):
    a, g, c, qn, rn, _ = model(rng, n=2, w=1, p=1)
    a = a / 2
    gain, x, _ = dlqe(a, g, c, qn, rn)
    error, noise = np.zeros((2, 20000)), rng.standard_normal((40, 2, 20000))
    for w, v in noise:
        error = (a - gain @ c) @ error + np.sqrt(qn) * g * w - np.sqrt(rn) * gain * v
    assert np.linalg.norm(np.cov(error) - x) < 0.05 * np.linalg.norm(x)


def test_a_measurement_without_noise_in_discrete_time():
    gain, x, poles = dlqe(np.eye(2), np.eye(2), np.eye(2), np.eye(2), np.diag([1.0, 0.0]))
    assert gain[1, 1] == pytest.approx(1)
    assert x[1, 1] == pytest.approx(1)
    assert min(abs(poles)) < 1e-14


def test_the_forward_error_knows_the_cancellation_in_the_noise():
    """g qn gᴴ is 1, from terms of 1e16."""
    a, c = -np.eye(1), np.eye(1)
    g = np.array([[1e8, 1 - 1e8]])
    estimator, certificate = matsign.certify(lqe)(a, g, c, np.ones((2, 2)), np.eye(1))
    assert abs(estimator.solution[0, 0] - (2**0.5 - 1)) <= certificate.forward_error


I = np.eye(2)  # noqa: E741
WITHOUT_ESTIMATOR = [
    (
        lqe,
        (np.diag([1.0, -1.0]), I, np.array([[0.0, 1.0]]), I, I[:1, :1]),
        "the measurements do not depend on the mode of the eigenvalue 1 of a",
    ),
    (lqe, (np.diag([1j, -1]), I, np.array([[0.0, 1.0]]), I, I[:1, :1]), r"eigenvalue 0\+1j of a"),
    (
        dlqe,
        (np.diag([2.0, 0.1]), I, np.array([[0.0, 1.0]]), I, I[:1, :1]),
        "the measurements do not depend on the mode of the eigenvalue 2 of a",
    ),
    (lqe, (I, I, I, I, -I), "is not a covariance matrix"),
    (lqe, (I, I, I, -I, I), "negative eigenvalue -1"),
    (dlqe, (I, I, I, I, I, 2 * I), "is not a covariance matrix"),
    (lqe, (I, I, I, I, np.diag([1.0, 0.0])), "give every measurement some noise"),
    (lqe, (I, 1e200 * I, I, I, I), "larger than the largest number"),
]


@pytest.mark.parametrize(("f", "arguments", "text"), WITHOUT_ESTIMATOR)
def test_what_has_no_estimator(f, arguments, text):
    with pytest.raises(SpectrumError, match=text):
        f(*arguments)


@BOTH
def test_one_bad_member_leaves_the_others(f, dual, rng):
    a, g, c, qn, rn, nn = (np.stack([x, x]) for x in model(rng))
    rn[1] *= -1
    gain, x, _ = f(a, g, c, qn, rn, nn, errors="nan")
    good = f(a[0], g[0], c[0], qn[0], rn[0], nn[0])
    assert np.array_equal(gain[0], good.gain)
    assert np.array_equal(x[0], good.solution)
    assert np.isnan(gain[1]).all()


@BOTH
def test_no_output_and_no_noise(f, dual):
    a = np.diag([-0.5, -0.2])
    gain, x, poles = f(a, np.zeros((2, 0)), np.zeros((0, 2)), np.zeros((0, 0)), np.zeros((0, 0)))
    assert gain.shape == (2, 0)
    assert not x.any()
    assert np.allclose(np.sort(poles.real), [-0.5, -0.2])


def test_the_filter_gain_of_a_fast_unstable_mode():
    """x has entries from 4e-8 to 2e10, so that c x cᴴ + rn loses rn to rounding; the gain is that of decimal arithmetic."""
    a = np.array([[-96683.59933073066, -2.1701683377041193e-07], [0.00014305271625767753, -0.00043928871409093517]])
    g, c = np.zeros((2, 1)), np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
    root = np.array([[1.5, 0.0, 0.0], [1.0, 1.5, 0.0], [-0.9, -1.4, 1.5]])
    arguments = a, g, c, np.ones((1, 1)), root @ root.T
    (k, *_), certificate = matsign.certify(dlqe)(*arguments, gain="filter")
    expected, _ = references.estimator(True, *arguments, gain="filter")
    assert np.linalg.norm(k - expected.astype(float)) < 1e-14 * np.linalg.norm(k)
    assert certificate.forward_error < 1e-13
