"""Eigenvectors of many small symmetric matrices, beside those of LAPACK, and the functions that use them."""

import numpy as np
import pytest

import matsign
from matsign import backends
from matsign.linalg import jacobi_rotations

COUNT = 600  # enough for rotations of all matrices together


def symmetric(rng, n):
    """Random and small integer entries, graded, clustered, repeated and zero eigenvalues, nearly diagonal, and zeros."""
    x = rng.standard_normal((7, COUNT, n, n))
    q = np.linalg.qr(x[0])[0]
    values = [
        10.0 ** rng.uniform(-20, 0, (COUNT, n)),
        1 + 10.0 ** rng.uniform(-17, -1, (COUNT, n)),
        np.arange(n) > n - 2,
    ]
    x[1] = np.round(x[1])
    x[2:5] = [(q * v[..., None, :]) @ q.mT for v in values]
    x[5] = np.eye(n) + 10.0 ** rng.uniform(-20, 0, (COUNT, n, n))
    x[6, ::2] = 0
    d = 10.0 ** rng.uniform(-150, 0, (COUNT, n, 1))
    x[6, 1::2] = (d * x[0] * d.mT)[1::2]
    x = (x + x.mT).reshape(-1, n, n) / 2
    size = np.abs(x).max((1, 2), keepdims=True)
    return x / np.where(size > 0, size, 1)


def decompose(name, x):
    backend = backends.load(name)
    x = backend.asarray(x)
    with backend.full_precision(x), np.errstate(all="ignore"):
        values, vectors = jacobi_rotations.eigenvectors(backend, x)
    return np.asarray(values), np.asarray(vectors)


@pytest.mark.parametrize("n", [2, 3, 4])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_eigenvectors_are_as_accurate_as_those_of_lapack(n, dtype, eager, rng):
    x = symmetric(rng, n).astype(dtype)
    values, v = decompose(eager.name, x)
    assert values.dtype == v.dtype == dtype
    assert (np.diff(values) >= 0).all()
    assert np.abs(values - np.linalg.eigvalsh(x)).max() < 2 * n * np.finfo(dtype).eps * n
    values, v = values.astype(float), v.astype(float)
    assert np.abs(v.mT @ v - np.eye(n)).max() < 4 * n * np.finfo(dtype).eps
    assert np.abs((v * values[:, None]) @ v.mT - x).max() < 4 * n * np.finfo(dtype).eps


def test_a_matrix_has_the_same_bits_in_every_long_stack(eager, rng):
    x = symmetric(rng, 3)
    for whole, part in zip(decompose(eager.name, x), decompose(eager.name, x[700:1300]), strict=True):
        np.testing.assert_array_equal(whole[700:1300], part)


def test_matrices_that_do_not_converge_are_left_to_lapack(eager, rng, monkeypatch):
    """Without rotations those that are not diagonal; with them one that is not finite."""
    x = symmetric(rng, 3)
    x[5, 1, 1] = np.nan
    values, _ = decompose(eager.name, x)
    assert np.isnan(values[5]).all()
    assert np.isfinite(np.delete(values, 5, axis=0)).all()
    x = np.delete(x, 5, axis=0)
    monkeypatch.setattr(jacobi_rotations, "_rotate", lambda xp, a, p, q, zero: (zero + 1, zero))
    values, v = decompose(eager.name, x)
    np.testing.assert_allclose((v * values[:, None]) @ v.mT, x, atol=1e-14)


def test_many_roots_equal_single_ones(eager, rng):
    """To rounding, with one singular member, one that is not finite, one indefinite and one that is not symmetric."""
    g = rng.standard_normal((COUNT, 3, 5)) * 10.0 ** rng.integers(-100, 100, (COUNT, 1, 1))
    a = g @ g.mT
    a[1], a[2, 0, 0], a[3], a[4, 0, 1] = np.ones((3, 3)), np.nan, -np.eye(3), 0
    for f in (matsign.sqrtm, matsign.invsqrtm, lambda x, **o: matsign.invrootm(x, 4, **o), matsign.logm):
        many = eager(f, a, errors="nan")
        for k in range(8):
            one = eager(f, a[k], errors="nan")
            np.testing.assert_allclose(many[k], one, atol=1e-11 * np.abs(one).max(initial=0), rtol=0)
