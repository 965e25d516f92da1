"""Square roots and inverse roots."""

import numpy as np
import pytest
import scipy.linalg as sl

import direct
import matsign
import truth
from accuracy import assert_accurate
from matrices import (
    adjoint,
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


@pytest.mark.slow
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


@pytest.mark.slow
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
    """-1 lies on the branch cut and takes the argument π."""
    a = np.diag([-1.0, 4, 9]).astype(dtype)
    if method == "polynomial":
        with pytest.raises(matsign.SpectrumError, match="polynomial iteration needs"):
            eager(sqrtm, a, method=method)
        return
    x, z = eager(sqrtm_pair, a, method=method)
    for value in (x, eager(sqrtm, a, method=method)):
        np.testing.assert_allclose(value, np.diag([1j, 2, 3]), atol=1e-6)
    np.testing.assert_allclose(z, np.diag([-1j, 1 / 2, 1 / 3]), atol=1e-6)
    np.testing.assert_allclose(eager(invsqrtm, a, method=method), z)


@pytest.mark.parametrize("n", [4, 60])
def test_unitary_matrices_with_the_eigenvalue_minus_one(n, eager, rng):
    u = unitary(rng, n, "complex128")
    values = np.exp(1j * rng.uniform(-3, 3, n))
    values[: n // 2] = -1
    a = (u * values) @ adjoint(u)
    exact = (u * np.sqrt(values)) @ adjoint(u)
    for m, root in ((a, exact), ((a + adjoint(a)) / 2, None)):
        x, certificate = matsign.certify(sqrtm)(m)
        assert np.linalg.norm(eager(sqrtm, m) - x) == 0
        assert np.linalg.norm(x @ x - m) < 1e-13 * n
        assert root is None or np.linalg.norm(x - root) < 1e-12
        assert certificate.backward_error < 1e-14
        assert certificate.forward_error < 1e-12
        e = gaussian(rng, n, n, dtype="complex128")
        dx = matsign.frechet(sqrtm)(m, e)
        assert np.linalg.norm(x @ dx + dx @ x - e) < 1e-11 * n


def test_rounding_of_the_real_part_of_an_eigenvalue_does_not_change_the_branch(rng):
    u = np.linalg.qr(gaussian(rng, 1000, 3, 3, dtype="complex128"))[0]
    values = np.exp(1j * rng.uniform(-2.5, 2.5, (1000, 3)))
    values[:, 0] = -1
    a = (u * values[:, None]) @ adjoint(u)
    for f, argument in ((sqrtm, np.pi / 2), (invsqrtm, -np.pi / 2)):
        assert (abs(np.angle(np.linalg.eigvals(f(a))) - argument) < 1e-6).sum() == 1000


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


# What counts as zero.


@pytest.mark.parametrize("method", HERMITIAN)
def test_what_counts_as_zero_is_zero_in_every_root(method, eager, rng):
    for a in (np.diag([1, 1e-12]), np.array([[1, 1.0], [0, 1e-12]])):
        if method == "eigh" and a[0, 1]:
            continue
        expected = np.where(a > 1e-6, 1.0, 0.0)
        x, z = eager(sqrtm_pair, a, method=method, rtol=1e-6)
        for found in (x, z, eager(sqrtm, a, method=method, rtol=1e-6), eager(invsqrtm, a, method=method, rtol=1e-6)):
            np.testing.assert_allclose(found, expected, atol=1e-15)


def test_root_of_a_projector_is_the_projector(rng):
    """Without the errors of 1e-8 that the roots of its rounded zeros have."""
    for _ in range(100):
        n = int(rng.integers(2, 9))
        u = unitary(rng, n)[:, : rng.integers(1, n)]
        p = u @ u.T
        for a in (p, (p + p.T) / 2):
            for x in sqrtm_pair(a):
                np.testing.assert_allclose(x, p, atol=1e-14)


@pytest.mark.parametrize("seed", range(8))
def test_root_of_a_product_of_two_covariances_of_low_rank(seed):
    """As in the Fréchet inception distance: fewer samples than features, which a rectifier has made nonnegative."""
    rng = np.random.default_rng(seed)
    n, samples = 64, 50

    def covariance():
        return np.cov(np.maximum(gaussian(rng, samples, n) @ gaussian(rng, n, n) / 8, 0).T)

    def factor(s):
        values, v = np.linalg.eigh(s)
        return v * np.sqrt(np.where(values > 1e-12 * values[-1], values, 0))

    s1, s2 = covariance(), covariance()
    x, certificate = matsign.certify(sqrtm)(s1 @ s2)
    expected = np.linalg.svd(factor(s1).T @ factor(s2), compute_uv=False).sum()
    assert abs(np.trace(x) / expected - 1) < 1e-11
    assert np.linalg.norm(x @ x - s1 @ s2) < 1e-10 * np.linalg.norm(s1 @ s2)
    assert certificate.backward_error < 1e-11


def test_singular_matrices_of_all_ranks_by_hundreds(rng):
    for _ in range(200):
        n = int(rng.integers(2, 8))
        values = np.where(np.arange(n) < rng.integers(0, n), rng.uniform(0.5, 3, n), 0)
        v = similar(rng, np.eye(n), 1) + 0.3 * gaussian(rng, n, n)
        inverse, condition = np.linalg.inv(v), np.linalg.cond(v)
        if condition > 50:
            continue
        x, z = sqrtm_pair(v @ np.diag(values) @ inverse)
        np.testing.assert_allclose(x, v @ np.diag(values**0.5) @ inverse, atol=1e-14 * condition**3)
        reciprocal = np.where(values > 0, 1 / np.sqrt(np.where(values > 0, values, 1)), 0)
        np.testing.assert_allclose(z, v @ np.diag(reciprocal) @ inverse, atol=1e-14 * condition**3)


def test_badly_scaled_matrices_are_balanced_first(eager):
    a = np.array([[2, 1e20], [1e-20, 2]])
    (x, z), certificate = eager(matsign.certify(sqrtm_pair), a)
    root, inverse = (3**0.5 + 1) / 2, (3**-0.5 + 1) / 2
    np.testing.assert_allclose(np.diag(x), root, rtol=1e-14)
    np.testing.assert_allclose(np.diag(z), inverse, rtol=1e-14)
    assert float(certificate.backward_error) < 1e-15
    assert 1e-17 < float(certificate.forward_error) < 1e-13


@pytest.mark.parametrize("f", [sqrtm, invsqrtm, sqrtm_pair], ids=lambda f: f.__name__)
def test_derivatives_of_badly_scaled_matrices_are_balanced_too(f, eager, rng):
    a, e = 2 * np.eye(3) + 0.3 * gaussian(rng, 3, 3), gaussian(rng, 3, 3)
    d = 2.0 ** (25 * np.arange(3))
    scales = d[:, None] / d
    direct, scaled = eager(matsign.frechet(f), a, e), eager(matsign.frechet(f), a * scales, e * scales)
    np.testing.assert_allclose(scaled / scales, direct, rtol=1e-12)
    # The derivative along a itself is the power times f(a).
    assert eager(matsign.condition(f), a * scales) >= 0.5


# The polynomial iteration.


def test_a_polynomial_root_that_has_drifted_is_none(rng):
    """A nearly defective double eigenvalue, whose imaginary part the slopes of a long schedule would magnify."""
    a = np.array([[1.4949038564152861, -0.4287948533792835], [0.5712051466207164, 0.5050961435847138]])
    cases = [a, *(similar(rng, jordan(1, n), c) for n in (2, 3) for c in (1, 3, 10, 100) for _ in range(10))]
    for a in cases:
        for f, k in ((sqrtm, 0), (invsqrtm, 1)):
            try:
                x = f(a, method="polynomial")
            except matsign.SpectrumError as error:
                assert "lost its accuracy" in str(error)  # noqa: PT017
                continue
            assert truth.error(x, truth.root_pair(a)[k]) < 1e-9


# Certificates.

HOSTILE = {
    "definite": lambda rng, n: definite(rng, n, 10 ** rng.uniform(0, 12)),
    "nonnormal": lambda rng, n: similar(rng, np.diag(10 ** rng.uniform(-6, 0, n)), 10 ** rng.uniform(0, 4)),
    "near the axis": lambda rng, n: similar(
        rng, block_diagonal(rotation(-1, 10 ** rng.uniform(-12, -1)), np.eye(n)), 10 ** rng.uniform(0, 1.5)
    ),
    "Jordan": lambda rng, n: similar(rng, jordan(1, max(n, 2)), 10 ** rng.uniform(0, 2)),
    "triangular": lambda rng, n: np.diag(10 ** rng.uniform(-8, 0, n)) + np.triu(gaussian(rng, n, n), 1),
    "single": lambda rng, n: definite(rng, n, 10 ** rng.uniform(0, 4)).astype("float32"),
    "complex": lambda rng, n: similar(
        rng, np.diag(10 ** rng.uniform(-3, 0, n) * np.exp(1j * rng.uniform(-3.1, 3.1, n))), 10 ** rng.uniform(0, 2)
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_forward_error_is_not_below_the_true_one(name, rng):
    for _ in range(12):
        a = HOSTILE[name](rng, int(rng.integers(1, 5)))
        exact = truth.root_pair(a)
        for f, expected in ((sqrtm, exact[:1]), (invsqrtm, exact[1:]), (sqrtm_pair, exact)):
            try:
                value, certificate = matsign.certify(f)(a)
            except matsign.SpectrumError:
                continue
            value = value if f is sqrtm_pair else (value,)
            true = max(truth.error(x, y) for x, y in zip(value, expected, strict=True))
            assert certificate.forward_error >= true / 30


def test_forward_error_near_the_negative_axis():
    """An error of 1e-3 with a residual of 1e-16: a shift of √eps would hide it."""
    a = np.array([[-1, 1e-12, 0.3], [-1e-12, -1, 0.7], [0, 0, 2]])
    x, certificate = matsign.certify(sqrtm)(a)
    true = truth.error(x, truth.root_pair(a)[0])
    assert certificate.backward_error < 1e-13
    assert max(true / 30, 1e-8) < certificate.forward_error


def test_forward_error_holds_what_rounding_of_the_matrix_does():
    _, certificate = matsign.certify(sqrtm)(np.diag([1, 1e-12]))
    assert 1e-12 < certificate.forward_error < 1e-8


@pytest.mark.parametrize("f", [sqrtm, invsqrtm, sqrtm_pair])
@pytest.mark.parametrize("a", [np.zeros((2, 2)), np.diag([1.0, 0]), np.array([[1.0, 5], [0, 0]])], ids=str)
def test_certificate_of_a_singular_matrix(a, f, eager):
    _, certificate = eager(matsign.certify(f), a)
    assert float(certificate.backward_error) < 1e-15
    assert float(certificate.forward_error) < 1e-12


# Error messages.


def test_the_text_names_the_eigenvalue_and_whether_it_is_only_near():
    with pytest.raises(matsign.SpectrumError, match=r"the eigenvalue -300 lies on the negative real axis"):
        sqrtm(np.array([[-300.0, 1], [0, 4]]))
    with pytest.raises(matsign.SpectrumError, match=r"the eigenvalue -3e\+100 lies on the negative"):
        sqrtm(1e100 * np.diag([1.0, -3, 2]))
    near = np.array([[-1, 1e-17, 0.3], [-1e-17, -1, 0.7], [0, 0, 2]])
    with pytest.raises(matsign.SpectrumError, match=r"lies so near the negative real axis that rounding"):
        sqrtm(near)
    with pytest.raises(matsign.SpectrumError, match="convert it to a complex dtype"):
        sqrtm(np.diag([1.0, -1]))


def test_rtol_far_above_what_it_drops(rng):
    """The error is the part that is dropped, not rtol: the smallest eigenvalue left is 1e-5, with a large projector."""
    for _ in range(20):
        v = gaussian(rng, 3, 3)
        m = v @ np.diag([1.0, 1e-5, 0.0]) @ np.linalg.inv(v)
        exact = v @ np.diag([1.0, 1e-5**-0.5, 0.0]) @ np.linalg.inv(v)
        found = [invsqrtm(m, rtol=rtol) for rtol in (1e-12, 1e-8, 1e-7)]
        for z in found:
            assert np.linalg.norm(z - exact) < 1e-6 * np.linalg.norm(exact)
