"""Powers and logarithms by a power series: accuracy, and which matrices it leaves to square roots."""

import numpy as np
import pytest
import scipy.linalg as sl

import truth
from matrices import gaussian, jordan, similar
from matsign.backends import load
from matsign.iterations.power_series import centre, series
from matsign.linalg.scalar_powers import LOGARITHM, exponent

NUMPY = load("numpy")
EPS = np.finfo(float).eps


def blocks(a):
    return centre(NUMPY, a[None], exponent(0.3), EPS).blocks[0]


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_accuracy(dtype, rng):
    for a in (
        gaussian(rng, 6, 6, dtype=dtype) / 6 + np.eye(6),
        similar(rng, np.diag([0.9, 0.7, 0.4, 0.2, 0.15]), 3, dtype),
        np.asarray(jordan(0.8, 5), dtype),
        0.5 * np.eye(3, dtype=dtype),
        np.asarray(jordan(2.0, 20) / 4, dtype),
        np.array([[0.9 + 0.2j if dtype == "complex128" else 0.9]]),
    ):
        for power, exact in (
            (exponent(0.3), truth.power(a, 0.3)),
            (exponent(-3, 4), truth.power(a, -3, 4)),
            (LOGARITHM, truth.logarithm(a)),
        ):
            value = series(NUMPY, centre(NUMPY, a[None], power, EPS), power)[0]
            assert truth.error(value, exact) < 50 * EPS, (a, power)


def test_spectra_without_a_short_series(rng):
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    far = np.diag([1.0, 1e-3])
    steep = np.array([[0.9, 1e9], [0.0, 0.7]])
    for a in (turn, far, -np.eye(2), np.zeros((2, 2)), steep, np.full((2, 2), np.nan), gaussian(rng, 8, 8)):
        with np.errstate(all="ignore"):
            assert blocks(a) == 0
    assert 0 < blocks(np.eye(4)) <= 2 < blocks(sl.expm(gaussian(rng, 8, 8) / 4))
