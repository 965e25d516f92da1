"""msign by steps with products in half precision, as on devices that have units for it: here in software."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import JAX, Library
from matrices import gaussian
from matsign import backends, frechet, msign
from matsign.iterations.minimax import NAMED, Step, max_on_unit_interval, schedule_of_length
from matsign.iterations.newton_schulz import _half_segments, _monic

EPS = {"float16": 2.0**-10, "bfloat16": 2.0**-7}
PLANS = {**NAMED, **{f"steps {n}": schedule_of_length(n, 0.2, 2.0**-12) for n in (1, 2, 3, 5, 12)}}


@pytest.fixture(params=["torch", JAX])
def backend(request):
    pytest.importorskip(request.param)
    return backends.load(request.param)


@pytest.fixture(params=list(EPS))
def short(backend, request, monkeypatch):
    """The name of the dtype for which the simulated device has units."""
    monkeypatch.setattr(backend, "fast_half_dtype", lambda x: request.param)
    return request.param


def half(backend, a, **options):
    return computed(backend, msign, a, precision="half", **options)


def computed(backend, f, *arrays, **options):
    return np.asarray(Library(backend.name).in_one_program(lambda *xs: f(*xs, **options), *arrays))


def basis(rng, *shape):
    return np.linalg.qr(gaussian(rng, *shape))[0]


def hard(rng, n, k):
    """Spectra of many kinds in one stack: rounding errors in MᴴM are largest with many large singular values.

    The first step brings what is near 0.11 to the top, where the second is steep; and a factor has an error in the size of
    its largest eigenvalue, which many singular values near 0.4 have.
    """
    lows = (1e-3, 0.01, 0.03, 0.1, 0.107, 0.12, 0.3, 0.4, 0.9)
    levels = [[1.0] * ones + [low] * (k - ones) for low in lows for ones in (1, k // 2, k - k // 4)]
    spectra = np.array([*levels, np.geomspace(1, 1e-6, k), 1 / np.arange(1, k + 1), np.ones(k)])
    wide = (basis(rng, len(spectra), n, k) * spectra[:, None, :]) @ basis(rng, len(spectra), k, k)
    low = gaussian(rng, n, 3) @ gaussian(rng, 3, k)
    rest = [
        low,
        low + 0.01 * gaussian(rng, n, k),
        np.ones((n, k)),
        np.add.outer(np.arange(n), np.arange(k)),
        np.eye(n, k),
    ]
    return np.concatenate([wide, rest])


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(96, 96), (256, 64), (20, 8), (4, 2)])
def test_nothing_overshoots_however_many_steps(shape, backend, short, rng):
    if backend.name == "jax" and shape not in ((96, 96), (20, 8)):
        pytest.skip("compiles for every shape")
    a = hard(rng, *shape)
    slack = 8 * EPS[short]
    if backend.name == "jax":  # which compiles for every number of steps
        counts = (4,) if len(a[0]) == 96 else (10,)
    elif short == "float16" and len(a[0]) > 20:  # slow in software; the units of bfloat16 are in many processors
        counts = (3, 6, 20)
    else:
        counts = (2, 3, 4, 5, 6, 10, 20)
    for count in counts:
        assert np.linalg.norm(half(backend, a, steps=count), 2, axis=(1, 2)).max() < 1.2 + slack
    for name, steps in NAMED.items() if backend.name == "torch" else ():
        assert (
            np.linalg.norm(half(backend, a, schedule=name), 2, axis=(1, 2)).max()
            < max_on_unit_interval(steps, 0.0) + slack
        )


@pytest.mark.parametrize("shape", [(1, 1), (7, 7), (96, 96), (40, 160), (300, 20), (33, 1)])
def test_it_is_msign_within_the_rounding_of_half_precision(shape, backend, short, rng):
    """Singular vectors stay, and singular values above 1/20 end where four steps in single precision bring them."""
    if backend.name == "jax" and shape not in (((1, 1), (300, 20)) if short == "float16" else ((7, 7), (40, 160))):
        pytest.skip("compiles for every shape")
    k, dtype = min(shape), "float32"
    u, v = basis(rng, max(shape), k), basis(rng, k, k)
    a = (u * np.geomspace(1, 0.05, k)) @ v
    a = (a if shape[0] >= shape[1] else a.T).astype(dtype)
    x = half(backend, a, steps=4)
    assert x.dtype == dtype
    values = np.linalg.svd(x, compute_uv=False)
    assert 0.79 < values.min() <= values.max() < 1.2 + 8 * EPS[short]
    turned = x.T @ a if shape[0] >= shape[1] else x @ a.T
    assert np.linalg.norm(turned - turned.T) < 4 * EPS[short] * np.linalg.norm(a)


def test_steps_that_would_explode_are_taken_in_full(backend, short, rng):
    a = gaussian(rng, 20, 20)
    exploding = [(1e3, -1e6, 3e8)], [(3.0, 0.0, 0.0)] * 10
    vanishing = [(1e-6, 0.0, 0.0)], [(0.0, 0.3, 0.0)] * 2
    rows = (exploding[0], vanishing[0]) if backend.name == "jax" else ("cans", *exploding, *vanishing)
    for options in ({"schedule": schedule} for schedule in rows):
        full = computed(backend, msign, a, precision="full", **options)
        np.testing.assert_array_equal(half(backend, a, **options), full)
    assert (half(backend, a, schedule="muon") != computed(backend, msign, a, schedule="muon")).any()


def test_what_is_asked_for_in_full_is_full(backend, short, rng):
    a = gaussian(rng, 12, 5, dtype="complex64")
    x = backend.asarray(a)
    for m, options in (
        (x, {"steps": 4}),  # complex numbers have no half precision
        (backend.asarray(a.real), {"tol": 0.01}),
    ):
        np.testing.assert_array_equal(
            np.asarray(msign(m, precision="half", **options)), np.asarray(msign(m, **options))
        )
    real = backend.asarray(a.real)
    rounded = backend.astype(real, "bfloat16")
    single = backend.astype(rounded, "float32")

    def floats(x):
        return np.asarray(backend.astype(x, "float32"))

    by_default, in_full = (floats(msign(rounded, steps=4, precision=p)) for p in (None, "full"))
    assert backend.dtype_name(msign(rounded, steps=4)) == "bfloat16"
    np.testing.assert_array_equal(
        by_default, floats(backend.astype(msign(single, steps=4, precision="half"), "bfloat16"))
    )
    np.testing.assert_array_equal(in_full, floats(backend.astype(msign(single, steps=4), "bfloat16")))
    assert (by_default != in_full).any()
    with pytest.raises(ValueError, match="precision must be one of"):
        msign(x, precision="double")


def test_members_do_not_see_each_other_nor_their_scale(backend, short, rng):
    a = np.stack(
        [gaussian(rng, 30, 12), np.zeros((30, 12)), 2.0**-80 * gaussian(rng, 30, 12), np.full((30, 12), np.nan)]
    )
    a[0, 0, 0] = 2.0**60
    kept = a.copy()
    x = half(backend, a, steps=4, errors="nan")
    np.testing.assert_array_equal(a, kept)
    assert np.isnan(x[3]).all()
    assert not x[1].any()
    for k in (0, 2):
        alone = a[[k] * 4] if backend.name == "jax" else a[[k]]  # JAX would compile for one member
        np.testing.assert_array_equal(half(backend, alone, steps=4)[0], x[k])
        np.testing.assert_array_equal(half(backend, 2.0**20 * alone, steps=4)[0], x[k])


def test_the_gradient_is_that_of_msign(backend, short, rng):
    a, move = gaussian(rng, 2, 24, 8)
    expected = frechet(msign)(a, move)
    found = computed(backend, frechet(msign), a, move, steps=4, precision="half")
    assert np.linalg.norm(found - expected) < 2 * EPS[short] * np.linalg.norm(expected)


@pytest.mark.compiles
@pytest.mark.filterwarnings("ignore:Dynamo detected:UserWarning")
def test_compiled_whole(monkeypatch, rng):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(backends.load("torch"), "fast_half_dtype", lambda x: "float16")
    a = torch.from_numpy(gaussian(rng, 20, 8)).bfloat16()
    expected = msign(a, steps=4)
    for dynamic in (False, True):
        four = torch.compile(lambda a: msign(a, steps=4), fullgraph=True, dynamic=dynamic, backend="eager")
        assert torch.equal(four(a), expected)


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("eps", EPS.values(), ids=EPS)
def test_segments_are_all_steps(plan, eps):
    chain = _monic(plan)
    segments = list(_half_segments(chain, eps))
    assert [link for segment in segments for link in segment] == list(chain)
    assert all(len(segment) == 1 for segment in segments[:-1])
    assert len(segments[-1]) <= 2


@given(
    steps=st.lists(st.tuples(st.floats(0, 4), st.floats(-5, 5), st.floats(-3, 3)), min_size=1, max_size=4),
    error=st.sampled_from([0.0, 1e-2]),
)
def test_reach_is_the_largest_value_of_all(steps, error):
    steps = [Step(*row) for row in steps]
    x = np.linspace(0, 1, 20_001)
    for step in steps:
        # Any value below the largest may occur, too.
        x = (1 + error) * np.abs(step(np.linspace(0, x.max(), 20_001)))
    found = max_on_unit_interval(steps, error)
    assert x.max() == pytest.approx(found, rel=1e-4) if found < 100 else x.max() > 99
