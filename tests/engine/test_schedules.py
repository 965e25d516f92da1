"""Coefficients: against published tables, and against what a schedule promises."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matsign.engine.schedules import DIVIDE, LIFTED, PURIFY, lifting, minimax_quintic, polar_express

# Grishina, Smirnov & Rakhuba 2025 (CANS), five steps, no cushion: the same generator.
CANS = [
    (8.4703, -25.1081, 18.6293),
    (4.1828, -3.1087, 0.5806),
    (3.9619, -2.9541, 0.5630),
    (3.2866, -2.4647, 0.5074),
    (2.2737, -1.6447, 0.4162),
]


def through(steps, x):
    for step in steps:
        x = step(x)
    return x


def test_published_coefficients():
    steps = polar_express(1e-3, 1e-6, 0.0, cushion=0.0)
    np.testing.assert_allclose(steps[:5], CANS, atol=6e-3)


@pytest.mark.parametrize(("lower", "upper"), [(1e-3, 1.0), (0.1, 1.0), (0.5, 1.5), (0.9, 1.1)])
def test_minimax_quintic_equioscillates(lower, upper):
    """Four extremes of equal size and alternating sign: no odd quintic is nearer to 1 on the interval (Chebyshev)."""
    step, error = minimax_quintic(lower, upper)
    x = np.linspace(lower, upper, 200_001)
    gap = 1 - step(x)
    assert abs(np.abs(gap).max() - error) < 1e-7 * error + 1e-15
    touching = np.sign(gap[np.abs(gap) > error * (1 - 1e-6)])
    assert np.count_nonzero(np.diff(touching)) == 3


@given(st.floats(1e-15, 0.9), st.sampled_from([0.3, 0.1, 1e-2, 1e-4, 1e-6, 1e-12, 2e-16]))
def test_every_value_ends_within_tol_of_one(lower, tol):
    steps = polar_express(lower, tol, 2.2e-16, 2.0)
    x = np.geomspace(lower, 2.0, 3001)
    assert np.abs(through(steps, x) - 1).max() <= max(tol, 1e-15)


@pytest.mark.parametrize(
    ("lower", "count"), [(1e-1, 4), (1e-2, 6), (1e-3, 8), (1e-6, 12), (1e-8, 15), (1e-12, 21), (1e-15, 26)]
)
def test_number_of_steps(lower, count):
    """The known counts have no cushion and no headroom; headroom and the last polishing step may cost two."""
    assert count <= len(polar_express(lower, 1e-15, 2.2e-16, cushion=0.0)) <= count + 2


@pytest.mark.parametrize(("rtol", "eps"), [(1e-3, 1.2e-7), (1e-6, 1.2e-7), (1e-3, 2.2e-16), (1e-12, 2.2e-16)])
def test_lifting_divides_at_rtol(rtol, eps):
    steps = lifting(rtol, eps, 2.0)
    up = through(steps, np.geomspace(1.01 * rtol, 2.0, 3001))
    down = through(steps, np.geomspace(1e-3 * rtol, 0.98 * rtol, 101))
    assert up.min() > DIVIDE > down.max() > 0
    assert up.max() <= LIFTED[1] + 1e-6


def test_purification_has_the_fixed_points_it_should():
    for x in (0.0, 1.0, DIVIDE):
        assert abs(PURIFY(x) - x) < 1e-15
    x = np.array([DIVIDE - 1e-3, DIVIDE + 1e-3])
    assert np.allclose(through([PURIFY] * 30, x), [0, 1])
