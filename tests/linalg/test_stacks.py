"""Linear algebra on stacks."""

import numpy as np
import pytest

from matrices import DTYPES, adjoint, gaussian
from matsign import backends
from matsign.linalg import stacks


@pytest.fixture
def backend(on):
    return backends.load(on.name)


@pytest.mark.parametrize("dtype", DTYPES)
def test_norms_traces_and_adjoints(on, backend, dtype, rng):
    x, y = gaussian(rng, 2, 3, 4, dtype=dtype), gaussian(rng, 2, 3, 4, dtype=dtype)
    a, b = on.array(x), on.array(y)
    eps = 20 * np.finfo(dtype).eps
    np.testing.assert_array_equal(np.asarray(stacks.adjoint(a) + 0), adjoint(x))  # + 0: torch conjugates lazily
    np.testing.assert_allclose(np.asarray(stacks.norm(backend, a)), np.linalg.norm(x, axis=(1, 2)), rtol=eps)
    np.testing.assert_allclose(
        np.asarray(stacks.inner(backend, a, b)), np.sum(x.conj() * y, (1, 2)).real, rtol=eps, atol=eps
    )
    assert np.asarray(stacks.largest(backend, a)).dtype == np.finfo(dtype).dtype
    largest = np.maximum(np.abs(x.real), np.abs(x.imag)).max((1, 2))
    np.testing.assert_array_equal(np.asarray(stacks.largest(backend, a)), largest)


@pytest.mark.parametrize("size", [1e-320, 1e-300, 1e-5, 1.0, 1e300])
def test_normalise_is_exact(on, backend, size, rng):
    if on.name == "jax" and size < 1e-307:
        pytest.skip("XLA takes denormal numbers for zero")
    x = np.round(gaussian(rng, 2, 3, 3) * 64) / 64 * size
    y, e = stacks.scale_to_unit(backend, on.array(x))
    assert np.all((np.abs(np.asarray(y)).max((1, 2)) < 1) & (np.abs(np.asarray(y)).max((1, 2)) >= 0.5))
    np.testing.assert_array_equal(np.ldexp(np.asarray(y), np.asarray(e)[:, None, None]), x)


def test_normalise_leaves_zero_alone(on, backend):
    y, e = stacks.scale_to_unit(backend, on.array(np.zeros((1, 2, 2))))
    assert not np.asarray(y).any()
    assert int(e[0]) == 0


def test_is_hermitian_to_the_last_bit(on, backend):
    x = np.array([[[1, 2 + 1j], [2 - 1j, 3]], [[1, 2 + 1j], [2 + 1j, 3]], [[1, 2], [2 + 4e-16, 3]]])
    assert np.asarray(stacks.is_hermitian(on.array(x))).tolist() == [True, False, False]
