"""Block triangular forms by projectors, and equations with them, for spectra that lines divide or do not divide."""

import numpy as np
import pytest

from matrices import DTYPES, adjoint, block_diagonal, gaussian, graded, jordan, rotation, similar, unitary
from matsign.backends import load
from matsign.equations.sylvester import block_triangular, divide_and_conquer

NUMPY = load("numpy")

DIVISIBLE = {
    "Gaussian": lambda rng, dtype: gaussian(rng, 40, 40, dtype=dtype),
    "skew": lambda rng, dtype: (lambda x: x - adjoint(x))(gaussian(rng, 30, 30, dtype=dtype)),
    "unitary": lambda rng, dtype: unitary(rng, 30, dtype),
    "graded": lambda rng, dtype: similar(rng, np.diag(graded(30, 1e8)), 10, dtype),
    "lightly damped": lambda rng, dtype: similar(
        rng, block_diagonal(*[rotation(-1e-3 * k, k) for k in range(1, 16)]), 10, dtype
    ),
    "multiple": lambda rng, dtype: similar(rng, np.diag(np.repeat([1.0, 2, 3, 4], 8)), 10, dtype),
}


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("name", DIVISIBLE)
def test_form_is_a_unitary_similarity(name, dtype, rng):
    m = DIVISIBLE[name](rng, dtype)
    with np.errstate(all="ignore"):
        u, t, edges = divide_and_conquer.form(NUMPY, m[None], 8)
    u, t = u[0], t[0]
    assert edges[0] == 0
    assert edges[-1] == len(m)
    assert block_triangular.widest(edges) <= 8
    assert np.linalg.norm(adjoint(u) @ u - np.eye(len(m))) < 1e-13
    assert np.linalg.norm(u @ t @ adjoint(u) - m) < 1e-11 * np.linalg.norm(m)
    for k in edges[1:-1]:
        np.testing.assert_array_equal(t[k:, :k], 0)


def test_a_jordan_block_stays_whole(rng):
    with np.errstate(all="ignore"):
        *_, edges = divide_and_conquer.form(NUMPY, similar(rng, jordan(2, 30), 10)[None], 8)
    assert edges == (0, 30)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("rows", "columns"),
    [((0, 3), (0, 2)), ((0, 2, 3, 6), (0, 4)), ((0, 1), (0, 2, 3, 5, 6)), ((0, 3, 5, 8), (0, 1, 4, 8, 9))],
)
def test_wavefront(rows, columns, dtype, eager, rng):
    def triangular(edges, shift):
        m = gaussian(rng, edges[-1], edges[-1], dtype=dtype) / 4 + shift * np.eye(edges[-1])
        for k in edges[1:-1]:
            m[k:, :k] = 0
        return m.astype(dtype)

    r, s = triangular(rows, 3), triangular(columns, 2)
    f = gaussian(rng, rows[-1], columns[-1], dtype=dtype)
    backend = load(eager.name)
    arrays = [backend.asarray(eager.array(x[None])) for x in (r, s, f)]
    x = np.asarray(block_triangular.solve(backend, arrays[0], rows, arrays[1], columns, arrays[2]))[0]
    assert x.dtype == dtype
    assert np.linalg.norm(r @ x + x @ s - f) < 50 * np.finfo(dtype).eps * np.linalg.norm(f)
