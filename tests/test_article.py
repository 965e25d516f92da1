"""The identities of the article "What can the matrix sign function mcsgn compute?" (Su Jianlin, 2025), one test each.

Every matrix sign here is of the assembled matrix, so this also checks the structured solvers against the plain function.
"""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from matrices import adjoint, definite, gaussian, graded, similar, splitting, stable, unitary, with_singular_values
from matsign import coupled_root, mcsgn, msign, solve_riccati, solve_sylvester, sqrtm_pair

seeds = st.integers(0, 2**32 - 1).map(np.random.default_rng)
sizes = st.integers(1, 6)
dtypes = st.sampled_from(["float64", "complex128"])


def close(x, y, tol=1e-11):
    """Relative to the larger of y and 1: signs have norm at least 1 unless they are zero."""
    assert np.shape(x) == np.shape(y)
    assert np.linalg.norm(x - y) <= tol * max(np.linalg.norm(y), 1)


def zeros(n, m=None):
    return np.zeros((n, m or n))


def graph_basis(x):
    """[[X, -I], [I, 0]], and its inverse by the article's formula."""
    n, m = x.shape
    return (
        np.block([[x, -np.eye(n)], [np.eye(m), zeros(m, n)]]),
        np.block([[zeros(m, n), np.eye(m)], [-np.eye(n), x]]),
    )


def any_riccati(rng, n, m, dtype):
    """a, b, c, d and the x that splits the spectrum."""
    a, b = -stable(rng, n, dtype), stable(rng, m, dtype)
    c, d = 0.2 * gaussian(rng, n, m, dtype=dtype), 0.2 * gaussian(rng, m, n, dtype=dtype)
    values = np.linalg.eigvals(np.block([[a, c], [d, b]])).real
    assume(np.abs(values).min() > 0.05 and (values > 0).sum() == m)
    x = solve_riccati(a, b, c, d)
    assume(np.linalg.norm(x) < 100)
    return a, b, c, d, x


@given(seeds, sizes, sizes, dtypes)
def test_msign_both_forms(rng, n, m, dtype):
    """(M Mᴴ)^{-1/2} M = M (MᴴM)^{-1/2}, with the pseudo-inverse on the larger side."""
    a = with_singular_values(rng, n, m, 0.5 + rng.random(min(n, m)), dtype)
    values, v = np.linalg.eigh(adjoint(a) @ a)
    right = (v * np.where(values > 1e-8, np.abs(values) + (values <= 1e-8), np.inf) ** -0.5) @ adjoint(v)
    values, u = np.linalg.eigh(a @ adjoint(a))
    left = (u * np.where(values > 1e-8, np.abs(values) + (values <= 1e-8), np.inf) ** -0.5) @ adjoint(u)
    close(msign(a), a @ right)
    close(msign(a), left @ a)


@given(seeds, sizes, dtypes)
def test_mcsgn_both_forms(rng, n, dtype):
    """(M²)^{-1/2} M = M (M²)^{-1/2}, the root by eigenvectors of M²."""
    m = splitting(rng, n, dtype)
    values, v = np.linalg.eig(m @ m)
    root = (v * values.astype(complex) ** -0.5) @ np.linalg.inv(v)
    close(mcsgn(m), m @ root)
    close(mcsgn(m), root @ m)


@given(seeds, sizes, dtypes, st.booleans())
def test_both_signs_are_equal_on_symmetric_matrices(rng, n, dtype, singular):
    values = np.where(rng.random(n) < 0.5, -1, 1) * (0.1 + rng.random(n))
    values[0] = 0 if singular else values[0]
    u = unitary(rng, n, dtype)
    h = (u * values) @ adjoint(u)
    h = (h + adjoint(h)) / 2
    expected = (u * np.sign(values)) @ adjoint(u)
    for method in ("newton", "schur", "eigh", "auto"):
        close(mcsgn(h, method=method), expected)
    for method in ("polynomial", "newton", "svd", "gram", "auto"):
        close(msign(h, method=method), expected)


@given(seeds, sizes, sizes, dtypes)
def test_orthogonal_invariance_of_msign(rng, n, m, dtype):
    """msign(U M V) = U msign(M) V."""
    a = with_singular_values(rng, n, m, 0.1 + rng.random(min(n, m)), dtype)
    u, v = unitary(rng, n, dtype), unitary(rng, m, dtype)
    close(msign(u @ a @ v), u @ msign(a) @ v)


@given(seeds, sizes, dtypes)
def test_similarity_invariance_of_mcsgn(rng, n, dtype):
    """mcsgn(P M P⁻¹) = P mcsgn(M) P⁻¹."""
    m = splitting(rng, n, dtype)
    p = with_singular_values(rng, n, n, graded(n, 10), dtype)
    close(mcsgn(p @ m @ np.linalg.inv(p)), p @ mcsgn(m) @ np.linalg.inv(p))


@given(seeds, sizes, dtypes)
def test_mcsgn_is_odd_an_involution_and_commutes(rng, n, dtype):
    m = splitting(rng, n, dtype)
    s = mcsgn(m)
    close(mcsgn(-m), -s)
    close(s @ s, np.eye(n))
    close(s @ m, m @ s)
    close(mcsgn(adjoint(m)), adjoint(s))
    close(mcsgn(np.linalg.inv(m)), s)


@given(seeds, sizes, dtypes)
def test_polynomial_iteration_for_a_real_spectrum(rng, n, dtype):
    """X₀ = M/√tr(M²) and odd polynomials, for eigenvalues that are real."""
    values = np.where(rng.random(n) < 0.5, -1, 1) * (0.5 + rng.random(n))
    core = np.diag(values)
    m = similar(rng, core, 3, dtype)
    v, signs = np.linalg.eig(m)[1], np.sign(np.linalg.eig(m)[0].real)
    close(mcsgn(m, method="polynomial"), (v * signs) @ np.linalg.inv(v))


@given(seeds, sizes, sizes, dtypes)
def test_graph_basis_and_its_inverse(rng, n, m, dtype):
    v, inverse = graph_basis(gaussian(rng, n, m, dtype=dtype))
    close(v @ inverse, np.eye(n + m))


@given(seeds, sizes, sizes, dtypes)
def test_transform_of_the_block_matrix_by_any_x(rng, n, m, dtype):
    """V⁻¹ [[A, C], [D, B]] V = [[B + DX, -D], [XDX + XB - AX - C, A - XD]] for every X."""
    a, b, c, d, x = (gaussian(rng, *s, dtype=dtype) for s in ((n, n), (m, m), (n, m), (m, n), (n, m)))
    v, inverse = graph_basis(x)
    middle = np.block([[b + d @ x, -d], [x @ d @ x + x @ b - a @ x - c, a - x @ d]])
    close(inverse @ np.block([[a, c], [d, b]]) @ v, middle)


@given(seeds, sizes, sizes, dtypes)
def test_block_factorisation_at_a_solution(rng, n, m, dtype):
    """[[A, C], [D, B]] = V [[B + DX, -D], [0, A - XD]] V⁻¹ where X solves the Riccati equation."""
    a, b, c, d, x = any_riccati(rng, n, m, dtype)
    v, inverse = graph_basis(x)
    middle = np.block([[b + d @ x, -d], [zeros(n, m), a - x @ d]])
    close(v @ middle @ inverse, np.block([[a, c], [d, b]]))


@given(seeds, sizes, sizes, dtypes)
def test_sign_of_the_riccati_block_with_y(rng, n, m, dtype):
    """mcsgn([[A, C], [D, B]]) = V [[I, Y], [0, -I]] V⁻¹; Y from the triangular middle: (B + DX) Y - Y (A - XD) = -2D."""
    a, b, c, d, x = any_riccati(rng, n, m, dtype)
    y = solve_sylvester(b + d @ x, -(a - x @ d), -2 * d)
    v, inverse = graph_basis(x)
    middle = np.block([[np.eye(m), y], [zeros(n, m), -np.eye(n)]])
    close(mcsgn(np.block([[b + d @ x, -d], [zeros(n, m), a - x @ d]])), middle)
    close(mcsgn(np.block([[a, c], [d, b]])), v @ middle @ inverse)
    # The first block column of V spans where the sign is 1: this is how X is read off.
    close((mcsgn(np.block([[a, c], [d, b]])) - np.eye(n + m)) @ np.concatenate([x, np.eye(m)]), zeros(n + m, m))


@given(seeds, sizes, sizes, dtypes)
def test_sign_of_a_block_triangular_matrix_has_the_signs_of_its_blocks(rng, n, m, dtype):
    a, b, c = splitting(rng, n, dtype), splitting(rng, m, dtype), gaussian(rng, n, m, dtype=dtype)
    gap = np.abs(np.linalg.eigvals(a)[:, None] - np.linalg.eigvals(b))
    assume(gap.min() > 1e-3)
    s = mcsgn(np.block([[a, c], [zeros(m, n), b]]))
    close(s[:n, :n], mcsgn(a), 1e-9)
    close(s[n:, n:], mcsgn(b), 1e-9)
    close(s[n:, :n], zeros(m, n), 1e-9)


@given(seeds, sizes, sizes, dtypes)
def test_first_example_the_sylvester_equation(rng, n, m, dtype):
    """D = 0, A negative and B positive: the sign is [[-I, 2X], [0, I]] with X B - A X = C. Y = 0."""
    a, b, c = -stable(rng, n, dtype), stable(rng, m, dtype), gaussian(rng, n, m, dtype=dtype)
    x = solve_sylvester(-a, b, c)
    close(x @ b - a @ x, c)
    close(mcsgn(np.block([[a, c], [zeros(m, n), b]])), np.block([[-np.eye(n), 2 * x], [zeros(m, n), np.eye(m)]]))
    v, inverse = graph_basis(x)
    middle = np.block([[np.eye(m), zeros(m, n)], [zeros(n, m), -np.eye(n)]])
    close(v @ middle @ inverse, np.block([[-np.eye(n), 2 * x], [zeros(m, n), np.eye(m)]]))


@given(seeds, sizes, dtypes)
def test_second_example_the_square_root(rng, n, dtype):
    """A, B = 0, D = I: the sign of [[0, C], [I, 0]] is [[0, C^{1/2}], [C^{-1/2}, 0]], with Y = -C^{-1/2}."""
    c = definite(rng, n, dtype=dtype)
    root, inverse_root = sqrtm_pair(c)
    s = mcsgn(np.block([[zeros(n), c], [np.eye(n), zeros(n)]]))
    close(s, np.block([[zeros(n), root], [inverse_root, zeros(n)]]))
    y, x = -inverse_root, root
    close(s, np.block([[-x @ y - np.eye(n), 2 * x + x @ y @ x], [-y, y @ x + np.eye(n)]]))
    v, inverse = graph_basis(x)
    close(s, v @ np.block([[np.eye(n), y], [zeros(n), -np.eye(n)]]) @ inverse)


@given(seeds, sizes, dtypes)
def test_square_root_as_a_riccati_equation(rng, n, dtype):
    """x I x = C."""
    c = definite(rng, n, dtype=dtype)
    close(solve_riccati(zeros(n), zeros(n), c, np.eye(n)), sqrtm_pair(c)[0])


@given(seeds, sizes, dtypes)
def test_coupled_root(rng, n, dtype):
    """The sign of [[0, A], [B, 0]] is [[0, C], [C⁻¹, 0]] with C = A (BA)^{-1/2}, where BA has no negative eigenvalue."""
    skew = gaussian(rng, n, n, dtype=dtype)
    a, b = definite(rng, n, dtype=dtype), definite(rng, n, dtype=dtype) + 0.3 * (skew - adjoint(skew))
    c, inverse = coupled_root(a, b)
    close(mcsgn(np.block([[zeros(n), a], [b, zeros(n)]])), np.block([[zeros(n), c], [inverse, zeros(n)]]))
    values, v = np.linalg.eig(b @ a)
    close(c, a @ (v * values.astype(complex) ** -0.5) @ np.linalg.inv(v))
    close(c @ inverse, np.eye(n))


@given(seeds, sizes, dtypes)
def test_third_example_msign_of_a_square_matrix_with_y(rng, n, dtype):
    """A, B = 0, D = Cᴴ: X Cᴴ X = C has the solution msign(C), and Y = -msign(C)⁻¹."""
    c = with_singular_values(rng, n, n, 0.1 + rng.random(n), dtype)
    x = msign(c)
    close(x @ adjoint(c) @ x, c)
    close(solve_riccati(zeros(n), zeros(n), c, adjoint(c)), x)
    y = -np.linalg.inv(x)
    v, inverse = graph_basis(x)
    s = mcsgn(np.block([[zeros(n), c], [adjoint(c), zeros(n)]]))
    close(s, v @ np.block([[np.eye(n), y], [zeros(n), -np.eye(n)]]) @ inverse)
    close(s, np.block([[zeros(n), x], [adjoint(x), zeros(n)]]))


@pytest.mark.parametrize("method", ["newton", "schur", "eigh"])
@pytest.mark.parametrize("rank", ["full", "deficient", "zero"])
@given(seeds, sizes, sizes, dtypes)
def test_dilation_of_any_matrix(method, rank, rng, n, m, dtype):
    """mcsgn([[0, C], [Cᴴ, 0]]) = [[0, msign(C)], [msign(Cᴴ), 0]] for C of any shape and rank."""
    k = min(n, m)
    values = 0.1 + rng.random(k)
    values[{"full": k, "deficient": k // 2, "zero": 0}[rank] :] = 0
    c = with_singular_values(rng, n, m, values, dtype)
    s = mcsgn(np.block([[zeros(n), c], [adjoint(c), zeros(m)]]), method=method, rtol=1e-13)
    close(s, np.block([[zeros(n), msign(c, rtol=1e-13)], [msign(adjoint(c), rtol=1e-13), zeros(m)]]))
    u, signs, vh = np.linalg.svd(c)
    close(s[:n, n:], (u[:, :k] * (signs > 1e-12)) @ vh[:k])
