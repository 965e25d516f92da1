"""Coefficients: against published tables, and against the promises of a schedule."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matsign.iterations import minimax
from matsign.iterations.minimax import (
    DIVIDE,
    LIFTED,
    MOST_HEADROOM,
    PURIFY,
    headroom,
    lifting,
    longest,
    minimax_quintic,
    polar_express,
    schedule_of_length,
)

# Grishina, Smirnov & Rakhuba 2025 (CANS), five steps, no cushion: designed in the same way.
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
    step, error = minimax_quintic(lower / upper)
    x = np.linspace(lower, upper, 200_001)
    gap = 1 - step(x / upper)
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
    """Published counts are without cushion and headroom; headroom and the last polishing step may cost two."""
    assert count <= len(polar_express(lower, 1e-15, 2.2e-16, cushion=0.0)) <= count + 2


EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-14, "bfloat16": 2.0**-11}


@given(
    st.floats(-300, -1e-3),
    st.floats(-16, -0.4),
    st.sampled_from([0.0, *EPS.values()]),
    st.integers(0, 30),
    st.sampled_from([0.0, 0.02, 0.1, 0.3, 0.6]),
)
def test_no_design_is_longer_than_its_bound(lower, tol, eps, terms, cushion):
    """Sums of up to 10⁹ terms, in any dtype: a schedule within the bound, or a ValueError."""
    lower, tol, terms = 10**lower, 10**tol, 2**terms
    if headroom(eps, terms) > MOST_HEADROOM:
        with pytest.raises(ValueError, match=f"sums of {terms} terms"):
            polar_express(lower, tol, eps, cushion=cushion, terms=terms)
        return
    steps = polar_express(lower, tol, eps, cushion=cushion, terms=terms)
    assert len(steps) <= longest(lower, headroom(eps, terms), cushion) + 1
    if cushion >= 0.1 and headroom(eps, terms) >= 8 * EPS["float64"]:
        # The steps in exact arithmetic, without the rounding that they leave room for.
        most = max(tol, 64 * eps, 6 * headroom(eps, terms) ** 3)
        assert np.abs(through(steps, np.geomspace(lower, 1.0, 301)) - 1).max() <= 1.01 * most + 1e-15


@pytest.mark.parametrize(("ratio", "room"), [(0.0, 0.0), (-1.0, 0.0), (0.1, 0.2), (float("nan"), 0.0)])
def test_an_interval_that_no_schedule_is_for(ratio, room):
    with pytest.raises(ValueError, match="no schedule"):
        longest(ratio, room)


@pytest.mark.parametrize("terms", [2**13, 2**17, 2**19])
@pytest.mark.parametrize("count", [1, 4, 6, 40, 1000])
def test_a_number_of_steps_for_long_sums(count, terms):
    """Shorter intervals for more room, but always as many steps as asked for."""
    steps = schedule_of_length(count, 1e-4, EPS["float32"], terms)
    assert len(steps) == count
    assert np.isfinite(through(steps, np.linspace(0, 1, 101))).all()


def test_few_designs_do_for_all_sizes(monkeypatch):
    """A design takes some hundredths of a second, which no new shape should cost."""
    designs = []
    design = minimax._greedy
    monkeypatch.setattr(minimax, "_greedy", lambda *args, **kw: designs.append(args) or design(*args, **kw))
    for size in range(3, 300):
        lifting(size * EPS["float64"], EPS["float64"], 2.0, size)
        schedule_of_length(4, 0.2, EPS["float32"], size)
    before = len(designs)
    for size in range(300, 512):
        lifting(size * EPS["float64"], EPS["float64"], 2.0, size)
        schedule_of_length(4, 0.2, EPS["float32"], size)
    assert len(designs) == before


def test_designs_do_not_fill_the_memory():
    seen = []

    @minimax.cached_design
    def design(k):
        seen.append(k)
        return k

    for k in range(5000):
        assert design(k) == k
        assert design(k) == k
    assert seen == list(range(5000))
    (known,) = (c.cell_contents for c in design.__closure__ if isinstance(c.cell_contents, dict))
    assert len(known) <= 1024


@pytest.mark.parametrize(("rtol", "eps"), [(1e-3, 1.2e-7), (1.99e-6, 1.2e-7), (1e-3, 2.2e-16), (1e-12, 2.2e-16)])
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
