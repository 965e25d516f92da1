"""Each block structure against the dense matrix it stands for: one step, and all steps to the sign."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import direct
from matrices import adjoint, definite, gaussian, similar, stable
from matsign import backends
from matsign.iterations import block_structures, minimax, newton

backend = backends.load("numpy")


def _dense(rng, n, m, dtype):
    values = np.where(rng.random(n + m) < 0.5, -1, 1) * (0.5 + rng.random(n + m))
    return block_structures.Dense(similar(rng, np.diag(values), 5, dtype))


def _triangular(rng, n, m, dtype):
    return block_structures.Triangular(-stable(rng, n, dtype), gaussian(rng, n, m, dtype=dtype), stable(rng, m, dtype))


def _lyapunov(rng, n, m, dtype):
    return block_structures.Lyapunov(-stable(rng, n, dtype), gaussian(rng, n, n, dtype=dtype))


def _antidiagonal(rng, n, m, dtype):
    # b a has its spectrum in the right half plane: a is definite and b is definite plus skew.
    skew = gaussian(rng, n, n, dtype=dtype)
    return block_structures.AntiDiagonal(
        definite(rng, n, dtype=dtype), definite(rng, n, dtype=dtype) + 0.2 * (skew - adjoint(skew))
    )


def _dilation(rng, n, m, dtype):
    return block_structures.Dilation(gaussian(rng, n, n, dtype=dtype) + 2 * np.eye(n))


def _riccati(rng, n, m, dtype):
    small = 0.1 * gaussian(rng, n, m, dtype=dtype), 0.1 * gaussian(rng, m, n, dtype=dtype)
    return block_structures.Riccati(-stable(rng, n, dtype), *small, stable(rng, m, dtype))


@st.composite
def structures(draw):
    make = draw(st.sampled_from([_dense, _triangular, _lyapunov, _antidiagonal, _dilation, _riccati]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, m = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    x = make(rng, n, m, draw(st.sampled_from(["float64", "complex128"])))
    return type(x)(*(block[None] for block in x))


def dense(x):
    return x.dense(backend)[0]


def close(x, y, tol=1e-12):
    return np.linalg.norm(x - y) <= tol * np.linalg.norm(y)


@pytest.mark.parametrize("make", [_dense, _triangular, _lyapunov, _antidiagonal, _dilation, _riccati])
def test_the_dense_matrix_is_the_one_in_the_table(make, rng):
    x = make(rng, 3, 2, "complex128")
    zero = np.zeros((3, 3))
    expected = {
        block_structures.Dense: lambda m: m,
        block_structures.Triangular: lambda a, c, b: np.block([[a, c], [np.zeros((2, 3)), b]]),
        block_structures.Lyapunov: lambda a, q: np.block([[a, q], [zero, -adjoint(a)]]),
        block_structures.AntiDiagonal: lambda a, b: np.block([[zero, a], [b, zero]]),
        block_structures.Dilation: lambda c: np.block([[zero, c], [adjoint(c), zero]]),
        block_structures.Riccati: lambda a, c, d, b: np.block([[a, c], [d, b]]),
    }[type(x)](*x)
    np.testing.assert_array_equal(dense(type(x)(*(block[None] for block in x))), expected)


@given(structures(), st.floats(0.1, 10))
def test_newton_step_on_blocks_is_the_step_on_the_matrix(x, mu):
    m = dense(x)
    step = block_structures.newton_step(backend, x, x.inverse(backend), np.array([mu]))
    assert type(step) is type(x)
    assert close(dense(step), (mu * m + np.linalg.inv(m) / mu) / 2)


@given(structures(), st.lists(st.floats(-3, 3), min_size=3, max_size=3))
def test_odd_polynomial_on_blocks_is_the_polynomial_of_the_matrix(x, coefficients):
    m = dense(x)
    a, b, c = coefficients
    terms = [a * m, b * m @ m @ m, c * m @ m @ m @ m @ m]
    step = dense(block_structures.odd_step(backend, x, a, b, c))
    assert np.linalg.norm(step - sum(terms)) <= 1e-13 * sum(map(np.linalg.norm, terms))


@pytest.mark.parametrize(("n", "m"), [(5, 3), (3, 5)])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_odd_polynomial_of_a_rectangular_dilation(n, m, dtype, rng):
    c = gaussian(rng, 1, n, m, dtype=dtype)
    step = block_structures.odd_step(backend, block_structures.Dilation(c), 2.0, -1.5, 0.5)
    x = dense(block_structures.Dilation(c))
    assert close(dense(step), 2 * x - 1.5 * x @ x @ x + 0.5 * x @ x @ x @ x @ x)


@given(structures())
def test_newton_on_blocks_ends_at_the_sign_of_the_matrix(x):
    found = newton.newton(backend, x)
    assert type(found.value) is type(x)
    assert found.defect[0] < 1e-3
    assert close(dense(found.value), direct.sign_by_eigenvectors(dense(x)), 1e-10)


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.sampled_from(["float64", "complex128"]))
def test_polynomials_on_blocks_end_at_the_sign_of_the_matrix(seed, n, dtype):
    """The structures with a real spectrum: Hermitian dense, anti-diagonal with definite blocks, dilation."""
    rng = np.random.default_rng(seed)
    h = definite(rng, n, dtype=dtype) - 0.3 * np.eye(n)
    c = definite(rng, n, dtype=dtype) @ np.linalg.qr(gaussian(rng, n, n, dtype=dtype))[0]
    pair = block_structures.AntiDiagonal(definite(rng, n, dtype=dtype), definite(rng, n, dtype=dtype))
    schedule = minimax.polar_express(1e-3, 1e-4, 1e-16)
    for x in (block_structures.Dense(h), pair, block_structures.Dilation(c)):
        x = type(x)(*(block[None] for block in x))
        size = np.sqrt(np.abs(np.trace(dense(x) @ dense(x))))
        if np.abs(np.linalg.eigvals(dense(x)).real).min() < 2e-3 * size:
            continue
        found = newton.finish(
            backend, newton.run_schedule(backend, type(x)(*(b / size for b in x)), schedule), np.zeros(1)
        )
        assert close(dense(found.value), direct.sign_by_eigenvectors(dense(x)), 1e-10)


def test_blocks_never_assemble_the_doubled_matrix(monkeypatch, rng):
    """No structure but Riccati, which is a full matrix, is assembled to the doubled size."""
    monkeypatch.setattr(block_structures, "assemble", lambda *_: pytest.fail("assembled"))
    for make in (_triangular, _lyapunov, _antidiagonal, _dilation):
        x = make(rng, 3, 2, "float64")
        newton.newton(backend, type(x)(*(block[None] for block in x)))


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_lyapunov_is_the_triangular_structure_with_one_inverse(dtype, rng, monkeypatch):
    x = _lyapunov(rng, 4, 4, dtype)
    x = block_structures.Lyapunov(x.a[None], x.q[None])
    calls = []
    monkeypatch.setattr(backend, "inv", lambda a, inv=backend.inv: (calls.append(1), inv(a))[1])
    one = x.inverse(backend)
    assert len(calls) == 1
    two = block_structures.Triangular(x.a, x.q, -adjoint(x.a)).inverse(backend)
    assert close(dense(one), dense(two), 1e-14)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_stable_lyapunov_solves_and_tells_stability(dtype, rng):
    a, q = -stable(rng, 5, dtype)[None], gaussian(rng, 1, 5, 5, dtype=dtype)
    found, x = newton.lyapunov_by_sign(backend, a, q)
    assert close(a @ x + x @ adjoint(a), q, 1e-13)
    assert newton.has_converged(backend, found)[0]
    assert abs(np.trace(found.value.a[0]) + 5) < 1e-12
    mixed, _ = newton.lyapunov_by_sign(backend, a + 0.9 * np.eye(5), q)
    assert abs(np.trace(mixed.value.a[0]) + 5) > 1.9
