"""solve_sylvester: spectra that a line separates, spectra that no line separates, and singular equations."""

import numpy as np
import pytest
import scipy.linalg as sl
from hypothesis import given
from hypothesis import strategies as st

import direct
import matsign
import truth
from accuracy import assert_accurate
from matrices import (
    adjoint,
    block_diagonal,
    exactly_similar,
    gaussian,
    graded,
    jordan,
    rotation,
    similar,
    stable,
    unitary,
)
from matsign import solve_sylvester
from matsign.backends import load
from matsign.equations.sylvester import divide_and_conquer

METHODS = ("newton", "schur", "divide", "eigenvectors", "auto")
PEERS = (direct.sylvester_by_kronecker, sl.solve_sylvester)


def residual(a, b, q, x):
    """Relative to the terms of the equation."""
    terms = (np.linalg.norm(a) + np.linalg.norm(b)) * np.linalg.norm(x) + np.linalg.norm(q)
    return np.linalg.norm(a @ x + x @ b - q) / terms


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 8),
    m=st.integers(1, 8),
    kind=st.sampled_from(["uniform", "graded", "graded towards the line"]),
    a_left=st.booleans(),
    line=st.floats(-10, 10),
    dtype=st.sampled_from(["float64", "complex128"]),
)
def test_newton_finds_any_vertical_line(seed, n, m, kind, a_left, line, dtype):
    """Any two spectra that a vertical line, anywhere, separates by a few percent of their width."""
    rng = np.random.default_rng(seed)

    def distances(k):
        if kind == "uniform":
            return 0.1 + 3 * rng.random(k)
        far = 10.0 ** rng.uniform(-1, 2, k)
        return far if kind == "graded" else 100.1 - np.minimum(far, 100)

    side = -1 if a_left else 1
    values_a, values_b = line + side * distances(n), line - side * distances(m)
    u, v = unitary(rng, n, dtype), unitary(rng, m, dtype)
    a = u @ (np.diag(values_a) + 0.1 * np.triu(gaussian(rng, n, n, dtype=dtype), 1)) @ adjoint(u)
    b = -(v @ (np.diag(values_b) + 0.1 * np.triu(gaussian(rng, m, m, dtype=dtype), 1)) @ adjoint(v))
    q = gaussian(rng, n, m, dtype=dtype)
    x = solve_sylvester(a, b, q, method="newton")
    assert residual(a, b, q, x) < 1e-12
    np.testing.assert_allclose(x, sl.solve_sylvester(a, b, q), atol=1e-9 * np.abs(x).max())


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 8),
    m=st.integers(1, 8),
    dtype=st.sampled_from(["float64", "complex128"]),
)
def test_auto_solves_where_no_line_separates(seed, n, m, dtype):
    """Two random spectra overlap in all directions; only the separation of the operator matters."""
    rng = np.random.default_rng(seed)
    a, b, q = gaussian(rng, n, n, dtype=dtype), gaussian(rng, m, m, dtype=dtype), gaussian(rng, n, m, dtype=dtype)
    operator = np.kron(a, np.eye(m)) + np.kron(np.eye(n), b.T)
    condition = np.linalg.cond(operator)
    if condition > 1e8:
        return
    x = solve_sylvester(a, b, q)
    np.testing.assert_allclose(x, direct.sylvester_by_kronecker(a, b, q), atol=1e-14 * condition * np.abs(x).max())


def interlaced(rng, n, m, dtype="float64"):
    """Eigenvalues of a and -b that alternate on the real axis."""
    values = np.arange(1.0, n + m + 1)
    return similar(rng, np.diag(values[::2][:n]), 3, dtype), -similar(rng, np.diag(values[1::2][:m]), 3, dtype)


@pytest.mark.parametrize(("n", "m"), [(3, 3), (4, 3)])
def test_newton_says_that_there_is_no_line(n, m, eager, rng):
    a, b = interlaced(rng, n, m)
    with pytest.raises(
        matsign.SpectrumError, match="a vertical line between the spectra of a and -b, and none was found"
    ):
        eager(solve_sylvester, a, b, gaussian(rng, n, m), method="newton")


def test_interlaced_spectra_with_auto(everywhere, rng):
    a, b = (np.stack(x) for x in zip(*(interlaced(rng, 4, 3) for _ in range(2)), strict=True))
    q = gaussian(rng, 2, 4, 3)
    x = everywhere(solve_sylvester, a, b, q)
    for k in range(2):
        np.testing.assert_allclose(x[k], sl.solve_sylvester(a[k], b[k], q[k]), rtol=1e-10)


def test_a_batch_with_and_without_a_line(eager, rng):
    pairs = [interlaced(rng, 3, 2), (stable(rng, 3), stable(rng, 2)), (-stable(rng, 3), -stable(rng, 2))]
    a, b, q = (np.stack([p[0] for p in pairs]), np.stack([p[1] for p in pairs]), gaussian(rng, 3, 3, 2))
    # 40 copies, so that "auto" does not go to Schur vectors at once.
    a, b, q = (np.tile(x, (40, 1, 1)) for x in (a, b, q))
    x = eager(solve_sylvester, a, b, q)
    for k in range(3):
        np.testing.assert_allclose(x[k], sl.solve_sylvester(a[k], b[k], q[k]), rtol=1e-9)
        np.testing.assert_allclose(x[k::3], np.broadcast_to(x[k], (40, 3, 2)), rtol=1e-12)
    with pytest.raises(matsign.SpectrumError) as error:
        eager(solve_sylvester, a[:6], b[:6], q[:6], method="newton")
    assert error.value.members == [(0,), (3,)]


HARD = {
    "positive": lambda rng: (stable(rng, 4), stable(rng, 3)),
    "negative": lambda rng: (-stable(rng, 4), -stable(rng, 3)),
    "wide apart": lambda rng: (1e4 * stable(rng, 4), 1e-4 * stable(rng, 3)),
    "nonnormal": lambda rng: (stable(rng, 4, condition=1e3), stable(rng, 3, condition=1e3)),
    "graded": lambda rng: (similar(rng, np.diag(graded(4, 1e4)), 10), similar(rng, np.diag(graded(3, 1e4)), 10)),
    "Jordan": lambda rng: (similar(rng, jordan(1, 4), 10), similar(rng, jordan(0.5, 3), 10)),
    "lightly damped": lambda rng: (
        similar(rng, block_diagonal(rotation(1e-3, 1), rotation(1e-3, 3)), 10),
        similar(rng, block_diagonal(rotation(1e-3, 2), [[0.1]]), 10),
    ),
    "nearly singular": lambda rng: (similar(rng, np.diag([1, 2.0, 3]), 3), similar(rng, np.diag([-1 + 1e-7, 4.0]), 3)),
    "shifted far": lambda rng: (1e6 * np.eye(3) + stable(rng, 3), -1e6 * np.eye(3) + stable(rng, 3)),
    "1 x 1": lambda rng: (np.array([[2.0]]), np.array([[3.0]])),
    "a row": lambda rng: (np.array([[2.0]]), stable(rng, 6)),
    "a column": lambda rng: (stable(rng, 6), np.array([[2.0]])),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", HARD)
def test_accuracy(name, method, rng):
    def make():
        a, b = HARD[name](rng)
        return a, b, gaussian(rng, len(a), len(b))

    a, b, _ = make()
    condition = np.linalg.cond(np.kron(a, np.eye(len(b))) + np.kron(np.eye(len(a)), b.T))
    assert_accurate(lambda *x: solve_sylvester(*x, method=method), truth.sylvester, PEERS, make, condition)


@pytest.mark.parametrize("method", METHODS)
def test_accuracy_in_single_precision(method, eager, rng):
    def make():
        return tuple(x.astype("float32") for x in (stable(rng, 4), stable(rng, 3), gaussian(rng, 4, 3)))

    assert_accurate(lambda *x: eager(solve_sylvester, *x, method=method), truth.sylvester, PEERS, make, 100)


@pytest.mark.parametrize(("n", "m"), [(60, 60), (100, 20), (20, 100)])
@pytest.mark.parametrize("method", METHODS)
def test_larger(n, m, method, rng):
    a, b, q = stable(rng, n), stable(rng, m), gaussian(rng, n, m)
    x = solve_sylvester(a, b, q, method=method)
    assert residual(a, b, q, x) < 1e-15
    np.testing.assert_allclose(x, sl.solve_sylvester(a, b, q), atol=1e-11 * np.abs(x).max())


def _shared(rng, similarity):
    """Matrices a and b for which a and -b share the eigenvalue 2, or the pair ±i."""
    for core_a, core_b in (
        (np.diag([2.0, 3, 5]), np.diag([-2.0, 4])),
        (block_diagonal(rotation(0, 1), [[1.0]]), rotation(0, 1)),
        (block_diagonal(jordan(2, 2), [[1.0]]), np.diag([-2.0, 7])),
        (np.zeros((3, 3)), np.zeros((2, 2))),
    ):
        if similarity == "none":
            yield core_a, core_b
        elif similarity == "integer":
            yield exactly_similar(rng, core_a)[0], exactly_similar(rng, core_b)[0]
        else:
            yield similar(rng, core_a, 10), similar(rng, core_b, 10)


@pytest.mark.parametrize("similarity", ["none", "integer", "random"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("right", ["random", "zero", "in the range"])
def test_singular_equation_is_an_error(right, method, similarity, eager, rng):
    """For every q: with q = 0 or q in the range there are infinitely many solutions, otherwise none."""
    for a, b in _shared(rng, similarity):
        q = gaussian(rng, 3, 2)
        q = {"random": q, "zero": 0 * q, "in the range": a @ q + q @ b}[right]
        with pytest.raises(matsign.SpectrumError, match=r"share an eigenvalue|no vertical line"):
            eager(solve_sylvester, a, b, q, method=method)
        assert np.isnan(eager(solve_sylvester, a, b, q, method=method, errors="nan")).all()


@pytest.mark.parametrize("method", METHODS)
def test_every_draw_of_a_singular_equation_is_one(method, eager, rng):
    """A hundred random similarities, with q in the range, so that x does not reveal the singularity."""
    pairs = [pair for _ in range(25) for pair in list(_shared(rng, "random"))[:3]]
    a, b = (np.stack(x) for x in zip(*pairs, strict=True))
    x = gaussian(rng, len(a), 3, 2)
    with pytest.raises(matsign.SpectrumError) as error:
        eager(solve_sylvester, a, b, a @ x + x @ b, method=method)
    assert len(error.value.members) == len(a)
    assert set(error.value.failures) == {6}  # a common eigenvalue, and no other reason


@pytest.mark.parametrize("method", METHODS)
def test_integer_matrices_against_rational_solutions(method, rng):
    """An equation is solved as accurately as its condition allows, or refused; never wrong without an error."""
    for _ in range(20):
        n, m = rng.integers(1, 5, 2)
        a, b, q = (rng.integers(-5, 6, shape).astype(float) for shape in ((n, n), (m, m), (n, m)))
        operator = np.kron(a, np.eye(m)) + np.kron(np.eye(n), b.T)
        x, certificate = matsign.certify(solve_sylvester)(a, b, q, method=method, errors="nan")
        if not certificate.converged:
            assert method == "newton" or np.linalg.cond(operator) > 1e13
            continue
        error = truth.error(x, truth.sylvester(a, b, q)) if q.any() else np.linalg.norm(x)
        assert error < 1e-14 * np.linalg.cond(operator)
        assert error < 30 * max(certificate.forward_error, 1e-16)


@pytest.mark.parametrize("method", METHODS)
def test_units_that_suit_b_but_not_q(method, rng):
    """Entries of x that are small in the units that balance b are large in the caller's units."""
    a, b, q = stable(rng, 3), stable(rng, 3), gaussian(rng, 3, 3)
    units = 2.0 ** np.array([20, 0, -20])
    b = units[:, None] * b / units
    x, certificate = matsign.certify(solve_sylvester)(a, b, q, method=method)
    error = truth.error(x, truth.sylvester(a, b, q))
    assert error < 1e-13
    assert error < 30 * certificate.forward_error


@pytest.mark.parametrize("right", ["random", "zero"])
def test_singular_member_in_a_large_batch(right, everywhere, rng):
    """Large enough that "auto" does not begin with Schur vectors."""
    a, b = stable(rng, 3), stable(rng, 2)
    a, b, q = np.tile(a, (60, 1, 1)), np.tile(b, (60, 1, 1)), gaussian(rng, 60, 3, 2)
    a[7], b[7] = next(_shared(rng, "random"))
    q[7] = 0 if right == "zero" else q[7]
    x = everywhere(solve_sylvester, a, b, q, errors="nan")
    assert np.flatnonzero(np.isnan(x).any((1, 2))).tolist() == [7]
    np.testing.assert_allclose(x[3], sl.solve_sylvester(a[3], b[3], q[3]), rtol=1e-10)


@pytest.mark.parametrize("method", METHODS)
def test_q_zero_gives_zero(method, everywhere, rng):
    a, b = stable(rng, 3), stable(rng, 2)
    np.testing.assert_array_equal(everywhere(solve_sylvester, a, b, np.zeros((3, 2)), method=method), 0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("complex_ones", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)])
def test_mixed_real_and_complex(complex_ones, method, eager, rng):
    """scipy #26177: with real and complex inputs mixed, the answer is that of the promoted inputs."""
    shapes = [(3, 3), (2, 2), (3, 2)]
    arguments = [stable(rng, 3), stable(rng, 2), gaussian(rng, 3, 2)]
    for k in complex_ones:
        arguments[k] = arguments[k] + 0.3j * rng.standard_normal(shapes[k])
    a, b, q = arguments
    x = eager(solve_sylvester, a, b, q, method=method)
    assert x.dtype == "complex128"
    np.testing.assert_allclose(x, direct.sylvester_by_kronecker(*(v.astype(complex) for v in arguments)), rtol=1e-11)


def test_mixed_precisions(on, rng):
    a, b, q = stable(rng, 3).astype("float32"), stable(rng, 2), gaussian(rng, 3, 2, dtype="complex64")
    x = on(solve_sylvester, a, b, q)
    assert x.dtype == "complex128"
    np.testing.assert_allclose(x, direct.sylvester_by_kronecker(a, b, q.astype(complex)), rtol=1e-11)


def test_transposed_and_conjugated_like_scipy(rng):
    """a x + x b = q, and not a x - x b or with bᴴ."""
    a, b, q = (gaussian(rng, *s, dtype="complex128") for s in ((3, 3), (2, 2), (3, 2)))
    a, b = a + 5 * np.eye(3), b + 5j * np.eye(2)
    np.testing.assert_allclose(solve_sylvester(a, b, q), sl.solve_sylvester(a, b, q), rtol=1e-11)


@pytest.mark.parametrize("scale", [1e150, 1e-150, 2.0**-1040])
@pytest.mark.parametrize("method", METHODS)
def test_scale_of_q(scale, method, rng):
    a, b, q = stable(rng, 3), stable(rng, 2), gaussian(rng, 3, 2)
    x = solve_sylvester(a, b, scale * q, method=method)
    np.testing.assert_allclose(x / scale, solve_sylvester(a, b, q, method=method), rtol=1e-8)


@pytest.mark.parametrize("exponent", [-300, -155, 155, 300])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.filterwarnings("error")
def test_the_whole_range_of_numbers(method, exponent, eager, rng):
    a, b, q, s = stable(rng, 3), stable(rng, 2), gaussian(rng, 3, 2), 2.0 ** round(exponent * 3.32)
    x = eager(solve_sylvester, a, b, q, method=method)
    np.testing.assert_array_equal(eager(solve_sylvester, s * a, s * b, s * q, method=method), x)
    for arguments in ((s * a, s * b, s * q), (a, b, s * q), (s * a, s * b, q)):
        _, certificate = eager(matsign.certify(solve_sylvester), *arguments, method=method)
        assert 0 < certificate.forward_error < 1e-13
        assert certificate.backward_error < 1e-15
    if exponent < 0:
        with pytest.raises(matsign.SpectrumError, match="larger than the largest number"):
            eager(solve_sylvester, s * a, s * b, q / s, method=method)
    np.testing.assert_array_equal(
        eager(solve_sylvester, s * a, 0 * b, q, method=method) * s, eager(solve_sylvester, a, 0 * b, q, method=method)
    )


def test_scale_of_a_and_b_apart(rng):
    """a and b of very different size is a well-posed equation."""
    a, b, q = 1e100 * stable(rng, 3), 1e-100 * stable(rng, 2), gaussian(rng, 3, 2)
    np.testing.assert_allclose(solve_sylvester(a, b, q) * 1e100, np.linalg.solve(a / 1e100, q), rtol=1e-11)


def difficult(rng, n, m, dtype):
    """One member of every kind: on one side, mixed, interlaced, singular, NaN, nonnormal, far from zero."""
    zero = np.zeros((n, n)), np.zeros((m, m))
    shared = np.diag(np.arange(n) + 2.0), np.diag(np.r_[-2.0, np.arange(m - 1) + 1])
    return [
        (stable(rng, n, dtype), stable(rng, m, dtype)),
        (gaussian(rng, n, n, dtype=dtype), gaussian(rng, m, m, dtype=dtype)),
        (-stable(rng, n, dtype), -stable(rng, m, dtype)),
        (similar(rng, np.diag(np.arange(n) + 1.0), 3, dtype), -similar(rng, np.diag(np.arange(m) + 0.5), 3, dtype)),
        zero,
        (np.full((n, n), np.nan), stable(rng, m, dtype)),
        tuple(similar(rng, core, 3, dtype) for core in shared),
        (stable(rng, n, dtype, condition=1e6), stable(rng, m, dtype, condition=1e6)),
        (1e6 * np.eye(n) + stable(rng, n, dtype), -1e6 * np.eye(m) + stable(rng, m, dtype)),
    ]


SIZES = [*((k, k) for k in (*range(1, 13), 16, 17, 19, 20, 33, 70, 100)), (5, 3), (1, 20)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sizes", "dtype", "transposed"),
    [  # sizes from 9 on have one memory order per dtype, the next size the other one
        (sizes, dtype, transposed)
        for k, sizes in enumerate(SIZES)
        for i, dtype in enumerate(["float64", "complex64"])
        if sizes != ((70, 70) if dtype == "float64" else (100, 100))  # each of the largest has one dtype
        for transposed in ([False, True] if max(sizes) < 9 else [(k + i) % 2 == 1])
    ],
)
def test_every_bit_is_independent_of_the_other_members(sizes, dtype, transposed, rng):
    """Which method a member takes depends on the member alone, and so does every sum."""
    n, m = sizes
    a, b = (np.stack(x).astype(dtype) for x in zip(*difficult(rng, n, m, dtype), strict=True))
    q = gaussian(rng, len(a), n, m, dtype=dtype)
    if transposed:
        a, b, q = (np.ascontiguousarray(x.mT).mT for x in (a, b, q))
    for method in METHODS if n < 20 else ("auto", "newton"):
        x = solve_sylvester(a, b, q, method=method, errors="nan")
        for k in range(len(x)):
            alone = solve_sylvester(a[k], b[k], q[k], method=method, errors="nan")
            np.testing.assert_array_equal(x[k], alone)
        np.testing.assert_array_equal(solve_sylvester(a[::-2], b[::-2], q[::-2], method=method, errors="nan"), x[::-2])


ANY_SPECTRUM = {
    "Gaussian": lambda rng, dtype: (gaussian(rng, 30, 30, dtype=dtype), gaussian(rng, 20, 20, dtype=dtype)),
    "Jordan blocks": lambda rng, dtype: (
        similar(rng, jordan(2, 30), 10, dtype),
        similar(rng, jordan(0.5, 20), 10, dtype),
    ),
    "pure Jordan blocks": lambda rng, dtype: (jordan(2.0, 20).astype(dtype), jordan(0.5, 20).astype(dtype)),
    "several Jordan blocks": lambda rng, dtype: (
        similar(rng, block_diagonal(*[jordan(v, 5) for v in (2, -2, 4)]), 10, dtype),
        similar(rng, block_diagonal(*[jordan(v, 6) for v in (1, -1)]), 10, dtype),
    ),
    "nilpotent": lambda rng, dtype: tuple(
        (np.triu(gaussian(rng, 20, 20, dtype=dtype), 1) / 4 + s * np.eye(20)).astype(dtype) for s in (0, 2)
    ),
    "multiple": lambda rng, dtype: (
        similar(rng, np.diag(np.repeat([1.0, 2, 3], 8)), 10, dtype),
        similar(rng, np.diag(np.repeat([-1.5, -2.5], 8)), 10, dtype),
    ),
    "lightly damped": lambda rng, dtype: (
        similar(rng, block_diagonal(*[rotation(-1e-3 * k, k) for k in range(1, 12)]), 10, dtype),
        similar(rng, block_diagonal(*[rotation(1.5e-3 * k, k + 0.5) for k in range(1, 9)]), 10, dtype),
    ),
    "multiples of one": lambda rng, dtype: (np.eye(20, dtype=dtype), 2 * np.eye(15, dtype=dtype)),
    "tall": lambda rng, dtype: (gaussian(rng, 60, 60, dtype=dtype), gaussian(rng, 3, 3, dtype=dtype)),
    "wide": lambda rng, dtype: (gaussian(rng, 1, 1, dtype=dtype), gaussian(rng, 160, 160, dtype=dtype)),
}


@pytest.mark.parametrize("dtype", ["float64", "complex128", "float32"])
@pytest.mark.parametrize("method", ["divide", "eigenvectors", "schur"])
@pytest.mark.parametrize("name", ANY_SPECTRUM)
def test_any_spectrum(name, method, dtype, rng):
    """Errors at most as large as those of Schur vectors, because both methods refine x."""
    a, b = (x.astype(dtype) for x in ANY_SPECTRUM[name](rng, dtype))
    exact = gaussian(rng, len(a), len(b), dtype=dtype)
    q = a @ exact + exact @ b
    x = solve_sylvester(a, b, q, method=method)
    eps = np.finfo(dtype).eps
    assert x.dtype == dtype
    assert residual(a, b, q, x) < (8 if method == "schur" else 1) * eps
    schur = solve_sylvester(a, b, q, method="schur")
    assert np.linalg.norm(x - exact) <= 2 * np.linalg.norm(schur - exact) + 20 * eps * np.linalg.norm(exact)


@pytest.mark.parametrize("method", ["divide", "eigenvectors"])
def test_any_spectrum_on_every_library(method, on, rng):
    a, b = ANY_SPECTRUM["several Jordan blocks"](rng, "float64")
    q = gaussian(rng, len(a), len(b))
    assert residual(a, b, q, on(solve_sylvester, a, b, q, method=method)) < 1e-16


@pytest.mark.compiles
def test_no_line_under_a_trace(rng):
    """Refined eigenvectors in a batch with a separable and a singular member, also under ``vmap``."""
    jax = pytest.importorskip("jax")
    a, b = ANY_SPECTRUM["several Jordan blocks"](rng, "float64")
    n, m = len(a), len(b)
    a, b = np.stack([a, stable(rng, n), np.eye(n)]), np.stack([b, stable(rng, m), -np.eye(m)])
    q = gaussian(rng, 3, n, m)
    refined, plain = (jax.jit(lambda *x, m=m: solve_sylvester(*x, method=m)) for m in ("eigenvectors", "auto"))
    for f, bound in ((refined, 1e-16), (jax.vmap(refined), 1e-16), (plain, 1e-15), (jax.vmap(plain), 1e-15)):
        x = np.asarray(f(a, b, q))
        assert residual(a[0], b[0], q[0], x[0]) < bound
        assert residual(a[1], b[1], q[1], x[1]) < 1e-15
        assert np.isnan(x[2]).all()


@pytest.mark.compiles
def test_divide_under_a_trace(rng):
    """A program for a CPU calls NumPy, which chooses blocks by values; without values the error names other methods."""
    jax = pytest.importorskip("jax")
    a, b, q = gaussian(rng, 20, 20), gaussian(rng, 20, 20), gaussian(rng, 20, 20)
    x = jax.jit(lambda *x: solve_sylvester(*x, method="divide"))(a, b, q)
    np.testing.assert_array_equal(x, solve_sylvester(a, b, q, method="divide"))
    with pytest.raises(ValueError, match='use method="eigenvectors" or "auto"'):
        jax.jit(lambda *x: divide_and_conquer.sylvester(load("jax"), *x).x)(a[None], b[None], q[None])


@pytest.mark.parametrize("method", METHODS)
def test_long_jordan_chains_are_singular_with_eigenvalues_far_apart(method, rng):
    """q is in the range, so that x does not reveal the singularity."""
    a = similar(rng, block_diagonal(*[jordan(v, 20) for v in (2, -2, 4)]), 10)
    b = similar(rng, block_diagonal(*[jordan(v, 30) for v in (1, -1)]), 10)
    x = gaussian(rng, 60, 60)
    with pytest.raises(matsign.SpectrumError, match=r"share an eigenvalue|no vertical line"):
        solve_sylvester(a, b, a @ x + x @ b, method=method)


@pytest.mark.parametrize("method", METHODS)
def test_no_answer_to_a_singular_equation_on_two_sides_of_a_line(method, rng):
    """A line separates the spectra by ten times rounding; the nonnormal parts make the equation singular."""
    a, b = (0.02 * np.eye(12) + np.eye(12, k=1) for _ in range(2))
    x = gaussian(rng, 12, 12)
    with pytest.raises(matsign.SpectrumError, match=r"share an eigenvalue|no vertical line|did not converge"):
        solve_sylvester(a, b, a @ x + x @ b, method=method)


def exact_problem(rng, power, kind):
    """(a, b, x, q) with exact q: small integers, except an eigenvalue of b at the distance 2^-power from one of -a."""
    n, m = rng.integers(1, 6, 2)
    core_a, core_b = (np.diag(rng.integers(-4, 5, k).astype(float)) for k in (n, m))
    if kind != "diagonal":
        core_a, core_b = core_a + np.eye(n, k=1), core_b + np.eye(m, k=1)
    if kind == "Jordan":
        np.fill_diagonal(core_a, core_a[0, 0])
    if power:
        core_b[0, 0] = -core_a[0, 0] + 2.0**-power
    if power < 40:
        core_a, core_b = exactly_similar(rng, core_a)[0], exactly_similar(rng, core_b)[0]
    x = rng.integers(-3, 4, (n, m)).astype(float)
    x[0, 0] = 1
    return core_a, core_b, x, core_a @ x + x @ core_b


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["diagonal", "bidiagonal", "Jordan"])
def test_certificate_sees_every_large_error(kind, method, rng):
    """Separations from 1 to rounding: errors above 1e-8 are estimated as such; well-posed equations get small estimates."""
    seen = 0
    for power in (0, 7, 20, 27, 33, 40, 46):
        for _ in range(6):
            a, b, exact, q = exact_problem(rng, power, kind)
            values = np.linalg.svd(np.kron(a, np.eye(len(b))) + np.kron(np.eye(len(a)), b.T), compute_uv=False)
            x, certificate = matsign.certify(solve_sylvester)(a, b, q, method=method, errors="nan")
            if not certificate.converged:
                continue
            seen += 1
            error = np.linalg.norm(x - exact) / np.linalg.norm(x)
            assert error < 1e-8 or certificate.forward_error > 1e-8
            assert error < 1e-15 or certificate.forward_error > error / 20
            assert certificate.forward_error < 1e2 * np.finfo(float).eps * values[0] / values[-1]
            assert 0.9 < certificate.separation / values[-1] < 2
    assert seen > 2


def test_separation_scales_with_the_operator(on, rng):
    a, b, q = gaussian(rng, 4, 4), gaussian(rng, 3, 3), gaussian(rng, 4, 3)
    exact = np.linalg.svd(np.kron(a, np.eye(3)) + np.kron(np.eye(4), b.T), compute_uv=False)[-1]
    for s in (1, 1e100):
        _, certificate = on(matsign.certify(solve_sylvester), s * a, s * b, q)
        assert abs(certificate.separation / (s * exact) - 1) < 0.2


@pytest.mark.parametrize("dtype", ["float64", "complex64"])
def test_the_lyapunov_equation_as_a_sylvester_equation(dtype, on, rng):
    """b = aᴴ, alone and in a batch with other members."""
    a = np.stack([-stable(rng, 9, dtype), gaussian(rng, 9, 9, dtype=dtype), -stable(rng, 9, dtype)])
    q = gaussian(rng, 3, 9, 9, dtype=dtype)
    b = np.stack([a[0].conj().T, a[1].conj().T, -stable(rng, 9, dtype)])
    x = on(solve_sylvester, a, b, q)
    assert residual(a, b, q, x) < 20 * np.finfo(dtype).eps
    if on.name == "numpy":
        np.testing.assert_array_equal(x[0], solve_sylvester(a[0], b[0], q[0]))
