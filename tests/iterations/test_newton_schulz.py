"""The steps of msign in their units with c = 1, and where the Gram form computes R again."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from matrices import gaussian
from matsign import backends
from matsign.iterations.minimax import NAMED, POLISH, PURIFY, headroom, polar_express, schedule_of_length
from matsign.iterations.newton_schulz import _monic, _segments, orthogonal

PLANS = {**NAMED, "counted": schedule_of_length(6, 0.2, 1e-7), "tight": polar_express(1e-3, 1e-14, 1e-16)}


@pytest.mark.parametrize("plan", [*PLANS.values(), (POLISH,), (PURIFY, POLISH)], ids=[*PLANS, "cubic", "negative"])
@example(x=1.0)
@given(x=st.floats(1e-3, 1.0))
def test_monic_steps_are_the_same_polynomials(plan, x):
    links = _monic(plan)
    y = links[0].t * x
    for link in links:
        y = y * (link.a + link.b * y**2 + link.c * y**4)
    # Coefficients of both signs cancel, and a steep step magnifies the rounding errors of the steps before it.
    expected, rounding = x, 0.0
    for step in plan:
        slope = abs(step.a + 3 * step.b * expected**2 + 5 * step.c * expected**4)
        terms = abs(step.a * expected) + abs(step.b * expected**3) + abs(step.c * expected**5)
        rounding = slope * rounding + 2**-52 * terms
        expected = step(expected)
    assert abs(y - expected) < 10 * rounding


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("tol", [0.1, 1e-3, 1e-6])
@pytest.mark.parametrize("eps", [1.2e-7, 2.2e-16])
def test_segments_are_all_steps_and_no_longer_than_noise_allows(plan, tol, eps):
    chain = _monic(plan)
    segments = list(_segments(chain, tol, eps))
    assert [link for segment in segments for link in segment] == list(chain)
    for segment in segments:
        if len(segment) > 2:
            grown = math.prod(link.slope for link in segment[:-1])
            assert eps * grown**2 <= 0.05 * tol
            assert eps * grown * segment[-1].slope <= 0.01 * tol


@pytest.mark.parametrize("name", ["muon", "you", "su"])
def test_five_rough_steps_need_no_restart(name):
    assert len(list(_segments(_monic(NAMED[name]), 0.1, 1.2e-7))) == 1


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
@pytest.mark.parametrize("shape", [(24, 24), (200, 24), (24, 1)])
@pytest.mark.parametrize("name", ["muon", "polar_express", "counted", "tight"])
def test_one_polynomial_in_either_form(name, shape, dtype, eager, rng):
    check_that_it_is_one_polynomial(name, shape, dtype, eager, rng)


@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [
        ("muon", (24, 24), "float32"),
        ("polar_express", (200, 24), "complex128"),
        ("polar_express", (24, 1), "float32"),
        ("counted", (200, 24), "float64"),
        ("tight", (24, 24), "complex128"),
    ],
)
def test_one_polynomial_in_jax(name, shape, dtype, in_jax, rng):
    """Every plan, shape and dtype, in both forms."""
    check_that_it_is_one_polynomial(name, shape, dtype, in_jax, rng)


def check_that_it_is_one_polynomial(name, shape, dtype, on, rng):
    """Against the singular values, each through the polynomials, for matrices over the bound of their norm."""
    m = gaussian(rng, *shape, dtype=dtype)
    backend, plan = backends.load(on.name), PLANS[name]
    x, steps = on.in_one_program(lambda m: orthogonal(backend, m, [(0.0, plan)], tol=0.1, bounded=False), m[None])
    assert np.asarray(steps).tolist() == [len(plan)]
    u, s, vh = np.linalg.svd(m.astype(np.result_type(dtype, "float64")), full_matrices=False)
    s = s / (np.linalg.norm(s) * (1 + 2 * headroom(np.finfo(dtype).eps, max(shape))))
    for step in plan:
        s = step(s)
    # σ = 1, the only one of a column, is the end of an interval, where polynomials are steep: rounding grows tenfold a step.
    single = 1e-2 if shape[1] == 1 else 2e-4
    np.testing.assert_allclose(np.asarray(x)[0], (u * s) @ vh, atol=single if dtype == "float32" else 1e-9)


def test_the_shortest_plan_that_a_member_allows(eager, rng):
    """Each member of a stack takes the plan for its own smallest singular value, with the same bits as by itself."""
    backend = backends.load(eager.name)
    u, v = (np.linalg.qr(gaussian(rng, 3, 30, 30))[0] for _ in range(2))
    least = np.array([0.5, 0.04, 1e-3])
    stack = (u * np.stack([np.geomspace(1, low, 30) for low in least])[:, None, :]) @ v
    plans = [(level, polar_express(level, 0.01, 1e-16)) for level in (0.2, 0.02, 1e-4)]
    x, steps = (np.asarray(y) for y in orthogonal(backend, eager.array(stack), plans, tol=0.01, bounded=True))
    assert steps.tolist() == [len(plan) for _, plan in plans]
    assert abs(np.linalg.svd(x, compute_uv=False) - 1).max() < 0.01
    for k in range(3):
        alone, _ = orthogonal(backend, eager.array(stack[k : k + 1]), plans, tol=0.01, bounded=True)
        np.testing.assert_array_equal(np.asarray(alone)[0], x[k])
