"""Units of the rows and columns of pencils."""

import numpy as np
import pytest

from matrices import gaussian
from matsign import backends
from matsign.linalg.equilibration import equilibrating_exponents, rescale
from matsign.linalg.stacks import entry_exponents

backend = backends.load("numpy")


@pytest.mark.parametrize("dtype", ["float64", "complex64"])
def test_rows_and_columns_become_similar_and_even_members_stay(dtype, rng):
    a, c = gaussian(rng, 2, 3, 5, 5, dtype=dtype) / 8
    units = 2.0 ** rng.integers(-20, 1, (2, 5))
    for x in (a, c):
        x[1] *= (units[0][:, None] * units[1]).astype(x.real.dtype)
    a[2], c[2] = 0, 0
    rows, columns = equilibrating_exponents(backend, *(entry_exponents(backend, x) for x in (a, c)))
    assert not np.ptp(rows[[0, 2]], axis=-1).any()
    assert not columns[[0, 2]].any()
    new = np.maximum(*(np.abs(rescale(backend, x, rows, columns)[1]) for x in (a, c)))
    for axis in (0, 1):
        top = new.max(axis=axis)
        assert top.max() < 1.5
        assert top.min() > 0.2
    exact = rescale(backend, a, rows, columns)[1] * 2.0 ** (rows[1][:, None] + columns[1])
    np.testing.assert_array_equal(exact, a[1])
