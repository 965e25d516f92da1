"""mcsgn, spectral_projector, matrix_abs: accuracy on hard matrices, singular ones, and eigenvalues on the axis."""

import contextlib
import math

import numpy as np
import pytest

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
    similar_hermitian,
    splitting,
    unitary,
)
from matsign import matrix_abs, mcsgn, spectral_projector

METHODS = ("newton", "schur", "auto")


def alternate(values):
    return values * np.where(np.arange(len(values)) % 2, -1, 1)


# name: (a function of rng that makes the matrix, the condition number of its eigenvectors)
HARD = {
    "1 x 1": (lambda rng: np.array([[-3.0]]), 1),
    "2 x 2": (lambda rng: similar(rng, np.diag([1.0, -2]), 10), 10),
    "3 x 3": (lambda rng: similar(rng, np.diag([1.0, -2, 3]), 10), 10),
    "7 x 7": (lambda rng: splitting(rng, 7), 10),
    "normal": (lambda rng: similar(rng, block_diagonal(rotation(1, 2), rotation(-1, 1), [[2.0]]), 1), 1),
    "complex": (lambda rng: similar(rng, np.diag([1 + 2j, -1 + 1j, 2 - 1j, -0.5j - 1]), 10), 10),
    "complex pairs": (lambda rng: similar(rng, block_diagonal(rotation(1, 5), rotation(-2, 1)), 100), 100),
    "all right": (lambda rng: similar(rng, np.diag([1.0, 2, 3, 4]), 1e3), 1e3),
    "graded 1e-6": (lambda rng: similar(rng, np.diag(alternate(graded(6, 1e6))), 10), 10),
    "graded 1e-12": (lambda rng: similar(rng, np.diag(alternate(graded(6, 1e12))), 10), 10),
    "graded triangular": (lambda rng: np.triu(gaussian(rng, 5, 5), 1) + np.diag(alternate(graded(5, 1e8))), 1e8),
    "graded Hermitian": (lambda rng: similar_hermitian(rng, alternate(graded(6, 1e8))), 1),
    "nonnormal 1e3": (lambda rng: similar(rng, np.diag([1.0, -1, 2, -2, 3]), 1e3), 1e3),
    "nonnormal 1e5": (lambda rng: similar(rng, np.diag([1.0, -1, 2, -2, 3]), 1e5), 1e5),
    "nonnormal 1e8": (lambda rng: similar(rng, np.diag([1.0, -1, 2, -2, 3]), 1e8), 1e8),
    "large corner": (lambda rng: np.array([[1, 1e8], [0, -1.0]]), 1e8),
    "repeated": (lambda rng: similar(rng, np.diag([2.0, 2, -1, -1, -1]), 100), 100),
    "clustered": (lambda rng: similar(rng, np.diag([1, 1 + 1e-9, 1 - 1e-9, -1, -1 - 1e-9]), 100), 100),
    "peer's failure": (lambda rng: np.array([[2, 1, 0], [0, 2, 0], [0, 0, -0.1]]), 1),
    "Jordan": (lambda rng: similar(rng, block_diagonal(jordan(1, 3), jordan(-1, 2)), 10), 1e9),
    "near the axis 1e-3": (lambda rng: similar(rng, block_diagonal(rotation(1e-3, 1), rotation(-1, 2)), 10), 10),
    "near the axis 1e-8": (lambda rng: similar(rng, block_diagonal(rotation(1e-8, 1), rotation(-1e-8, 2)), 10), 10),
    "near zero": (lambda rng: similar(rng, np.diag([1e-10, -1e-10, 1.0]), 10), 10),
}


PEERS = (direct.sign_by_eigenvectors, direct.sign_by_schur)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", HARD)
def test_accuracy(name, method, rng):
    make, condition = HARD[name]
    if name in BEYOND_RTOL and method == "newton":
        pytest.skip("too highly nonnormal for an inverse: an error, see the next test")
    rtol = 0 if name in BEYOND_RTOL else None
    peers = (direct.sign_by_eigh,) if name == "graded Hermitian" else PEERS
    assert_accurate(lambda m: mcsgn(m, method=method, rtol=rtol), truth.sign, peers, lambda: (make(rng),), condition)


# Singular to the default rtol, although no eigenvalue is near zero: their singular values span sixteen digits.
BEYOND_RTOL = ("graded triangular", "nonnormal 1e8", "large corner")


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["graded triangular", "nonnormal 1e8"])
def test_very_nonnormal_is_an_error_or_right(name, method, rng):
    make, _ = HARD[name]
    for _ in range(10):
        m = make(rng)
        with contextlib.suppress(matsign.SpectrumError):
            assert truth.error(mcsgn(m, method=method), truth.sign(m)) < 0.1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["7 x 7", "complex pairs", "nonnormal 1e3", "repeated", "peer's failure", "normal"])
def test_accuracy_in_single_precision(name, method, eager, rng):
    if (name, method) == ("nonnormal 1e3", "newton"):
        pytest.skip("its condition number is a million: inverses in single precision have no correct digit")
    make, condition = HARD[name]
    assert_accurate(
        lambda m: eager(mcsgn, m, method=method), truth.sign, PEERS, lambda: (make(rng).astype("float32"),), condition
    )


@pytest.mark.parametrize("name", ["nonnormal 1e5", "clustered", "Jordan"])
@pytest.mark.parametrize("method", METHODS)
def test_accuracy_on_other_libraries(name, method, eager, rng):
    make, condition = HARD[name]
    assert_accurate(lambda m: eager(mcsgn, m, method=method), truth.sign, PEERS, lambda: (make(rng),), condition)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["7 x 7", "complex", "graded 1e-6", "nonnormal 1e5", "clustered", "near the axis 1e-3"]
)
def test_accuracy_of_what_follows_from_the_sign(name, rng):
    make, condition = HARD[name]
    for f, from_sign in (
        (matrix_abs, lambda m, s: m @ s),
        (spectral_projector, lambda m, s: (np.eye(len(m)) + s) / 2),
        (lambda m: spectral_projector(m, half_plane="left"), lambda m, s: (np.eye(len(m)) - s) / 2),
    ):
        peers = [lambda m, peer=peer, g=from_sign: g(m, peer(m)) for peer in PEERS]
        assert_accurate(
            f, lambda m, g=from_sign: g(truth.exact(m), truth.sign(m)), peers, lambda: (make(rng),), condition
        )


@pytest.mark.parametrize("condition", [10, 1e8])
@pytest.mark.parametrize("method", ["eigh", "polynomial", "newton", "schur", "auto"])
def test_hermitian_methods(method, condition, eager, rng):
    if method == "polynomial" and condition > 1e3:
        pytest.skip("the polynomial iteration is accurate to the condition number: see its own test")

    def make():
        return (similar_hermitian(rng, alternate(graded(6, condition))),)

    f = lambda h: eager(mcsgn, h, method=method)  # noqa: E731
    peers = (direct.sign_by_eigh,) if method in ("eigh", "auto") else (direct.sign_by_eigh, *PEERS)
    assert_accurate(f, truth.sign, peers, make, condition)


def test_polynomial_on_an_ill_conditioned_hermitian_matrix(rng):
    h = similar_hermitian(rng, alternate(graded(6, 1e8)))
    assert truth.error(mcsgn(h, method="polynomial"), truth.sign(h)) < 1e-7


@pytest.mark.parametrize("n", [33, 60, 100])
@pytest.mark.parametrize("method", METHODS)
def test_larger_than_the_small_cases(n, method, rng):
    m = splitting(rng, n)
    s = mcsgn(m, method=method)
    expected = direct.sign_by_eigenvectors(m)
    assert np.linalg.norm(s - expected) < 1e-11 * np.linalg.norm(expected)


# Singular: exact integer similarities, so that zero really is an eigenvalue.
SINGULAR = {
    "simple": (np.diag([1.0, -2, 3, 0]), np.diag([1.0, -1, 1, 0])),
    "semisimple": (np.diag([1.0, -2, 0, 0]), np.diag([1.0, -1, 0, 0])),
    "defective": (block_diagonal([[1.0]], [[-2.0]], jordan(0, 2)), np.diag([1.0, -1, 0, 0])),
    "long chain": (block_diagonal([[-3.0]], jordan(0, 3)), np.diag([-1.0, 0, 0, 0])),
    "complex beside zero": (block_diagonal(rotation(-1, 2), jordan(0, 2)), np.diag([-1.0, -1, 0, 0])),
    "nilpotent": (jordan(0, 4), np.zeros((4, 4))),
    "zero": (np.zeros((4, 4)), np.zeros((4, 4))),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", SINGULAR)
def test_zero_eigenvalues_stay_zero(name, method, on, rng):
    core, sign = SINGULAR[name]
    m, transform = exactly_similar(rng, core)
    s = on(mcsgn, m, method=method)
    np.testing.assert_allclose(s, transform(sign), atol=1e-11)
    np.testing.assert_allclose(
        on(spectral_projector, m, method=method), transform((sign + 1) // 2 * (sign != 0)), atol=1e-11
    )
    np.testing.assert_allclose(on(matrix_abs, m, method=method), m @ transform(sign), atol=1e-10)


def test_zero_eigenvalues_in_a_batch_of_mixed_rank(everywhere, rng):
    pairs = [exactly_similar(rng, core) for core, _ in SINGULAR.values()]
    s = everywhere(mcsgn, np.stack([m for m, _ in pairs]))
    for k, (_, sign) in enumerate(SINGULAR.values()):
        np.testing.assert_allclose(s[k], pairs[k][1](sign), atol=1e-11)


@pytest.mark.parametrize("method", METHODS)
def test_the_sign_that_is_its_own_sign(method, everywhere):
    m = np.array([[1.0, 5], [0, 0]])
    np.testing.assert_allclose(everywhere(mcsgn, m, method=method), m, atol=1e-14)


@pytest.mark.parametrize("method", [*METHODS, "eigh"])
@pytest.mark.parametrize(("rtol", "expected"), [(None, 1.0), (1e-8, 1.0), (1e-4, 0.0), (0.0, 1.0)])
def test_rtol_decides_what_is_zero(method, rtol, expected):
    s = mcsgn(np.diag([1.0, -1.0, 1e-6]), method=method, rtol=rtol)
    np.testing.assert_allclose(s, np.diag([1, -1, expected]), atol=1e-13)


DOUBLE = np.kron(np.eye(2), rotation(0, 1)) + np.kron(np.eye(2, k=1), np.eye(2))
AXIS = {
    "plus minus i": rotation(0, 1),
    "beside others": block_diagonal(rotation(0, 2), [[1.0]], [[-3.0]]),
    "semisimple pair twice": block_diagonal(rotation(0, 1), rotation(0, 1)),
    "defective": DOUBLE,
    "with a zero": block_diagonal(rotation(0, 1), [[0.0]]),
    "with a defective zero": block_diagonal(rotation(0, 1), jordan(0, 2)),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", AXIS)
@pytest.mark.parametrize("similarity", ["none", "integer", "random"])
def test_eigenvalue_on_the_axis_is_an_error(name, method, similarity, eager, rng):
    for _ in range(1 if similarity == "none" else 5):
        m = AXIS[name]
        if similarity == "integer":
            m, _ = exactly_similar(rng, m)
        elif similarity == "random":
            m = similar(rng, m, 10)
        for f in (mcsgn, spectral_projector, matrix_abs):
            with pytest.raises(matsign.SpectrumError, match="imaginary axis"):
                eager(f, m, method=method)
            assert np.isnan(eager(f, m, method=method, errors="nan")).all()


@pytest.mark.compiles
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["plus minus i", "semisimple pair twice", "defective"])
def test_eigenvalue_on_the_axis_is_an_error_on_jax(name, method, rng):
    jax = pytest.importorskip("jax")
    for m in (AXIS[name], exactly_similar(rng, AXIS[name])[0]):
        with pytest.raises(matsign.SpectrumError, match="imaginary axis"):
            mcsgn(jax.numpy.asarray(m), method=method)


@pytest.mark.compiles
@pytest.mark.parametrize("method", METHODS)
def test_eigenvalue_on_the_axis_under_jit(method, rng):
    jax = pytest.importorskip("jax")
    stack = np.stack([splitting(rng, 4), similar(rng, AXIS["beside others"]), similar(rng, DOUBLE)])
    s = np.asarray(jax.jit(lambda m: mcsgn(m, method=method))(stack))
    assert np.isnan(s).all((1, 2)).tolist() == [False, True, True]
    np.testing.assert_allclose(s[0], direct.sign_by_eigenvectors(stack[0]), atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
@pytest.mark.parametrize("method", METHODS)
def test_eigenvalue_on_the_axis_in_other_dtypes(dtype, method, rng):
    core = AXIS["beside others"] if dtype == "float32" else np.diag([2j, 1, -1 + 1j])
    with pytest.raises(matsign.SpectrumError, match="imaginary axis"):
        mcsgn(similar(rng, core).astype(dtype), method=method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [20, 70])
def test_eigenvalue_on_the_axis_of_a_larger_matrix(method, n, rng):
    m = similar(rng, block_diagonal(rotation(0, 1), splitting(rng, n)), 10)
    with pytest.raises(matsign.SpectrumError, match="imaginary axis"):
        mcsgn(m, method=method)


@pytest.mark.parametrize("method", METHODS)
def test_beside_the_axis_is_no_error(method, rng):
    """1e-6 from the axis, the sign is well defined and as accurate as its condition allows."""
    m = similar(rng, block_diagonal(rotation(1e-6, 1), [[-1.0]]), 2)
    assert truth.error(mcsgn(m, method=method), truth.sign(m)) < 1e-8


def test_error_names_members_and_carries_the_others(on, rng):
    stack = np.stack([splitting(rng, 4)] * 6).reshape(2, 3, 4, 4)
    stack[1, 2] = block_diagonal(rotation(0, 1), rotation(0, 2))
    with pytest.raises(
        matsign.SpectrumError, match=r"mcsgn: batch members \(1, 2\): an eigenvalue lies on the imag"
    ) as error:
        on(mcsgn, stack)
    value = np.asarray(error.value.value)
    assert error.value.members == [(1, 2)]
    assert np.isnan(value[1, 2]).all()
    assert np.isfinite(value).sum() == 5 * 16


@pytest.mark.parametrize("method", ["polynomial"])
def test_polynomial_says_that_it_wants_a_real_spectrum(method, on, rng):
    m = similar(rng, block_diagonal(rotation(0.1, 1), [[-1.0]], [[2.0]]))
    with pytest.raises(matsign.SpectrumError, match="real spectrum"):
        on(mcsgn, m, method=method)


def test_eigh_on_a_matrix_that_is_not_hermitian_is_no_silent_answer(rng):
    m = splitting(rng, 4)
    try:
        s = mcsgn(m, method="eigh")
    except (ValueError, matsign.SpectrumError):
        return
    np.testing.assert_allclose(s, direct.sign_by_eigenvectors(m), atol=1e-10)


def test_projector_traces_count_eigenvalues(on, rng):
    m = np.stack([similar(rng, np.diag(v)) for v in ([1.0, 2, -1, -2], [1.0, 2, 3, -2], [1.0, 2, 3, 4])])
    for half_plane, counts in (("right", [2, 3, 4]), ("left", [2, 1, 0])):
        p = on(spectral_projector, m, half_plane=half_plane)
        np.testing.assert_allclose(np.trace(p, axis1=1, axis2=2), counts, atol=1e-12)


def test_abs_of_a_definite_matrix_is_itself_and_of_its_negative_too(on, rng):
    a = definite(rng, 5)
    np.testing.assert_allclose(on(matrix_abs, a), a, atol=1e-14)
    np.testing.assert_allclose(on(matrix_abs, -a), a, atol=1e-14)


def test_graded_and_complex_spectra_of_a_larger_matrix(rng):
    """Seven spectra of n = 40 for which a shift by a constant loses the sign."""
    for values in (graded(40, 1e8), graded(40, 1e4), np.linspace(0.1, 1, 40), 10.0 ** rng.uniform(-6, 6, 40)):
        m = similar(rng, np.diag(alternate(values)), 10)
        best = direct.sign_by_schur(m), direct.sign_by_eigenvectors(m)
        # The best estimate of truth at this size: the sign that the construction started from, to 10 x the peers' spread.
        spread = np.linalg.norm(best[0] - best[1])
        for method in METHODS:
            assert np.linalg.norm(mcsgn(m, method=method) - best[0]) <= 10 * spread + 1e-12 * np.linalg.norm(best[0])


def test_determinism(rng):
    m = splitting(rng, 6)
    for method in METHODS:
        np.testing.assert_array_equal(mcsgn(m, method=method), mcsgn(m, method=method))


UNITS = {
    "corner": np.array([[1, 6e7], [0, -1.0]]),
    "larger corner": np.array([[1, 1e100], [0, -1.0]]),
    "largest corner": np.array([[1, 1.7e308], [0, -1.0]]),
    "lower corner": np.array([[1, 0], [1e20, -2.0]]),
    "units of two": np.array([[3, 1e9], [1e-9, -3]]),
    "units of three": np.array([[2, 1e10, 1e20], [1e-10, -3, 1e10], [1e-20, 0, 1]]),
    "blocks": np.array([[1, 2, 1e30, 0], [3, -1, 0, 1e25], [0, 0, 2, 1], [0, 0, 1, -3.0]]),
    "permuted": np.array([[-1, 0, 1e30], [1e40, 2, 1e50], [0, 0, 3.0]]),
    "chain": np.diag([1.0, -1.0, 1.0, -1.0]) + 1e9 * np.eye(4, k=1),
}


@pytest.mark.parametrize("method", ["auto", "newton", "polynomial", "schur"])
@pytest.mark.parametrize("name", UNITS)
def test_bad_units_are_no_bad_matrix(name, method, eager):
    m = UNITS[name]
    expected = truth.sign(m)
    for f, exact in ((mcsgn, expected), (spectral_projector, (expected + truth.eye(len(m))) / 2)):
        value, certificate = eager(certified(f), m, method=method)
        assert truth.error(value, exact) < 1e-13
        assert certificate < 1e-13


def certified(f):
    def both(m, **options):
        value, certificate = matsign.certify(f)(m, **options)
        return value, certificate.forward_error

    return both


@pytest.mark.parametrize("x", [3e3, 1e8, 1e30])
@pytest.mark.parametrize("method", ["auto", "newton", "polynomial", "schur"])
def test_bad_units_in_single_precision(x, method, eager):
    for m in (np.array([[1, x], [0, -1]], "f"), np.array([[3, x], [1 / x, -3]], "f")):
        assert truth.error(eager(mcsgn, m, method=method), truth.sign(m)) < 1e-6


def test_a_stable_matrix_in_bad_units(everywhere):
    m = np.array([[-1, 1e9], [-2e-9, -3]])
    np.testing.assert_array_equal(everywhere(mcsgn, m), -np.eye(2))
    assert not everywhere(spectral_projector, m).any()
    np.testing.assert_allclose(everywhere(matrix_abs, m), -m, rtol=1e-14)


def test_random_units(rng):
    for _ in range(50):
        n = rng.integers(2, 7)
        a, e = splitting(rng, n), rng.integers(-150, 150, n)
        coupled = rng.random() < 0.5
        if coupled:
            a[n // 2 :, : n // 2] = 0
        p = rng.permutation(n)
        m = np.ldexp(a, e[:, None] - e)[np.ix_(p, p)]
        value, certificate = matsign.certify(mcsgn)(m)
        true = truth.error(value, truth.sign(m))
        assert true < 30 * max(certificate.forward_error, 1e-15)
        # The sign of a block with its spectrum in one half plane has zeros that only come from cancellation.
        assert coupled or max(true, certificate.forward_error) < 1e-9


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("similarity", ["orthogonal", "integer"])
def test_never_zero_where_it_is_not(similarity, method, rng):
    """Highly nonnormal in any scaling: right, or an error."""
    for _ in range(40):
        x = 10.0 ** rng.uniform(6, 14)
        core = block_diagonal([[1, round(x)], [0, -1]], np.diag(rng.integers(1, 5, rng.integers(0, 3)).astype(float)))
        m = exactly_similar(rng, core)[0] if similarity == "integer" else similar(rng, core, 1)
        try:
            value, certificate = matsign.certify(mcsgn)(m, method=method)
        except matsign.SpectrumError:
            continue
        with contextlib.suppress(ArithmeticError, ZeroDivisionError):  # rounding may have put an eigenvalue on the axis
            true = truth.error(value, truth.sign(m))
            assert true < 30 * max(certificate.forward_error, 1e-15)


@pytest.mark.parametrize("method", [*METHODS, "polynomial"])
def test_nilpotents(method, on, rng):
    """The sign is 0 if the matrix is exactly nilpotent; for eigenvalues that rounding moved off zero `rtol` decides."""
    for n in (2, 3, 5):
        m, _ = exactly_similar(rng, jordan(0, n))
        np.testing.assert_array_equal(on(mcsgn, m, method=method), 0 * m)
        u = unitary(rng, n)
        rotated = u @ jordan(0, n) @ u.T
        with pytest.raises(matsign.SpectrumError, match=r"rtol above its relative rounding"):
            on(mcsgn, rotated, method=method)
        np.testing.assert_array_equal(on(mcsgn, rotated, method=method, rtol=1e-12), 0 * m)


def test_many_exactly_singular_matrices(rng):
    for _ in range(100):
        chains = [jordan(0, int(k)) for k in rng.integers(1, 4, rng.integers(1, 3))]
        signs = rng.choice([-1.0, 1.0], 3) * rng.integers(1, 4, 3)
        core = block_diagonal(np.diag(signs), *chains)
        m, transform = exactly_similar(rng, core)
        expected = transform(np.diag(np.append(np.sign(signs), np.zeros(len(m) - 3))))
        for rtol in (None, 0.0):
            value, certificate = matsign.certify(mcsgn)(m, rtol=rtol)
            error = np.linalg.norm(value - expected) / np.linalg.norm(expected)
            assert error < 1e-9
            assert error < 30 * max(certificate.forward_error, 1e-15)


@pytest.mark.parametrize("size", [1e160, 1e-170, 1e300, 5e-320])
def test_eigenvectors_of_a_matrix_that_is_not_hermitian(size, eager):
    with pytest.raises(matsign.SpectrumError, match="Hermitian"):
        eager(mcsgn, size * np.array([[1.0, 2.0], [0.0, -1.0]]), method="eigh")
    np.testing.assert_allclose(
        eager(mcsgn, size * np.array([[0.0, 2.0], [2.0, 0.0]]), method="eigh"), [[0, 1], [1, 0]], atol=1e-15
    )


@pytest.mark.parametrize("size", [1e4, 1e-12, 1e-150, 1e150])
@pytest.mark.parametrize("method", ["auto", "newton", "polynomial", "schur"])
def test_certificates_do_not_depend_on_the_size(size, method, eager, rng):
    for f in (mcsgn, matrix_abs, spectral_projector):
        m = splitting(rng, 5)
        base, scaled = (float(eager(certified(f), x, method=method)[1]) for x in (m, size * m))
        assert base / 10 < scaled < 10 * base


def test_certificates_of_zero():
    for f in (mcsgn, matrix_abs, spectral_projector):
        value, certificate = matsign.certify(f)(np.zeros((3, 3)))
        assert not value.any()
        assert (certificate.forward_error, certificate.backward_error) == (0, 0)
    value, certificate = matsign.certify(spectral_projector)(-np.eye(3) + np.eye(3, k=1))
    assert not value.any()
    assert certificate.backward_error == 0


def test_a_wrong_zero_is_seen_by_the_backward_error():
    residual = mcsgn.spec.residual(matsign.backends.load("numpy"), (np.zeros((1, 2, 2)),), UNITS["corner"][None])
    assert residual.backward[0] > 0.01


def test_an_answer_too_large_for_the_dtype(eager):
    m = np.diag([1.0, -1.0] * 3) + 1e100 * np.eye(6, k=1)
    with pytest.raises(matsign.SpectrumError, match="larger than the largest number"):
        eager(mcsgn, m)
    with pytest.raises(matsign.SpectrumError, match="larger than the largest number"):
        eager(matrix_abs, 1.7e308 * np.array([[0.7, 0.9], [0.9, -0.7]]))


@pytest.mark.parametrize("f", [mcsgn, matrix_abs, spectral_projector])
def test_denormal_numbers(f, everywhere):
    """XLA flushes them to zero on a CPU."""
    m = np.array([[1.0, 2.0], [3.0, -1.0]])
    degree = int(f is matrix_abs)
    for size in (2.0**-1030, 2.0**-1060):
        np.testing.assert_allclose(everywhere(f, size * m), size**degree * f(m), rtol=1e-14, atol=5e-324)


def test_a_hermitian_matrix_as_it_stands(eager):
    """With ``rtol=0`` the rounding errors in its zero eigenvalues do not become a sign of ±1."""
    m = np.ones((4, 4))
    np.testing.assert_allclose(eager(mcsgn, m, rtol=0.0), m / 4, atol=1e-14)
    np.testing.assert_allclose(eager(spectral_projector, m, rtol=0.0, half_plane="left"), 0 * m, atol=1e-14)


def drifting(rng, n):
    """Masses joined by random springs, damping a product with their matrix: zero is a double eigenvalue up to rounding."""
    springs = rng.uniform(0.5, 2, n - 1)
    g = np.diff(np.eye(n), axis=0)
    k = g.T @ np.diag(np.round(springs * 64) / 64) @ g
    damping = 0.3 * k @ (k + rng.uniform(0.1, 1) * np.eye(n))
    return np.block([[np.zeros((n, n)), np.eye(n)], [-k, -damping]])


@pytest.mark.parametrize("n", [3, 6, 10])
def test_a_chain_that_its_null_vector_begins_exactly_and_rounding_ends(n, on, rng):
    """A Laplacian has exact null vectors, products with it only up to rounding."""
    for _ in range(20 if on.name == "numpy" else 3):
        m = drifting(rng, n)
        s = on(matsign.mcsgn, m)
        assert np.trace(s) == pytest.approx(2 - 2 * n)
        # -1 on all motions but drift, which are damped; 0 on the drift and its velocity.
        expected = -np.kron(np.eye(2), np.eye(n) - np.ones((n, n)) / n)
        np.testing.assert_allclose(s, expected, atol=1e-10)
        np.testing.assert_allclose(on(matsign.matrix_abs, m), m @ expected, atol=1e-10)
        assert np.linalg.norm(on(matsign.spectral_projector, m)) < 1e-10


def test_the_certificate_says_that_rounding_ends_a_chain(on):
    m = np.block([[np.zeros((3, 3)), np.eye(3)], [-LAPLACIAN, -0.1 * LAPLACIAN @ (LAPLACIAN + 0.7 * np.eye(3))]])
    assert on(matsign.certify(matsign.mcsgn), m)[1].forward_error == math.inf
    assert on(matsign.certify(matsign.mcsgn), m, rtol=1e-12)[1].forward_error < 1e-12


LAPLACIAN = np.array([[1.0, -1, 0], [-1, 2, -1], [0, -1, 1]])
