"""Discrete time, direct terms and the steady state, against the formulas of the balanced model of all states."""

import numpy as np
import pytest
import scipy.linalg

from matrices import DTYPES, gaussian, stable, transfer
from matsign import balanced_truncation, certify, hankel_singular_values
from problems import TOLERANCE


def model(rng, dt, n=6, m=2, p=3, dtype="float64"):
    a = -stable(rng, n, dtype)
    a = scipy.linalg.expm(a).astype(dtype) if dt else a
    return a, gaussian(rng, n, m, dtype=dtype), gaussian(rng, p, n, dtype=dtype)


def boundary(dt):
    half = np.linspace(0, np.pi, 101) if dt else np.append(0, np.geomspace(1e-3, 1e3, 100))
    return np.exp(1j * half) if dt else 1j * half


@pytest.mark.parametrize("dt", [None, 0.1])
@pytest.mark.parametrize("method", ["truncate", "matchdc"])
def test_the_formulas_of_the_balanced_model(dt, method, rng):
    a, b, c = model(rng, dt)
    d, s = gaussian(rng, 3, 2), 1 if dt else 0
    full = balanced_truncation(a, b, c, 6, dt=dt)
    for order in (2, 5):
        small, certificate = certify(balanced_truncation)(a, b, c, order, d=d, dt=dt, method=method)
        one, two = slice(order), slice(order, None)
        expected = full.a[one, one], full.b[one], full.c[:, one], d
        if method == "matchdc":
            gain = np.linalg.solve(full.a[two, two] - s * np.eye(6 - order), np.hstack([full.a[two, one], full.b[two]]))
            at, bt = full.a[one, two] @ gain, full.c[:, two] @ gain
            expected = (
                *(expected[0] - at[:, :order], expected[1] - at[:, order:]),
                *(expected[2] - bt[:, :order], d - bt[:, order:]),
            )
            assert np.abs(transfer(s, *small[:4]) - transfer(s, a, b, c, d)).max() < 1e-13
        for x, y in zip(small, expected, strict=False):
            assert np.abs(x - y).max() < 1e-9 * np.abs(y).max()
        gap = max(np.linalg.norm(transfer(z, *small[:4]) - transfer(z, a, b, c, d), 2) for z in boundary(dt))
        assert gap <= 2 * small.hsv[order:].sum() + 1e-12
        assert certificate.forward_error < 1e-8


@pytest.mark.parametrize("dtype", DTYPES)
def test_discrete_values_are_those_of_the_bilinear_model(dtype, eager, rng):
    a, b, c = model(rng, 1, dtype=dtype)
    m = np.linalg.inv(np.eye(6) + a.astype("complex128"))
    continuous = m @ (a - np.eye(6)), 2**0.5 * m @ b, 2**0.5 * c @ m
    values = eager(hankel_singular_values, a, b, c, dt=1)
    assert np.abs(values - hankel_singular_values(*continuous)).max() < 10 * TOLERANCE[dtype] * values[0]


def test_a_model_that_keeps_all_states_keeps_d_to_the_last_bit(rng):
    a, b, c = model(rng, None, 4)
    d = gaussian(rng, 3, 2)
    np.testing.assert_array_equal(balanced_truncation(a, b, c, 4, d=d, method="matchdc").d, d)
    assert not balanced_truncation(a, b, c, 4, method="matchdc").d.any()
    assert certify(balanced_truncation)(a, b, c, 4, method="matchdc")[1].forward_error < 1e-9


def test_states_that_nobody_reaches_are_decoupled_in_discrete_time(on):
    a, b, c = np.diag([0.5, 0.4, 0.3, -0.2]), np.eye(4)[:, :1], np.ones((1, 4))
    for method in ("truncate", "matchdc"):
        small = on(lambda *x, method=method: balanced_truncation(*x, order=3, dt=1, method=method), a, b, c)
        assert np.abs(np.linalg.eigvals(small.a)).max() < 0.6
        assert abs(transfer(1j, *small[:4]) - transfer(1j, a, b, c)) < 1e-14


@pytest.mark.parametrize("dt", [-1, np.nan, np.inf, "fast", False, [0.1, 0.2]])
def test_sampling_times_that_are_none(dt, rng):
    with pytest.raises((ValueError, TypeError), match=r"^hankel_singular_values: dt must be"):
        hankel_singular_values(*model(rng, None), dt=dt)
