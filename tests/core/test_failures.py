"""The error as an object: it can be pickled and copied with all attributes."""

import copy
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

import matsign
from conftest import as_numpy

BAD = np.stack([np.diag([1.0, -2.0]), [[0.0, 1.0], [-1.0, 0.0]], np.full((2, 2), np.nan), np.eye(2)])


def fails(f, m):
    with pytest.raises(matsign.SpectrumError) as caught:
        f(m)
    return caught.value


def same(one, other):
    assert type(one) is type(other) is matsign.SpectrumError
    assert str(one) == str(other)
    assert one.members == other.members
    assert one.failures == other.failures
    assert type(one.value) is type(other.value)
    for x, y in zip(leaves(one.value), leaves(other.value), strict=True):
        np.testing.assert_array_equal(x, y)


def leaves(value):
    value = as_numpy(value)
    return value if isinstance(value, tuple) else (value,)


def test_pickled_and_copied(on):
    for f in (matsign.mcsgn, matsign.sqrtm_pair, matsign.polar):
        error = fails(f, on.array(BAD))
        assert error.members[-1] == (2,)
        for other in (copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
            same(error, other)
            assert repr(other.failures) == repr(error.failures)
    error.add_note("the third of five")
    assert copy.copy(error).__notes__ == pickle.loads(pickle.dumps(error)).__notes__ == ["the third of five"]


def test_copied_with_values_that_require_a_gradient():
    torch = pytest.importorskip("torch")
    error = fails(matsign.mcsgn, torch.from_numpy(BAD).requires_grad_() * 2)
    for other in (copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        same(error, other)


@pytest.mark.slow
def test_out_of_another_process():
    """The pool works for the next call."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        for _ in range(2):
            with pytest.raises(
                matsign.SpectrumError, match=r"^mcsgn: batch members 1, 2|^mcsgn: batch member"
            ) as caught:
                pool.submit(matsign.mcsgn, BAD).result(timeout=120)
            same(caught.value, fails(matsign.mcsgn, BAD))
        np.testing.assert_array_equal(pool.submit(matsign.mcsgn, BAD[0]).result(timeout=120), np.diag([1.0, -1.0]))
