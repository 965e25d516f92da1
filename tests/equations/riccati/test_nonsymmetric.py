"""solve_riccati: the solution that splits the spectrum, and the error messages where there is none."""

import numpy as np
import pytest
import scipy.linalg as sl
from hypothesis import given
from hypothesis import strategies as st

import direct
import matsign
import truth
from accuracy import assert_accurate
from matrices import adjoint, block_diagonal, definite, gaussian, rotation, similar, stable
from matsign import certify, solve_riccati, solve_sylvester

METHODS = ("newton", "schur", "auto")
PEERS = (direct.riccati_by_eigenvectors, direct.riccati_by_schur)


def from_solution(rng, n, m, dtype="float64", size=1.0):
    """a, b, c, d and their solution x, computed from x, d, a stable a - x d and a positive stable b + d x."""
    x, d = size * gaussian(rng, n, m, dtype=dtype), gaussian(rng, m, n, dtype=dtype)
    a = -stable(rng, n, dtype) + x @ d
    b = stable(rng, m, dtype) - d @ x
    return a, b, x @ d @ x + x @ b - a @ x, d, x


def check(a, b, c, d, x, tol=1e-14):
    terms = [x @ d @ x, x @ b, a @ x, c]
    assert np.linalg.norm(terms[0] + terms[1] - terms[2] - c) <= tol * sum(map(np.linalg.norm, terms))
    assert np.linalg.eigvals(b + d @ x).real.min() > 0
    assert np.linalg.eigvals(a - x @ d).real.max() < 0


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 6),
    m=st.integers(1, 6),
    dtype=st.sampled_from(["float64", "complex128"]),
    method=st.sampled_from(METHODS),
)
def test_the_solution_that_splits_the_spectrum(seed, n, m, dtype, method):
    rng = np.random.default_rng(seed)
    a, b, c, d, expected = from_solution(rng, n, m, dtype)
    x = solve_riccati(a, b, c, d, method=method)
    check(a, b, c, d, x)
    separation = np.linalg.cond(np.kron(expected @ d - a, np.eye(m)) + np.kron(np.eye(n), (b + d @ expected).T))
    assert np.linalg.norm(x - expected) <= 1e-13 * max(separation, 1) * np.linalg.norm(expected)


HARD = {
    "mild": lambda rng: from_solution(rng, 3, 2)[:4],
    "square": lambda rng: from_solution(rng, 3, 3)[:4],
    "large x": lambda rng: from_solution(rng, 3, 2, size=1e3)[:4],
    "small x": lambda rng: from_solution(rng, 3, 2, size=1e-6)[:4],
    "nearly on the axis": lambda rng: (-np.eye(2) * 1e-6, np.eye(2) * 1e-6, *_small(rng, 1e-8)),
    "zero diagonal": lambda rng: (np.zeros((3, 3)), np.zeros((3, 3)), definite(rng, 3), definite(rng, 3)),
    "1 x 1": lambda rng: (np.array([[-1.0]]), np.array([[2.0]]), np.array([[3.0]]), np.array([[0.5]])),
}


def _small(rng, size):
    return size * definite(rng, 2), size * definite(rng, 2)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", HARD)
def test_accuracy(name, method, rng):
    make = lambda: HARD[name](rng)  # noqa: E731
    a, b, c, d = make()
    x = direct.riccati_by_schur(a, b, c, d)
    condition = np.linalg.cond(np.kron(x @ d - a, np.eye(len(b))) + np.kron(np.eye(len(a)), (b + d @ x).T))
    f = lambda *arrays: solve_riccati(*arrays, method=method)  # noqa: E731
    assert_accurate(f, truth.riccati, PEERS, make, condition)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("n", "m"), [(2, 5), (5, 2), (1, 3), (30, 25)])
def test_shapes(n, m, method, eager, rng):
    a, b, c, d, expected = from_solution(rng, n, m, size=0.1)
    x = eager(solve_riccati, a, b, c, d, method=method)
    check(a, b, c, d, x)
    np.testing.assert_allclose(x, expected, atol=1e-10)


@pytest.mark.parametrize("method", METHODS)
def test_d_zero_is_sylvester(method, eager, rng):
    a, b, c = -stable(rng, 3), stable(rng, 2), gaussian(rng, 3, 2)
    x = eager(solve_riccati, a, b, c, np.zeros((2, 3)), method=method)
    np.testing.assert_allclose(x, solve_sylvester(-a, b, c), rtol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_c_zero_is_zero(method, eager, rng):
    a, b, d = -stable(rng, 3), stable(rng, 2), gaussian(rng, 2, 3)
    np.testing.assert_allclose(eager(solve_riccati, a, b, np.zeros((3, 2)), d, method=method), 0, atol=1e-14)


@pytest.mark.parametrize("method", METHODS)
def test_c_zero_with_another_stable_solution(method, rng):
    """x = 0 solves the equation but is not the stable solution."""
    a, b, c, d = np.array([[1.0]]), np.array([[-2.0]]), np.zeros((1, 1)), np.ones((1, 1))
    np.testing.assert_allclose(solve_riccati(a, b, c, d, method=method), [[3.0]], rtol=1e-14)


@pytest.mark.parametrize("method", METHODS)
def test_care_of_control(method, on, rng):
    """The continuous algebraic Riccati equation, as SciPy solves it: Aᵀ X + X A - X G X + Q = 0."""
    a, b = gaussian(rng, 4, 4), gaussian(rng, 4, 2)
    q, g = definite(rng, 4), b @ b.T
    expected = sl.solve_continuous_are(a, b, q, np.eye(2))
    # x d x + x b - a x - c = 0 with b + d x positive stable: b = -A, d = G, a = Aᵀ, c = Q.
    x = on(solve_riccati, a.T, -a, q, g, method=method)
    np.testing.assert_allclose(x, expected, rtol=1e-9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("left", "right", "count"),
    [(-1, -1, 0), (1, 1, 5), (1, -1, 3)],
    ids=["all left", "all right", "swapped"],
)
def test_wrong_counts_are_named(left, right, count, method, eager, rng):
    """n = 3 and m = 2: two eigenvalues belong in the right half plane."""
    a, b = left * stable(rng, 3), right * stable(rng, 2)
    c, d = 0.01 * gaussian(rng, 3, 2), 0.01 * gaussian(rng, 2, 3)
    with pytest.raises(matsign.SpectrumError, match=f"has {count} eigenvalues in the half plane"):
        eager(solve_riccati, a, b, c, d, method=method)


@pytest.mark.parametrize("method", METHODS)
def test_right_counts_but_no_graph(method, eager):
    """The invariant subspace of the right half plane is spanned by the first unit vector, which [X; I] cannot span."""
    a, b, zero = np.array([[1.0]]), np.array([[-1.0]]), np.zeros((1, 1))
    with pytest.raises(matsign.SpectrumError, match="not the graph"):
        eager(solve_riccati, a, b, zero, zero, method=method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("similarity", [False, True])
def test_eigenvalue_on_the_axis(similarity, method, eager, rng):
    m = block_diagonal(rotation(0, 1), [[-1.0]], [[1.0]])
    m = similar(rng, m, 3) if similarity else m[np.ix_([2, 0, 1, 3], [2, 0, 1, 3])]
    with pytest.raises(matsign.SpectrumError):
        eager(solve_riccati, m[:2, :2], m[2:, 2:], m[:2, 2:], m[2:, :2], method=method)


def test_failed_members_leave_the_others_right(everywhere, rng):
    stacks = [np.stack(x) for x in zip(*(from_solution(rng, 3, 2) for _ in range(3)), strict=True)]
    a, b, c, d, expected = stacks
    a[1] = np.eye(3)
    c[1] = d[1].T * 0
    x = everywhere(solve_riccati, a, b, c, d, errors="nan")
    assert np.isnan(x[1]).all()
    np.testing.assert_allclose(x[[0, 2]], expected[[0, 2]], atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("s", "t"), [(1e100, 1), (1e-100, 1), (1, 1e100), (1, 1e-100), (1e60, 1e-60)])
def test_scales(s, t, method, rng):
    """All four coefficients times s; and x times t, for c times t and d divided by t."""
    a, b, c, d, expected = from_solution(rng, 3, 2)
    x = solve_riccati(s * a, s * b, s * t * c, s / t * d, method=method)
    np.testing.assert_allclose(x / t, expected, atol=1e-10 * np.abs(expected).max())


@pytest.mark.parametrize("method", METHODS)
def test_single_precision(method, eager, rng):
    a, b, c, d, expected = from_solution(rng, 3, 2, size=0.5)
    x = eager(solve_riccati, *(v.astype("float32") for v in (a, b, c, d)), method=method)
    assert x.dtype == "float32"
    np.testing.assert_allclose(x, expected, atol=1e-3 * np.abs(expected).max())
    check(a, b, c, d, x.astype("float64"), 1e-6)


def test_hermitian_data_give_a_hermitian_solution(rng):
    a, q = gaussian(rng, 3, 3, dtype="complex128"), definite(rng, 3, dtype="complex128")
    x = solve_riccati(adjoint(a), -a, q, np.eye(3))
    np.testing.assert_allclose(x, adjoint(x), atol=1e-13)


@pytest.mark.parametrize("method", [*METHODS, "doubling"])
@pytest.mark.parametrize("n", [(1, 1), (2, 3), (5, 2), (12, 12)], ids=str)
def test_the_left_half_plane_belongs_to_the_equation_times_minus_one(method, n, eager, rng):
    n, m = n
    a, b = stable(rng, n), -stable(rng, m)
    c, d = 0.1 * gaussian(rng, n, m), 0.1 * gaussian(rng, m, n)
    x = eager(solve_riccati, a, b, c, d, half_plane="left", method=method)
    np.testing.assert_array_equal(x, eager(solve_riccati, -a, -b, -c, -d, method=method))
    assert np.linalg.norm(x @ d @ x + x @ b - a @ x - c) < 1e-13
    assert (np.linalg.eigvals(b + d @ x).real < 0).all()
    assert (np.linalg.eigvals(a - x @ d).real > 0).all()


def m_matrix(rng, n, m, surplus):
    """a, b, c, d of an M-matrix [[-b, -d], [c, a]] with random entries; singular where its rows have no surplus."""
    k = -rng.random((n + m, n + m))
    np.fill_diagonal(k, 0)
    np.fill_diagonal(k, (1 + surplus) * -k.sum(axis=1))
    return k[m:, m:], -k[:m, :m], k[m:, :m], -k[:m, m:]


def minimal_solution(a, b, c, d):
    """By a fixed-point iteration from zero, which increases monotonically (Guo & Laub 2000); slow but simple."""
    x, da, db = np.zeros_like(c), np.diag(a)[:, None], np.diag(b)
    for _ in range(200_000):
        # (da - db) x = x d x + x (b - db) + (da - a) x - c, all terms nonnegative
        new = (x @ d @ x + x @ (b - np.diag(db)) + (np.diag(da[:, 0]) - a) @ x - c) / (da - db)
        if np.abs(new - x).max() <= 1e-16 * np.abs(new).max():
            return new
        x = new
    return x


@pytest.mark.parametrize("method", ["auto", "doubling"])
@pytest.mark.parametrize("n", [(1, 1), (3, 3), (6, 2), (10, 15)], ids=str)
@pytest.mark.parametrize("surplus", [0.5, 1e-3])
def test_m_matrices_have_a_minimal_nonnegative_solution(method, n, surplus, eager, rng):
    arguments = m_matrix(rng, *n, surplus)
    x = eager(solve_riccati, *arguments, half_plane="left", method=method)
    assert (x >= 0).all()
    np.testing.assert_allclose(x, minimal_solution(*arguments), rtol=1e-10)


@pytest.mark.parametrize("n", [(3, 3), (6, 2), (20, 20)], ids=str)
def test_singular_m_matrices(n, eager, rng):
    """Zero is an eigenvalue: the sign does not exist, but the minimal solution does, and its certificate has `boundary` set."""
    arguments = m_matrix(rng, *n, 0.0)
    x, certificate = certify(solve_riccati)(*(eager.array(y) for y in arguments), half_plane="left")
    x = np.asarray(x)
    assert (x > 0).all()
    np.testing.assert_allclose(x, minimal_solution(*arguments), rtol=1e-6)
    assert certificate.boundary
    assert certificate.backward_error < 1e-14


def test_separation_is_that_of_the_closed_loop(rng):
    a, b = -stable(rng, 4), stable(rng, 3)
    c, d = 0.1 * gaussian(rng, 4, 3), 0.1 * gaussian(rng, 3, 4)
    x, certificate = certify(solve_riccati)(a, b, c, d)
    operator = np.kron(x @ d - a, np.eye(3)) + np.kron(np.eye(4), (b + d @ x).T)
    smallest = np.linalg.svd(operator, compute_uv=False)[-1]
    assert smallest <= certificate.separation * (1 + 1e-10)
    assert certificate.separation < 1.5 * smallest
    assert not certificate.boundary


def test_members_have_the_bits_that_they_have_alone(rng):
    for n, m in ((1, 1), (3, 2), (16, 5), (30, 30)):
        members = []
        for _ in range(5):
            a, b = -stable(rng, n), stable(rng, m)
            members.append([a, b, 0.1 * gaussian(rng, n, m) / n, 0.1 * gaussian(rng, m, n) / m])
        members[1][0] = -members[1][0]  # no solution
        members[2][3] = np.nan * members[2][3]
        members[3] = [-x for x in m_matrix(rng, n, m, 0.1)]
        stack = [np.stack(x) for x in zip(*members, strict=True)]
        x = solve_riccati(*stack, errors="nan")
        for k, member in enumerate(members):
            np.testing.assert_array_equal(x[k], solve_riccati(*member, errors="nan"))
