"""Bounds on norms and condition numbers."""

import numpy as np
import pytest

from matrices import gaussian, with_singular_values
from matsign import backends
from matsign.linalg.conditioning import is_well_conditioned, spectral_norm_bound

NUMPY = backends.load("numpy")


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
@pytest.mark.parametrize("n", [1, 2, 3, 40])
def test_the_bound_is_above_the_norm_and_near_it(n, dtype, rng):
    spectra = (np.ones(n), np.geomspace(1, 1e-6, n), np.eye(n)[0], np.linspace(1, 2, n))
    stack = np.stack([with_singular_values(rng, n, n, s, dtype) for s in spectra] + [gaussian(rng, n, n, dtype=dtype)])
    norms = np.linalg.svd(stack.astype(complex), compute_uv=False)[:, 0]
    ratio = spectral_norm_bound(NUMPY, stack) / norms
    assert (ratio > 1 - 100 * np.finfo(dtype).eps).all()
    assert (ratio < 1.6).all()


def test_zero_and_nonfinite_members(rng):
    stack = np.stack([np.zeros((3, 3)), np.full((3, 3), np.inf), np.full((3, 3), np.nan), 1e-200 * np.eye(3)])
    with np.errstate(all="ignore"):
        bound = spectral_norm_bound(NUMPY, stack)
    assert bound[0] == 0
    assert np.isnan(bound[1:3]).all()
    assert bound[3] == pytest.approx(1e-200)


def test_the_frobenius_norm_does_not_decide_for_large_matrices(rng):
    """Condition numbers 2 and 50 of 200 × 200 matrices, which are above 400 in the Frobenius norm."""
    n, limit = 200, 1 / 30
    stack = np.stack([with_singular_values(rng, n, n, np.linspace(k, 1, n)) for k in (2, 50, 1e12)])
    inverse = np.linalg.inv(stack)
    condition = NUMPY.norm(stack) * NUMPY.norm(inverse)
    assert (condition * limit > 1).all()
    result = is_well_conditioned(NUMPY, condition, limit, lambda *pair: pair, stack, inverse)
    assert result.tolist() == [True, False, False]
