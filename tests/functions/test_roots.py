"""Square roots and inverse roots."""

import numpy as np
import pytest
import scipy.linalg as sl

import direct
import matsign
import truth
from accuracy import assert_accurate
from matrices import (
    block_diagonal,
    definite,
    exactly_similar,
    gaussian,
    graded,
    jordan,
    rotation,
    similar,
    stable,
    unitary,
)
from matsign import invsqrtm, sqrtm, sqrtm_pair

METHODS = ("newton", "schur", "auto")
HERMITIAN = (*METHODS, "polynomial", "eigh")

GENERAL = {
    "1 x 1": (lambda rng: np.array([[4.0]]), 1),
    "2 x 2": (lambda rng: stable(rng, 2), 10),
    "3 x 3": (lambda rng: stable(rng, 3), 10),
    "7 x 7": (lambda rng: stable(rng, 7), 10),
    "complex": (lambda rng: stable(rng, 5, "complex128"), 10),
    "complex pairs": (lambda rng: similar(rng, block_diagonal(rotation(1, 5), rotation(-1, 2)), 10), 10),
    "Jordan": (lambda rng: similar(rng, jordan(1, 4), 10), 1e9),
    "nonnormal": (lambda rng: stable(rng, 5, condition=1e4), 1e4),
    "graded": (lambda rng: similar(rng, np.diag(graded(5, 1e8)), 10), 1e8),
    "near the negative axis": (lambda rng: similar(rng, block_diagonal(rotation(-1, 1e-4), [[1.0]]), 10), 1e4),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", GENERAL)
def test_accuracy(name, method, rng):
    make, condition = GENERAL[name]
    roots = (lambda a: sqrtm(a, method=method), lambda a: truth.root_pair(a)[0], [direct.root_by_schur])
    inverses = (
        lambda a: invsqrtm(a, method=method),
        lambda a: truth.root_pair(a)[1],
        [lambda a: np.linalg.inv(direct.root_by_schur(a))],
    )
    for f, exact, peers in (roots, inverses):
        assert_accurate(f, exact, peers, lambda: (make(rng),), condition)


@pytest.mark.parametrize("method", HERMITIAN)
@pytest.mark.parametrize("condition", [1, 100, 1e3, 1e8, 1e12])
def test_accuracy_on_definite_matrices(condition, method, rng):
    make = lambda: (definite(rng, 6, condition),)  # noqa: E731
    peers = [direct.root_by_eigh, direct.root_by_schur]
    assert_accurate(lambda a: sqrtm(a, method=method), lambda a: truth.root_pair(a)[0], peers, make, condition)
    peers = [direct.inverse_root_by_eigh]
    assert_accurate(lambda a: invsqrtm(a, method=method), lambda a: truth.root_pair(a)[1], peers, make, condition)


@pytest.mark.parametrize("method", HERMITIAN)
def test_accuracy_in_single_precision(method, eager, rng):
    make = lambda: (definite(rng, 5, 100).astype("float32"),)  # noqa: E731
    f = lambda a: eager(sqrtm, a, method=method)  # noqa: E731
    assert_accurate(f, lambda a: truth.root_pair(a)[0], [direct.root_by_eigh], make, 100)


@pytest.mark.parametrize("n", [50, 90])
@pytest.mark.parametrize("method", METHODS)
def test_larger(n, method, rng):
    a = stable(rng, n)
    x, z = sqrtm_pair(a, method=method)
    assert np.linalg.norm(x @ x - a) < 1e-13 * np.linalg.norm(x) ** 2
    assert np.linalg.norm(x @ z - np.eye(n)) < 1e-10
    np.testing.assert_allclose(x, sl.sqrtm(a), atol=1e-11)


def test_the_three_functions_agree(on, rng):
    a = stable(rng, 4)
    x, z = on(sqrtm_pair, a)
    np.testing.assert_array_equal(x, on(sqrtm, a))
    np.testing.assert_array_equal(z, on(invsqrtm, a))


@pytest.mark.parametrize("method", HERMITIAN)
@pytest.mark.parametrize("rank", [0, 1, 3])
def test_semidefinite(rank, method, eager, rng):
    """Zero stays zero in both: the second result is the pseudo-inverse of the root."""
    u = unitary(rng, 5)[:, :rank]
    values = graded(rank, 10) if rank else np.zeros(0)
    a = (u * values) @ u.T
    a = (a + a.T) / 2
    x, z = eager(sqrtm_pair, a, method=method, rtol=1e-12)
    np.testing.assert_allclose(x, (u * values**0.5) @ u.T, atol=1e-7)  # √ of a rounding error of 1e-16 is 1e-8
    np.testing.assert_allclose(z, (u / values**0.5) @ u.T, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_semisimple_zero(method, on, rng):
    a, transform = exactly_similar(rng, np.diag([4.0, 9, 0, 0]))
    x, z = on(sqrtm_pair, a, method=method)
    np.testing.assert_allclose(x, transform(np.diag([2.0, 3, 0, 0])), atol=1e-11)
    np.testing.assert_allclose(z, transform(np.diag([1 / 2, 1 / 3, 0, 0])), atol=1e-11)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("core", [jordan(0, 2), block_diagonal([[1.0]], jordan(0, 2)), jordan(0, 3)], ids=str)
def test_defective_zero_is_an_error(core, method, eager, rng):
    for a in (core, exactly_similar(rng, core)[0]):
        with pytest.raises(matsign.SpectrumError, match="zero is a defective eigenvalue"):
            eager(sqrtm, a, method=method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "core",
    [np.diag([-1.0, 4, 9]), np.diag([-1.0, -1, 4]), np.array([[-2.0]]), block_diagonal(jordan(-1, 2), [[3.0]])],
    ids=str,
)
@pytest.mark.parametrize("similarity", ["none", "integer", "random"])
def test_negative_eigenvalue_is_an_error(similarity, core, method, eager, rng):
    """Also a double one: a real matrix then has a real root, but no principal one."""
    a = {
        "none": lambda: core,
        "integer": lambda: exactly_similar(rng, core)[0],
        "random": lambda: similar(rng, core, 5),
    }[similarity]()
    for f in (sqrtm, invsqrtm, sqrtm_pair):
        with pytest.raises(matsign.SpectrumError, match="negative real axis"):
            eager(f, a, method=method)


@pytest.mark.parametrize("method", HERMITIAN)
def test_indefinite_hermitian_is_an_error(method, eager, rng):
    u = unitary(rng, 4)
    a = (u * np.array([1.0, 2, 3, -1])) @ u.T
    with pytest.raises(matsign.SpectrumError):
        eager(sqrtm, (a + a.T) / 2, method=method)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("method", METHODS)
def test_negative_eigenvalue_of_a_complex_matrix(dtype, method, eager, rng):
    """Complex in, complex out: -1 lies on the cut, where the principal root is not continuous, so that is an error too."""
    a = np.diag([-1.0, 4, 9]).astype(dtype)
    with pytest.raises(matsign.SpectrumError, match="negative real axis"):
        eager(sqrtm, a, method=method)


def test_eigh_on_a_matrix_that_is_not_hermitian_is_no_silent_answer(rng):
    a = stable(rng, 4)
    try:
        x = sqrtm(a, method="eigh")
    except (ValueError, matsign.SpectrumError):
        return
    np.testing.assert_allclose(x, direct.root_by_schur(a), atol=1e-10)


def test_large_corner_is_not_taken_for_a_singular_matrix():
    a = np.array([[1, 1e9], [0, 4.0]])
    x = sqrtm(a)
    np.testing.assert_allclose(x, [[1, 1e9 / 3], [0, 2]], rtol=1e-14)


def test_whitening(on, rng):
    samples = gaussian(rng, 200, 5) @ gaussian(rng, 5, 5)
    covariance = samples.T @ samples / 200
    z = on(invsqrtm, covariance)
    np.testing.assert_allclose(z @ covariance @ z, np.eye(5), atol=1e-12)


def test_batch_with_hermitian_general_singular_and_negative_members(on, rng):
    members = [definite(rng, 3), stable(rng, 3), np.diag([4.0, 1, 0]), np.diag([1.0, -1, 2])]
    x = on(sqrtm, np.stack(members), errors="nan")
    for k in range(3):
        np.testing.assert_allclose(x[k] @ x[k], members[k], atol=1e-13)
    assert np.isnan(x[3]).all()
