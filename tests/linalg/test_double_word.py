"""Products and sums in double-word arithmetic, against exact arithmetic."""

import numpy as np
import pytest

import truth
from matrices import DTYPES, gaussian
from matsign import backends
from matsign.linalg.double_word import dw_add, dw_adjoint, dw_neg, dw_product, from_double


def error(value, exact):
    """The largest entry of the error of a double-word result, in 80 digits."""
    missed = exact - truth.exact(np.asarray(value.high)[0]) - truth.exact(np.asarray(value.low)[0])
    return max(float(abs(x)) for x in missed.ravel())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 3, 30])
def test_products_keep_half_as_many_digits_again_and_more(n, dtype, on, rng):
    if on.name == "jax" and (n, dtype) not in ((30, "float32"), (3, "complex128")):
        pytest.skip("compiles anew for every shape")
    backend = backends.load(on.name)
    x, y = gaussian(rng, n, n, dtype=dtype), gaussian(rng, n, n, dtype=dtype)
    found = on.in_one_program(lambda *xy: dw_product(backend, *map(from_double, xy)), x[None], y[None])
    assert error(found, truth.exact(x) @ truth.exact(y)) < n * np.finfo(dtype).eps ** 1.4


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_a_residual_below_the_rounding_of_its_terms(dtype, rng):
    """(x y) z - x (y z) is zero; computed in double-word arithmetic it is far below eps."""
    backend = backends.load("numpy")
    x, y, z = (from_double(gaussian(rng, 1, 6, 6, dtype=dtype)) for _ in range(3))
    gap = dw_add(
        dw_product(backend, dw_product(backend, x, y), z), dw_neg(dw_product(backend, x, dw_product(backend, y, z)))
    )
    pair = np.abs(x.high).max() * np.abs(y.high).max()
    assert np.abs(gap.high).max() < 1e-28 * pair * np.abs(z.high).max()
    flipped = dw_add(dw_adjoint(dw_product(backend, x, y)), dw_neg(dw_product(backend, dw_adjoint(y), dw_adjoint(x))))
    assert np.abs(flipped.high).max() < 1e-28 * pair


def test_sums_keep_what_they_round_off():
    total = dw_add(
        dw_add(from_double(np.ones((1, 1, 1))), from_double(np.full((1, 1, 1), 1e-20))),
        from_double(-np.ones((1, 1, 1))),
    )
    assert total.high.item() + total.low.item() == 1e-20
