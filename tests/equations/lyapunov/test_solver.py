"""Lyapunov and Stein equations: spectra of all kinds, units, singular operators, reliable certificates."""

import numpy as np
import pytest
import scipy.linalg as sl
from hypothesis import given
from hypothesis import strategies as st

import direct
import matsign
import truth
from matrices import (
    DTYPES,
    adjoint,
    block_diagonal,
    contraction,
    gaussian,
    graded,
    jordan,
    rotation,
    similar,
    splitting,
    stable,
)
from matsign import certify, solve_continuous_lyapunov, solve_discrete_lyapunov
from truth import exact

EPS = {"float32": 1.2e-7, "float64": 2.3e-16, "complex64": 1.2e-7, "complex128": 2.3e-16}


def continuous_gap(a, x, q):
    terms = 2 * np.linalg.norm(a) * np.linalg.norm(x) + np.linalg.norm(q)
    return np.linalg.norm(a @ x + x @ adjoint(a) - q) / terms


def discrete_gap(a, x, q):
    terms = (np.linalg.norm(a) ** 2 + 1) * np.linalg.norm(x) + np.linalg.norm(q)
    return np.linalg.norm(a @ x @ adjoint(a) - x + q) / terms


def continuous_matrices(rng):
    """Named matrices, stable or with eigenvalues on both sides of the axis, on which methods differ."""
    near = {
        f"{d} from the axis": similar(rng, block_diagonal(rotation(-d, 1.3), rotation(-0.5, 2), -np.eye(2)))
        for d in (1e-6, 1e-10, 1e-13)
    }
    units = np.geomspace(1e-12, 1e12, 8)[rng.permutation(8)]
    core = gaussian(rng, 8, 8) / 3 - 2 * np.eye(8)
    return near | {
        "one eigenvalue at 1e-12": similar(rng, np.diag([-1e-12, -1, -2, -0.5])),
        "mixed": splitting(rng, 7),
        "antistable": stable(rng, 6),
        "nonnormal": similar(rng, np.diag(-0.5 - rng.random(8)), 1e5),
        "Jordan": similar(rng, jordan(-0.5, 6)),
        "a long Jordan block": similar(rng, jordan(-0.3, 10)),
        "graded": similar(rng, np.diag(-graded(10, 1e6))),
        "rows of many sizes": np.diag(-graded(9, 1e10)) @ (np.eye(9) + 0.1 * gaussian(rng, 9, 9)),
        "unlike units": units[:, None] * core / units,
    }


def discrete_matrices(rng):
    """Named matrices with eigenvalues inside, or on both sides of, the unit circle."""
    out = {}
    for name, a in continuous_matrices(rng).items():
        spread = 1.5 * np.abs(np.linalg.eigvals(a)).max()
        if name == "unlike units":
            spread = 5.0
        out[name] = np.linalg.solve(a / spread - np.eye(len(a)), a / spread + np.eye(len(a)))
    inside = contraction(rng, 6)
    return out | {"outside": np.linalg.inv(inside), "zero": np.zeros((3, 3)), "nilpotent": jordan(0.0, 5)}


@pytest.mark.parametrize("name", continuous_matrices(np.random.default_rng(0)))
@pytest.mark.parametrize("definite", [True, False])
def test_continuous_error_is_no_larger_than_the_certificate_says(name, definite, rng):
    a = continuous_matrices(np.random.default_rng(0))[name]
    b = gaussian(rng, len(a), 2)
    q = -b @ b.T if definite else gaussian(rng, len(a), len(a))
    x, certificate = certify(solve_continuous_lyapunov)(a, q)
    assert continuous_gap(a, x, q) < 1e-14
    check_backward(certificate, (exact(a) @ exact(x), exact(x) @ exact(a).T, -exact(q)))
    check(x, truth.lyapunov(a, q), certificate)


@pytest.mark.parametrize("name", discrete_matrices(np.random.default_rng(0)))
@pytest.mark.parametrize("definite", [True, False])
def test_discrete_error_is_no_larger_than_the_certificate_says(name, definite, rng):
    a = discrete_matrices(np.random.default_rng(0))[name]
    b = gaussian(rng, len(a), 2)
    q = b @ b.T if definite else gaussian(rng, len(a), len(a))
    x, certificate = certify(solve_discrete_lyapunov)(a, q)
    assert discrete_gap(a, x, q) < 1e-14
    check_backward(certificate, (exact(a) @ exact(x) @ exact(a).T, -exact(x), exact(q)))
    check(x, truth.stein(a, q), certificate)


def check_backward(certificate, terms):
    """The certificate's backward error is the norm of the residual over the sum of the norms of the terms."""
    left = float(truth.size(sum(terms)) / sum(truth.size(term) for term in terms))
    assert certificate.backward_error == pytest.approx(left, rel=1e-3, abs=1e-20)


def check(x, exact, certificate):
    """The estimate bounds the error up to a random factor, and is not much too large."""
    error = truth.error(x, exact)
    assert error < 30 * certificate.forward_error + 1e-15
    assert certificate.forward_error < 1e4 * error + 1e-13
    assert error < 1e-8 or certificate.forward_error > 1e-9


@pytest.mark.parametrize("f", [solve_continuous_lyapunov, solve_discrete_lyapunov])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 2, 3, 7, 65, 130])
def test_hermitian_to_the_last_bit(f, dtype, n, eager, rng):
    mixed = (gaussian(rng, n, n, dtype=dtype) / np.sqrt(n)).astype(dtype)
    for a in (-stable(rng, n, dtype), contraction(rng, n, dtype), mixed):
        q = gaussian(rng, n, n, dtype=dtype)
        q = q + adjoint(q)
        x = eager(f, a, q)
        np.testing.assert_array_equal(x, adjoint(x))
        gap = continuous_gap if f is solve_continuous_lyapunov else discrete_gap
        assert gap(a, x, q) < 20 * EPS[dtype] * np.sqrt(n)


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 9), dtype=st.sampled_from(DTYPES))
def test_a_member_has_the_bits_that_it_has_alone(seed, n, dtype):
    """Members of all kinds in one stack: the method for each does not depend on the others."""
    rng = np.random.default_rng(seed)
    kinds = [-stable(rng, n, dtype), contraction(rng, n, dtype), gaussian(rng, n, n, dtype=dtype)]
    units = 2.0 ** rng.integers(-20, 20, n)
    kinds += [(units[:, None] * kinds[0] / units).astype(dtype)]
    a = np.stack([kinds[k] for k in rng.integers(0, 4, 6)])
    q = gaussian(rng, 6, n, n, dtype=dtype)
    for f in (solve_continuous_lyapunov, solve_discrete_lyapunov):
        x = f(a, q, errors="nan")
        for k in range(6):
            np.testing.assert_array_equal(x[k], f(a[k], q[k], errors="nan"))


def test_large_members_have_the_bits_that_they_have_alone(rng):
    a = np.stack([gaussian(rng, 90, 90) / 10 - 2.5 * np.eye(90), gaussian(rng, 90, 90)])
    q = gaussian(rng, 2, 90, 90)
    x = solve_continuous_lyapunov(a, q)
    for k in range(2):
        np.testing.assert_array_equal(x[k], solve_continuous_lyapunov(a[k], q[k]))


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_singular_equations_are_errors(dtype, on):
    for values in ([1.0, -1.0, 3.0], [0.0, -1.0, -2.0]):
        a = np.diag(values).astype(dtype)
        with pytest.raises(matsign.SpectrumError, match="share an eigenvalue"):
            on(solve_continuous_lyapunov, a, np.eye(3, dtype=dtype))
    for values in ([2.0, 0.5, 0.1], [1.0, 0.3, 0.2]):
        with pytest.raises(matsign.SpectrumError, match="λ conj"):
            on(solve_discrete_lyapunov, np.diag(values).astype(dtype), np.eye(3, dtype=dtype))


SINGULAR = {
    solve_continuous_lyapunov: (
        np.diag([1.0, -1, 3]),
        np.diag([0.0, -1, -2]),
        block_diagonal(rotation(0, 2), -np.eye(3)),
        block_diagonal(jordan(1.0, 2), jordan(-1.0, 3)),
    ),
    solve_discrete_lyapunov: (
        np.diag([2.0, 0.5, 0.1]),
        block_diagonal(rotation(0.6, 0.8), [[0.3]]),
        block_diagonal(jordan(2.0, 2), jordan(0.5, 2)),
    ),
}


@pytest.mark.parametrize(
    ("f", "method"),
    [(solve_continuous_lyapunov, m) for m in ("auto", "doubling", "newton", "schur")]
    + [(solve_discrete_lyapunov, m) for m in ("auto", "doubling", "schur", None, "direct", "bilinear")],
)
def test_every_draw_of_a_singular_equation_is_one(f, method, rng):
    """Many random similarities, with q in the range or zero, so that x does not reveal the singularity."""
    for core in SINGULAR[f]:
        a = np.stack(
            [similar(rng, core, 10, d) for d in ("complex128",) * 12] + [similar(rng, core, 10) for _ in range(12)]
        )
        x = gaussian(rng, *a.shape)
        inside = a @ x + x @ adjoint(a) if f is solve_continuous_lyapunov else x - a @ x @ adjoint(a)
        for q in (inside, 0 * inside):
            with pytest.raises(matsign.SpectrumError, match="singular to working precision") as error:
                f(a, q, method=method)
            assert len(error.value.members) == len(a)
            assert len(set(error.value.failures)) == 1


@pytest.mark.parametrize("damping", [1e-2, 1e-3])
@pytest.mark.parametrize("frequencies", [(1, 1e2), (1, 1e4), (1, 10, 1e3, 1e4)])
def test_stiff_lightly_damped_blocks_keep_their_own_digits(frequencies, damping, eager):
    a = block_diagonal(*(w * rotation(-damping, 1) for w in frequencies))
    q = -np.eye(len(a))
    x, certificate = eager(certify(solve_continuous_lyapunov), a, q)
    assert truth.error(x, truth.lyapunov(a, q)) < 1e-15
    assert certificate.backward_error < 1e-15
    assert truth.error(eager(solve_discrete_lyapunov, a / 1e5, -q), truth.stein(a / 1e5, -q)) < 1e-15


@pytest.mark.parametrize("exponent", [-300, -155, 155, 300])
@pytest.mark.filterwarnings("error")
def test_the_whole_range_of_numbers(exponent, eager, rng):
    a, c, q, s = -stable(rng, 3), contraction(rng, 3), gaussian(rng, 3, 3), 2.0 ** round(exponent * 3.32)
    x, y = solve_continuous_lyapunov(a, q), solve_discrete_lyapunov(c, q)
    for f, arguments, wanted in (
        (solve_continuous_lyapunov, (s * a, s * q), x),
        (solve_continuous_lyapunov, (a, s * q), s * x),
        (solve_continuous_lyapunov, (s * a, q), x / s),
        (solve_discrete_lyapunov, (c, s * q), s * y),
    ):
        value, certificate = eager(certify(f), *arguments)
        assert np.linalg.norm((value - wanted) / np.abs(wanted).max()) < 1e-13
        assert 0 < certificate.forward_error < 1e-13
        assert certificate.backward_error < 1e-14
    if exponent < 0:
        with pytest.raises(matsign.SpectrumError, match="larger than the largest number"):
            eager(solve_continuous_lyapunov, s * a, q / s)


@pytest.mark.parametrize("method", ["auto", "doubling", "schur"])
@pytest.mark.parametrize("size", [1e3, 1e60, 1e154])
def test_stein_with_a_large_matrix(size, method, rng):
    """For large a, x is about -a⁻¹ q a⁻ᴴ, small; here a is a power of two times the inverse of a contraction."""
    s = 2.0 ** round(np.log2(size))
    a, q = s * np.linalg.inv(contraction(rng, 3)), gaussian(rng, 3, 3)
    x, certificate = certify(solve_discrete_lyapunov)(a, s * q, method=method)
    error = truth.error(x, truth.stein(a, s * q))
    assert error < 1e-13
    assert error < 30 * certificate.forward_error


def test_a_pair_on_the_axis_is_an_error(rng):
    a = similar(rng, block_diagonal(rotation(0.0, 2.0), -np.eye(3)))
    with pytest.raises(matsign.SpectrumError):
        solve_continuous_lyapunov(a, np.eye(5))


def test_no_right_hand_side_no_answer_but_zero(on, rng):
    a = -stable(rng, 4)
    assert not on(solve_continuous_lyapunov, a, np.zeros((4, 4))).any()
    assert not on(solve_discrete_lyapunov, contraction(rng, 4), np.zeros((4, 4))).any()


@pytest.mark.parametrize("method", [None, "direct", "bilinear"])
def test_scipys_methods_and_order_of_arguments(method, rng):
    a, q = contraction(rng, 5), gaussian(rng, 5, 5)
    ours, theirs = solve_discrete_lyapunov(a, q, method), sl.solve_discrete_lyapunov(a, q, method)
    assert np.linalg.norm(ours - theirs) < 1e-12 * np.linalg.norm(theirs)


def test_units_of_the_states_do_not_matter(rng):
    """A change of units by powers of two changes the answer only by these powers, up to rounding."""
    a, q = gaussian(rng, 6, 6) / 2 - 2 * np.eye(6), gaussian(rng, 6, 6)
    units = 2.0 ** np.array([-40, 30, 0, 13, -22, 38])
    inner, outer = units[:, None] / units, units[:, None] * units
    for f, b in ((solve_continuous_lyapunov, a), (solve_discrete_lyapunov, a / 8)):
        x, y = f(b, q), f(inner * b, outer * q) / outer
        assert np.linalg.norm(x - y) < 1e-14 * np.linalg.norm(x)


@pytest.mark.parametrize("n", [1, 2, 47, 48, 49, 101])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_schur_vectors_on_mixed_spectra(n, dtype, rng):
    a = gaussian(rng, n, n, dtype=dtype)
    for q in (gaussian(rng, n, n, dtype=dtype), np.eye(n, dtype=dtype)):
        assert continuous_gap(a, solve_continuous_lyapunov(a, q, method="schur"), q) < 1e-14
        c = a / np.sqrt(n)
        assert discrete_gap(c, solve_discrete_lyapunov(c, q, method="schur"), q) < 1e-14


@pytest.mark.parametrize("distance", [1e-2, 1e-5])
def test_separation_is_the_smallest_singular_value(distance, rng):
    a = similar(rng, np.diag([-distance, -0.3, -1.0, -2.0]))
    _, certificate = certify(solve_continuous_lyapunov)(a, np.eye(4))
    exact = np.linalg.svd(np.kron(a, np.eye(4)) + np.kron(np.eye(4), a), compute_uv=False)[-1]
    assert exact * (1 - 1e-6) < certificate.separation < 2 * exact
    c = similar(rng, np.diag([1 - distance, -0.3, 0.5, 0.1]))
    _, certificate = certify(solve_discrete_lyapunov)(c, np.eye(4))
    exact = np.linalg.svd(np.kron(c, c) - np.eye(16), compute_uv=False)[-1]
    assert exact * (1 - 1e-6) < certificate.separation < 2 * exact


def test_newton_says_when_the_spectrum_is_mixed(rng):
    with pytest.raises(matsign.SpectrumError, match="line"):
        solve_continuous_lyapunov(splitting(rng, 6), np.eye(6), method="newton")
    with pytest.raises(matsign.SpectrumError, match="did not converge"):
        solve_continuous_lyapunov(splitting(rng, 6), np.eye(6), method="doubling")


def test_batches_broadcast_and_stay_as_they_were(on, rng):
    a, q = -np.stack([stable(rng, 3) for _ in range(4)])[:, None], gaussian(rng, 2, 3, 3)
    a_before, q_before = a.copy(), q.copy()
    x = on(solve_continuous_lyapunov, a, q)
    assert x.shape == (4, 2, 3, 3)
    np.testing.assert_array_equal(a, a_before)
    np.testing.assert_array_equal(q, q_before)
    for i in range(4):
        for j in range(2):
            assert np.linalg.norm(x[i, j] - direct.lyapunov_by_kronecker(a[i, 0], q[j])) < 1e-12


@pytest.mark.parametrize(("dtype", "distance"), [("float32", 1e-4), ("float64", 1e-7), ("float64", 1e-10)])
def test_stein_with_eigenvalues_near_both_ends_of_the_unit_circle(dtype, distance, eager, rng):
    """No real Cayley transform is well conditioned for both ends, and a certificate by the same transform would not show it."""
    for _ in range(10):
        u = np.linalg.qr(rng.standard_normal((3, 3)))[0]
        triangle = np.diag([1 - distance, -1 + 0.7 * distance, 0.3]) + np.triu(rng.standard_normal((3, 3)), 1)
        a, q = (u @ triangle @ u.T).astype(dtype), np.eye(3, dtype=dtype)
        x, certificate = eager(certify(solve_discrete_lyapunov), a, q)
        error = truth.error(x, truth.stein(a, q))
        assert x.dtype == dtype
        assert error < 300 * np.finfo(dtype).eps / distance
        assert error < 30 * certificate.forward_error
