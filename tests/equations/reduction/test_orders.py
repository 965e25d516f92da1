"""The order of a reduced model by its error bound."""

import numpy as np
import pytest

from matrices import gaussian
from matsign import balanced_truncation, certify, condition, frechet, hankel_singular_values
from matsign.equations.reduction.orders import smallest_order

A, B, C = np.diag([-1.0, -2.0, -5.0, -9.0]), np.array([[1.0], [2.0], [-1.0], [1.0]]), np.array([[1.0, 1.0, 2.0, 1.0]])
EPS = 2.0**-52


def test_the_smallest_order_whose_bound_is_small_enough():
    values = hankel_singular_values(A, B, C)
    for order in range(1, 5):
        bound = 2 * values[order:].sum()
        small, _ = certify(balanced_truncation)(A, B, C, tol=bound * (1 + 1e-12))
        for x, y in zip(small, balanced_truncation(A, B, C, order), strict=True):
            np.testing.assert_array_equal(x, y)
        assert balanced_truncation(A, B, C, tol=bound * (1 - 1e-6)).a.shape == (min(order + 1, 4),) * 2
    assert balanced_truncation(A, B, C, tol=1e6).a.shape == (1, 1)
    assert condition(balanced_truncation)(A, B, C, tol=1e-2) > 0
    assert frechet(balanced_truncation)(A, B, C, A, B, C, tol=0).a.shape == (4, 4)


def test_equal_values_count_once():
    values = np.array([np.inf, 4.0, 1.0 + EPS, 1.0, 1.0, 0.25, 0.0])
    orders = {0.0: 6, 0.5: 5, 2.4: 5, 2.6: 2, 10.6: 1, 100.0: 1}
    assert {tol: smallest_order(values, tol, EPS) for tol in orders} == orders


def test_members_get_the_order_that_one_of_them_needs(on):
    stacks = np.stack([A, A]), np.stack([B, 1e-3 * B]), np.stack([C, C])
    tol = 1.5 * hankel_singular_values(A, B, C)[1]
    if on.jit:
        with pytest.raises(ValueError, match="tol needs the values of the arrays"):
            on(lambda *x: balanced_truncation(*x, tol=tol), *stacks)
    else:
        assert on(lambda *x: balanced_truncation(*x, tol=tol), *stacks).a.shape == (2, 2, 2)
        assert on(lambda *x: balanced_truncation(*x, tol=tol), *(x[1] for x in stacks)).a.shape == (1, 1)


def test_kept_poles_count(rng):
    a = np.diag([1.0, 0.0, -1.0, -2.0])
    assert balanced_truncation(a, gaussian(rng, 4, 1), gaussian(rng, 1, 4), tol=1e6).a.shape == (2, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give either order or tol"),
        ({"order": 2, "tol": 0.1}, "give either order or tol"),
        ({"tol": -1}, "tol must be a number at least 0"),
        ({"tol": np.nan}, "tol must be a number at least 0"),
        ({"tol": np.inf}, "tol must be a number at least 0"),
        ({"tol": True}, "tol must be a number at least 0"),
        ({"order": 2, "method": "residualise"}, "method must be one of truncate, matchdc"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        balanced_truncation(A, B, C, **options)


def test_chunked_arrays_need_an_order():
    dask = pytest.importorskip("dask.array")
    stacks = [dask.from_array(np.stack([x, x]), chunks=(1, *x.shape)) for x in (A, B, C)]
    with pytest.raises(ValueError, match="tol needs all values at once"):
        balanced_truncation(*stacks, tol=0.1)
