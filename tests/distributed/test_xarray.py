"""DataArrays: the last two axes are those of a matrix, the others broadcast by name; names and coordinates are kept."""

import numpy as np
import pytest

import matsign

xr = pytest.importorskip("xarray")
dask = pytest.importorskip("dask")


@pytest.fixture
def plants(rng):
    """a for each time, b for each site; the states have coordinates."""
    a, b = rng.standard_normal((5, 3, 3)) - 4 * np.eye(3), rng.standard_normal((2, 3, 1))
    return (
        xr.DataArray(a, dims=("time", "state", "state2"), coords={"time": [3, 1, 4, 2, 5], "state": list("abc")}),
        xr.DataArray(b, dims=("site", "state", "input"), coords={"site": ["x", "y"]}),
    )


def test_names_and_coordinates_are_kept(rng):
    m = rng.standard_normal((2, 5, 4, 3))
    array = xr.DataArray(
        m, dims=("site", "time", "row", "column"), coords={"time": [3, 1, 4, 2, 5], "row": list("abcd")}
    )
    u, h = matsign.polar(array)
    xr.testing.assert_identical(u, array.copy(data=matsign.polar(m).u))
    assert h.dims == ("site", "time", "column", "column2")
    np.testing.assert_array_equal(h, matsign.polar(m).h)
    np.testing.assert_array_equal(h.coords["time"], array.coords["time"])
    assert set(h.coords) == {"time"}


def test_leading_axes_broadcast_by_name(plants):
    """Also beside a plain matrix; each axis of a result has the name of the axis of the argument that it comes from."""
    a, b = plants
    regulator = matsign.lqr(a, b, np.eye(3), [[2.0]])
    plain = matsign.lqr(a.values[:, None], b.values, np.eye(3), [[2.0]])
    assert isinstance(regulator, matsign.Regulator)
    assert [x.dims[2:] for x in regulator] == [("input", "state"), ("state", "state2"), ("mode",)]
    for x, y in zip(regulator, plain, strict=True):
        assert x.dims[:2] == ("time", "site")
        np.testing.assert_array_equal(x, y)
    assert set(regulator.gain.coords) == {"time", "site", "state"}
    assert set(regulator.poles.coords) == {"time", "site"}
    small = matsign.balanced_truncation(a, b, b.transpose("site", "input", "state"), 2)
    through = ("input", "input2")  # d
    assert [x.dims[2:] for x in small] == [("r", "r2"), ("r", "input"), ("input", "r"), through, ("mode",)]


def test_new_names_are_not_those_of_other_axes(rng):
    m = xr.DataArray(rng.standard_normal((2, 4, 3)), dims=("mode", "x2", "x"), coords={"x2": list("abcd")})
    h = matsign.polar(m).h
    assert h.dims == ("mode", "x", "x22")
    assert not h.coords
    assert matsign.lqr(-m[:, :3].drop_vars("x2"), np.eye(3), np.eye(3), np.eye(3)).poles.dims == ("mode", "mode2")


def test_dask_inside(plants):
    """The result is lazy, and equal to that of the arrays in memory."""
    a, b = plants

    def compute_nothing(*args, **kwargs):
        raise AssertionError("a Dask array was computed")

    with dask.config.set(scheduler=compute_nothing):
        lazy = matsign.lqr(a.chunk(time=2), b, np.eye(3), np.eye(1))
        value, certificate = matsign.certify(matsign.mcsgn)(a.chunk(time=(1, 4)))
        with pytest.raises(ValueError, match=r"M has several chunks .* \.chunk\(axis=-1\)"):
            matsign.msign(a.chunk(state=2))
    assert lazy.gain.chunks[0] == (2, 2, 1)
    with dask.config.set(scheduler="synchronous"):
        for x, y in zip(lazy, matsign.lqr(a, b, np.eye(3), np.eye(1)), strict=True):
            xr.testing.assert_identical(x.compute(), y)
        xr.testing.assert_identical(value.compute(), matsign.mcsgn(a))
        assert certificate.converged.dims == ("time",)
        assert bool(certificate.converged.all())


def test_thresholds_and_transformations(plants, rng):
    a, _ = plants
    t = xr.DataArray(rng.uniform(0, 1, (5, 2)), dims=("time", "level"), coords={"time": a.time})
    soft = matsign.soft_threshold(a, t)
    assert soft.dims == ("time", "level", "state", "state2")
    np.testing.assert_array_equal(soft, matsign.soft_threshold(a.values[:, None], t.values))
    assert matsign.mclip(a, 0.5, 1).dims == a.dims
    value, certificate = matsign.certify(matsign.msign)(a)
    assert certificate.measures["dual_gap"].dims == matsign.condition(matsign.msign)(a).dims == ("time",)
    np.testing.assert_array_equal(
        matsign.frechet(matsign.msign)(a, a), matsign.frechet(matsign.msign)(a.values, a.values)
    )
    assert matsign.each(matsign.msign)([a, a])[1].identical(value)
    assert xr.Dataset({"a": a}).map(matsign.msign)["a"].equals(value)


@pytest.mark.filterwarnings("ignore:Duplicate dimension names")
def test_bad_input(plants):
    a, b = plants
    refused = [
        (lambda: matsign.mcsgn(b), ValueError, r"M has shape \(2, 3, 1\), expected"),
        (lambda: matsign.msign(a[0, 0]), ValueError, r"M has shape \(3,\), expected"),
        (lambda: matsign.solve_sylvester(a, a, a.values), ValueError, "q has shape .* no names for its axes"),
        (lambda: matsign.soft_threshold(a, np.ones(5)), ValueError, "t has shape .* expected a number or a DataArray"),
        (lambda: matsign.solve_sylvester(a, a[:2], a), ValueError, "solve_sylvester: the axes of a, b, q .* 'time'"),
        (
            lambda: matsign.lqr(a, a.rename(time="state2", state2="u"), np.eye(3), np.eye(3)),
            ValueError,
            "'state2' is one of the matrix in a, and",
        ),
        (
            lambda: matsign.soft_threshold(a, b[0, :, 0]),
            ValueError,
            "'state' is one of the matrix in M, and one of the b",
        ),
        (lambda: matsign.msign(xr.DataArray(2.0)), ValueError, "M is a DataArray without axes; expected 2"),
        (lambda: matsign.msign(a, method="best"), ValueError, "method must be one of"),
        (lambda: matsign.msign(xr.Dataset({"a": a})), TypeError, "M is not a dense array of numbers: .* Dataset"),
        (lambda: matsign.msign([a, a]), TypeError, "M is a list of xarray arrays"),
        (lambda: matsign.msign(xr.Variable(("x", "x"), np.eye(3))), ValueError, r"axes of the same name, \('x', 'x'\)"),
        (lambda: matsign.mcsgn(a * np.nan), matsign.SpectrumError, "batch members 0, 1, 2, 3, 4: the input holds NaN"),
    ]
    for call, kind, text in refused:
        with pytest.raises(kind, match=text):
            call()
