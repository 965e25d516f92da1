"""Roots, powers and logarithms of one matrix."""

from __future__ import annotations

import numpy as np
import scipy.linalg as sl

import matsign
from bench.case import Case, agree
from bench.cases import sizes
from bench.cases.matrices import definite, right
from bench.peers import SCIPY

SIZES = sizes(quick=(64,), usual=(8, 256), long=(512, 1024))
SHORTER = sizes(quick=(64,), usual=(8, 256), long=(512,))
FEATURES = sizes(quick=(64,), usual=(256,), long=(1024, 2048))


def one_definite(rng, n):
    return (definite(rng, n, n),)


def one_general(rng, n):
    return (right(rng, n, n),)


def bures_by_traces(a, b):
    return np.sqrt(np.trace(a) + np.trace(b) - 2 * np.trace(sl.sqrtm(a @ b)).real).reshape(1, 1)


def two_sets(rng, n):
    """Five samples a feature, as 10 000 of 2048."""
    return rng.standard_normal((5 * n, n)), 0.1 + 1.1 * rng.standard_normal((5 * n, n))


def moments(x):
    return x.mean(0), np.cov(x, rowvar=False)


def fid_by_sqrtm(x, y):
    (mu1, a), (mu2, b) = moments(x), moments(y)
    root = np.trace(sl.sqrtm(a @ b)).real
    return (np.sum((mu1 - mu2) ** 2) + np.trace(a) + np.trace(b) - 2 * root).reshape(1, 1)


def riemannian_by_eigenvalues(a, b):
    return np.sqrt(np.sum(np.log(sl.eigvalsh(a, b)) ** 2)).reshape(1, 1)


CASES = [
    Case("sqrtm, definite", SCIPY, "sqrtm", one_definite, matsign.sqrtm, sl.sqrtm, SIZES, agree(1e-8)),
    Case("sqrtm, general", SCIPY, "sqrtm", one_general, matsign.sqrtm, sl.sqrtm, SIZES, agree(1e-8)),
    Case(
        "invsqrtm, definite", SCIPY, "inv, sqrtm", one_definite,
        matsign.invsqrtm, lambda a: sl.inv(sl.sqrtm(a)), SIZES, agree(1e-8),
    ),
    Case(
        "geometric_mean", SCIPY, "solve, sqrtm", lambda rng, n: (definite(rng, n, n), definite(rng, n, n)),
        matsign.geometric_mean, lambda a, b: a @ sl.sqrtm(sl.solve(a, b)), SHORTER, agree(1e-8),
    ),
    Case(
        "geometric_mean, t = 0.25", SCIPY, "solve, fractional_matrix_power",
        lambda rng, n: (definite(rng, n, n), definite(rng, n, n)),
        lambda a, b: matsign.geometric_mean(a, b, 0.25), lambda a, b: a @ sl.fractional_matrix_power(sl.solve(a, b), 0.25),
        SHORTER, agree(1e-8),
    ),
    Case(
        "rootm, cube root, general", SCIPY, "fractional_matrix_power", one_general,
        lambda a: matsign.rootm(a, 3), lambda a: sl.fractional_matrix_power(a, 1 / 3), SHORTER, agree(1e-8),
    ),
    Case(
        "fractional_matrix_power, 0.3, general", SCIPY, "fractional_matrix_power", one_general,
        lambda a: matsign.fractional_matrix_power(a, 0.3), lambda a: sl.fractional_matrix_power(a, 0.3), SHORTER, agree(1e-8),
    ),
    Case(
        "bures_distance", SCIPY, "sqrtm of the product", lambda rng, n: (definite(rng, n, n), definite(rng, n, n)),
        lambda a, b: matsign.bures_distance(a, b).reshape(1, 1), bures_by_traces,
        SHORTER, agree(1e-6),
    ),
    Case(
        "frechet_distance, of samples", SCIPY, "cov, sqrtm of the product", two_sets,
        lambda x, y: matsign.frechet_distance(*moments(x), *moments(y)).reshape(1, 1), fid_by_sqrtm,
        FEATURES, agree(1e-6),
    ),
    Case(
        "frechet_distance_of_samples, few", SCIPY, "cov, sqrtm of the product",
        lambda rng, n: (rng.standard_normal((n // 4, n)), 1.1 * rng.standard_normal((n // 4, n))),
        lambda x, y: matsign.frechet_distance_of_samples(x, y).reshape(1, 1), fid_by_sqrtm,
        SHORTER, agree(1e-6),
    ),
    Case(
        "riemannian_distance", SCIPY, "eigvalsh of the pair", lambda rng, n: (definite(rng, n, n), definite(rng, n, n)),
        lambda a, b: matsign.riemannian_distance(a, b).reshape(1, 1), riemannian_by_eigenvalues,
        SHORTER, agree(1e-6),
    ),
    Case("logm, general", SCIPY, "logm", one_general, matsign.logm, sl.logm, SHORTER, agree(1e-8)),
]  # fmt: skip
