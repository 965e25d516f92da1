"""Schur methods: sizes at which the triangular solver recurses, and real forms with 2 × 2 blocks where it divides."""

import numpy as np
import pytest
import scipy.linalg as sl

from matrices import block_diagonal, gaussian, rotation, similar
from matsign.backends import lapack
from matsign.core.failures import Failure
from matsign.direct import schur_functions, triangular


@pytest.mark.parametrize("dtype", ["float64", "complex128", "float32"])
@pytest.mark.parametrize(("n", "m"), [(49, 3), (3, 49), (97, 98), (120, 60), (1, 70)])
def test_triangular_sylvester_in_halves(n, m, dtype, rng):
    r, s = (
        sl.schur(gaussian(rng, k, k, dtype=dtype) + shift * np.eye(k, dtype=dtype))[0]
        for k, shift in ((n, 25), (m, 25))
    )
    f = gaussian(rng, n, m, dtype=dtype)
    for sign, shifted in ((1, s), (-1, -s)):
        x = schur_functions.triangular_sylvester(r, shifted, f, sign)
        gap = r @ x + sign * x @ shifted - f
        assert np.linalg.norm(gap) < 100 * np.finfo(dtype).eps * np.linalg.norm(f)


def test_no_cut_through_a_block():
    t = block_diagonal(*[rotation(1.0, k + 1) for k in range(30)])
    h = triangular._middle(t[:, :])
    assert t[h, h - 1] == 0
    t = block_diagonal([[5.0]], *[rotation(1.0, k + 1) for k in range(30)])
    assert t[triangular._middle(t), triangular._middle(t) - 1] == 0


def test_axis_is_seen_although_rounding_moved_the_eigenvalues(rng):
    """Rounding moves a double ±i by √eps, a triple one by eps^(1/3) off the axis: real parts are no test."""
    off = similar(rng, np.diag([1.0, -1, 2, -2]))
    cores = [block_diagonal(rotation(0, 1), [[2.0]], [[-1.0]])]
    double = np.kron(np.eye(2), rotation(0, 1)) + np.kron(np.eye(2, k=1), np.eye(2))
    cores.append(double)
    members = np.stack([similar(rng, core) for core in cores] + [off])
    assert schur_functions.axis(members).tolist() == [True, True, False]


def test_square_root_of_a_real_matrix_with_a_negative_eigenvalue_fails_alone(rng):
    stack = np.stack([np.diag([1.0, 4, 9]), np.diag([1.0, -4, 9]), np.diag([4.0, 1, 1])])
    root, failure, _ = schur_functions.square_root(stack, np.zeros(3))
    assert failure.tolist() == [0, Failure.NEGATIVE, 0]
    np.testing.assert_allclose(root[0], np.diag([1, 2, 3]))
    np.testing.assert_allclose(root[2], np.diag([2, 1, 1]))


def test_the_sign_is_its_own_inverse_to_rounding(rng):
    stack = np.stack([similar(rng, np.diag([1.0, -2, 3, -4, 5])) for _ in range(50)])
    signs, failure = schur_functions.sign(stack)
    assert not failure.any()
    gap = np.linalg.norm(signs @ signs - np.eye(5), axis=(1, 2))
    assert (gap < 4e-16 * np.linalg.norm(signs, axis=(1, 2)) ** 2).all()


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize(("n", "m"), [(0, 3), (1, 2), (24, 99), (30, 30), (24, 100)])
def test_two_forms_at_once(n, m, dtype, rng):
    a, b = gaussian(rng, n, n, dtype=dtype), gaussian(rng, m, m, dtype=dtype)
    kept = a.copy(), b.copy()
    r, u, s, v = lapack.schur_pair(a, b)
    for x, t, z, before in ((a, r, u, kept[0]), (b, s, v, kept[1])):
        np.testing.assert_array_equal(x, before)
        k, eps = len(x), np.finfo(dtype).eps
        assert t.dtype == z.dtype == dtype
        assert np.linalg.norm(z @ t @ z.conj().T - x) <= 10 * k * eps * np.linalg.norm(x)
        assert np.linalg.norm(z.conj().T @ z - np.eye(k)) <= 10 * k * eps
        assert not np.tril(t, -2).any()
        assert dtype.startswith("f") or not np.tril(t, -1).any()


def test_two_forms_at_once_have_the_bits_of_one_after_the_other(rng):
    a, b = gaussian(rng, 40, 40), gaussian(rng, 60, 60)
    r, u, s, v = lapack.schur_pair(a, b)
    for found, alone in zip((r, u, s, v), (*lapack.schur(a)[:2], *lapack.schur(b)[:2]), strict=True):
        np.testing.assert_array_equal(found, alone)
