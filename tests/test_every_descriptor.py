"""Tests of every function with a descriptor e: accuracy by library and dtype, batches, scales, bad members, certificates."""

import numpy as np
import pytest

import truth
from descriptor_problems import PROBLEMS_WITH_E
from matrices import DTYPES
from matsign import SpectrumError, certify
from problems import TOLERANCE, as_tuple, worst

every_problem = pytest.mark.parametrize("problem", PROBLEMS_WITH_E, ids=lambda p: p.name)


@every_problem
def test_equals_references_in_every_dtype(problem, eager, rng):
    for dtype in DTYPES:
        arrays = problem.stacked(rng, 2, dtype)
        value = eager(problem.f, *arrays)
        wide = [x.astype(np.result_type(dtype, "float64")) for x in arrays]
        assert worst(value, problem.several(*wide)) < TOLERANCE[dtype]
    (x,) = as_tuple(eager(problem.f, *(x[0] for x in wide)))
    assert truth.error(x, problem.truth(*(x[0] for x in wide))) < 1e-13


@every_problem
def test_scales_broadcasting_and_lists(problem, rng):
    arrays = problem.make(rng, "float64")
    plain = problem.f(*arrays)
    for s in (2.0**300, 2.0**-300):  # every bit is scaled
        before, (after,) = problem.scales(s)
        np.testing.assert_array_equal(problem.f(*(k * x for k, x in zip(before, arrays, strict=True))), after * plain)
    a, *others, e = arrays
    value = problem.f(np.stack([a, a / 2])[:, None], *others, np.stack([e, 2 * e, e.copy()]))
    assert value.shape == (2, 3, *plain.shape)
    np.testing.assert_array_equal(value[0, 0], plain)
    np.testing.assert_array_equal(problem.f(a.tolist(), *others, e.tolist()), plain)


@every_problem
def test_bad_members_and_singular_descriptors(problem, eager, rng):
    arrays = problem.stacked(rng, 4)
    expected = problem.several(*arrays)[0]
    arrays[-1][1] = np.nan
    arrays[-1][2, 0] = 0
    value, certificate = eager(certify(problem.f), *arrays, errors="nan")
    assert np.isnan(value[1:3]).all()
    assert worst(value[[0, 3]], expected[[0, 3]]) < 1e-12
    assert certificate.converged.tolist() == [True, False, False, True]
    assert (certificate.backward_error[[0, 3]] < 1e-14).all()
    assert (certificate.forward_error[[0, 3]] < 1e-12).all()
    with pytest.raises(
        SpectrumError, match="e is singular to working precision, its reciprocal condition number being"
    ):
        eager(problem.f, *(x[2] for x in arrays))


@every_problem
def test_models_without_states_or_inputs(problem):
    a, *others, e = problem.make(np.random.default_rng(0), "float64")
    none = problem.f(*(x[:0, :0] if x.shape == (3, 3) else x[: len(x) % 3, : x.shape[1] % 3] for x in (a, *others, e)))
    assert none.size in (0, 1)
    if "b" in problem.f.spec.parameters.arrays:
        b, *rest = others
        rest = [x[:, :0] if x.shape == (2, 2) else x for x in rest]  # d
        assert not np.any(problem.f(a, b[:, :0], *rest, e))


@pytest.mark.compiles
def test_jax_compiles_all(rng):
    jax = pytest.importorskip("jax")
    arrays = [p.make(rng, "float64") for p in PROBLEMS_WITH_E]

    @jax.jit
    def every(arrays):
        return [p.f(*xs) for p, xs in zip(PROBLEMS_WITH_E, arrays, strict=True)]

    for p, xs, value in zip(PROBLEMS_WITH_E, arrays, every(arrays), strict=True):
        np.testing.assert_allclose(value, p.reference(*xs), atol=1e-12 * np.abs(value).max())
