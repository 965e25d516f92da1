"""The separation of an equation by power iteration, against the smallest singular value of its matrix."""

import numpy as np
import pytest

from direct import sylvester_by_kronecker
from matrices import adjoint, gaussian, jordan, similar, stable
from matsign.backends import load
from matsign.linalg.separation import may_be_singular, rounding_separation, separation


def operator(a, b):
    return np.kron(a, np.eye(len(b))) + np.kron(np.eye(len(a)), b.T)


def solvers(a, b):
    def by_members(a, b):
        return lambda y: np.stack([sylvester_by_kronecker(a, b, y[0])])

    return by_members(a, b), by_members(adjoint(a), adjoint(b))


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("kind", ["Gaussian", "stable", "Jordan", "nearly singular"])
def test_smallest_singular_value(kind, dtype, rng):
    a, b = {
        "Gaussian": lambda: (gaussian(rng, 6, 6, dtype=dtype), gaussian(rng, 4, 4, dtype=dtype)),
        "stable": lambda: (stable(rng, 6, dtype), stable(rng, 4, dtype)),
        "Jordan": lambda: (similar(rng, jordan(1, 5), 10, dtype), similar(rng, jordan(-0.5, 4), 10, dtype)),
        "nearly singular": lambda: (
            similar(rng, np.diag([1.0, 2, 3]), 3, dtype),
            similar(rng, np.diag([-1 + 1e-9, 5.0]), 3, dtype),
        ),
    }[kind]()
    like = np.zeros((1, len(a), len(b)), dtype)
    found = separation(load("numpy"), *solvers(a, b), like).value[0]
    exact = np.linalg.svd(operator(a, b), compute_uv=False)[-1]
    assert 0.99 * exact < found < 1.5 * exact


def test_what_cannot_be_solved_with_has_no_separation():
    like = np.zeros((2, 3, 2))

    def solve(y):
        return np.stack([y[0], np.full((3, 2), np.nan)])

    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(separation(load("numpy"), solve, solve, like).value, [1, 0])


def test_suspicion_comes_before_singularity(rng):
    backend, y = load("numpy"), gaussian(rng, 1, 3, 2)
    for gap, expected in ((1.0, False), (1e-6, False), (1e-15, True), (0.0, True)):
        a, b = np.diag([1.0, 2, 3]), np.diag([-1 + gap, 5.0])
        with np.errstate(all="ignore"):
            least = np.linalg.norm(y) / np.linalg.norm(y / (np.diag(a)[:, None] + np.diag(b)), axis=(1, 2))
            assert may_be_singular(backend, least, y, rounding_separation(backend, a[None], b[None]))[0] == expected
