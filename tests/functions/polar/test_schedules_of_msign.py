"""msign with a fixed number of steps: by accuracy, by name, by coefficients, by count; direct and in Gram form."""

import numpy as np
import pytest

import matsign
from matrices import gaussian
from matsign import backends, msign
from matsign.iterations.minimax import NAMED, schedule_of_length
from matsign.iterations.newton_schulz import _gram

SHAPES = [(1, 1), (7, 7), (20, 12), (40, 10), (10, 40), (33, 1), (1, 5), (64, 31)]


def spectrum(rng, n, m, values, dtype="float64"):
    u, _, vh = np.linalg.svd(gaussian(rng, n, m, dtype=dtype), full_matrices=False)
    return (u * np.asarray(values, float)) @ vh


def values_of(x):
    return np.linalg.svd(np.asarray(x, np.result_type(x.dtype, "float64")), compute_uv=False)


DTYPES_AND_SHAPES = [(dtype, shape) for dtype in ("float32", "float64", "complex64", "complex128") for shape in SHAPES]


@pytest.mark.parametrize(("dtype", "shape"), DTYPES_AND_SHAPES)
@pytest.mark.parametrize("tol", [0.3, 0.03])
def test_singular_values_land_where_they_were_asked_to(tol, shape, dtype, eager, rng):
    check_that_singular_values_land(tol, shape, dtype, eager, rng)


@pytest.mark.parametrize(
    ("tol", "dtype", "shape"), [((0.3, 0.03)[k % 2], *case) for k, case in enumerate(DTYPES_AND_SHAPES[::3])]
)
def test_singular_values_land_in_jax(tol, shape, dtype, in_jax, rng):
    """Every shape, every dtype and both tolerances, but not every combination: JAX compiles for each."""
    check_that_singular_values_land(tol, shape, dtype, in_jax._replace(jit=True), rng)


def check_that_singular_values_land(tol, shape, dtype, on, rng):
    n, m = shape
    k = min(n, m)
    for lower in (1e-1, 1e-3):
        a = spectrum(rng, n, m, np.geomspace(1, lower, k), dtype).astype(dtype) * 37
        x = on(msign, a, tol=tol, rtol=lower / 2)
        assert x.dtype == dtype
        values = values_of(x)
        assert abs(values - 1).max() <= tol
        u, _, vh = np.linalg.svd(a, full_matrices=False)
        core = u.conj().T @ x @ vh.conj().T
        assert np.linalg.norm(core - np.diag(np.diag(core))) < 1e-2


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NAMED)
def test_named_schedules_are_the_published_polynomials(name, shape, eager, rng):
    check_that_a_schedule_is_as_published(name, shape, eager, rng)


@pytest.mark.parametrize(("name", "shape"), [(tuple(NAMED)[k % len(NAMED)], shape) for k, shape in enumerate(SHAPES)])
def test_named_schedules_in_jax(name, shape, in_jax, rng):
    """Every name and every shape."""
    check_that_a_schedule_is_as_published(name, shape, in_jax._replace(jit=True), rng)


def check_that_a_schedule_is_as_published(name, shape, on, rng):
    """Through the singular values, from the Frobenius norm."""
    a = gaussian(rng, *shape)
    u, s, vh = np.linalg.svd(a, full_matrices=False)
    s = s / np.linalg.norm(s)
    for step in NAMED[name]:
        s = step(s)
    np.testing.assert_allclose(on(msign, a, schedule=name), (u * s) @ vh, atol=1e-6 * abs(s).max())


def test_coefficients_and_counts(rng):
    a = gaussian(rng, 9, 4)
    muon = [(3.4445, -4.7750, 2.0315)]
    np.testing.assert_array_equal(msign(a, schedule=muon, steps=5), msign(a, schedule="muon"))
    np.testing.assert_array_equal(msign(a, schedule="you", steps=2), msign(a, schedule=NAMED["you"][:2]))
    cubic = msign(a, schedule=[(1.5, -0.5)], steps=60)
    np.testing.assert_allclose(cubic, msign(a), atol=1e-13)


@pytest.mark.parametrize("count", [1, 2, 4, 7])
def test_a_number_of_steps_reaches_as_low_as_it_can(count):
    steps = schedule_of_length(count, 0.3, 2.2e-16)
    assert len(steps) == count
    x = np.geomspace(1e-12, 1, 4000)
    y = x.copy()
    for step in steps:
        y = step(y)
    reached = x[y > 0.7].min()
    assert reached < 0.4 / 3 ** (count - 1)
    assert y[x >= reached].min() > 0.69
    assert y.max() < 1.31


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1.0, 1e300])
def test_fixed_steps_do_not_see_the_scale(scale, rng):
    a = gaussian(rng, 12, 5)
    power = 2.0 ** np.round(np.log2(scale))
    np.testing.assert_array_equal(msign(power * a, steps=4), msign(a, steps=4))
    small = np.array([[5e-324, 0.0], [0.0, 5e-324]])
    np.testing.assert_allclose(msign(small, tol=0.01), np.eye(2), atol=0.01)


def test_zero_rank_deficient_and_bad_members(on, rng):
    on = on._replace(jit=on.name == "jax")  # one program, where eagerly JAX compiles each operation
    a = np.stack([np.zeros((6, 3)), np.outer(np.arange(6.0), [1, 2, 3]), gaussian(rng, 6, 3), np.full((6, 3), np.inf)])
    alone = a[[2, 2, 2, 2]] if on.name == "jax" else a[2:3]  # JAX would compile for one member
    for options in ({"steps": 4}, {"schedule": "muon"}, {"tol": 0.05}):
        x = on(msign, a, errors="nan", **options)
        assert not x[0].any()
        assert np.isfinite(x[1]).all()
        assert np.isnan(x[3]).all()
        np.testing.assert_array_equal(x[2], on(msign, alone, **options)[0])


def test_halves_are_computed_in_single_precision_where_there_are_no_units_for_them(rng, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(backends.load("torch"), "fast_half_dtype", lambda x: None)
    a = torch.from_numpy(gaussian(rng, 24, 8))
    for dtype, size in ((torch.bfloat16, 1e30), (torch.float16, 6e4)):
        x = a.to(dtype)
        x = x * (size / x.abs().max()).to(dtype)
        kept = x.clone()
        y = msign(x, steps=5)
        assert y.dtype == dtype
        assert torch.equal(x, kept)
        wide = msign(x.float(), steps=5)
        assert (y.float() - wide).abs().max() <= torch.finfo(dtype).eps


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "best"}, "schedule must be one of muon"),
        ({"schedule": [1.0, 2.0]}, "rows of two or three"),
        ({"schedule": []}, "rows of two or three"),
        ({"steps": 0}, "positive whole number"),
        ({"steps": 2.5}, "positive whole number"),
        ({"steps": 2**63}, "positive whole number up to 1000"),
        ({"steps": -(10**400)}, "positive whole number"),
        ({"steps": 1001}, "positive whole number up to 1000"),
        ({"steps": np.array(3.0)}, "positive whole number"),
        ({"steps": "4"}, "positive whole number"),
        ({"schedule": [(10**400, 1, 1)]}, "rows of two or three"),
        ({"schedule": 3}, "rows of two or three"),
        ({"tol": 10**400}, "tol must be a number"),
        ({"rtol": -(10**400)}, "rtol must be a number"),
        ({"rtol": "1e-3"}, "rtol must be a number"),
        ({"steps": 3, "method": "svd"}, "polynomial"),
        ({"tol": 1e-17}, "float64 cannot hold"),
    ],
)
def test_options_that_mean_nothing(options, message):
    with pytest.raises(ValueError, match=message):
        msign(np.eye(3), **options)


def test_a_tolerance_that_a_dtype_cannot_hold_is_refused_by_name():
    torch = pytest.importorskip("torch")
    for dtype, tol in ((torch.float32, 1e-7), (torch.bfloat16, 1e-3), (torch.float16, 1e-4)):
        with pytest.raises(ValueError, match=str(dtype).removeprefix("torch.")):
            msign(torch.eye(3, dtype=dtype), tol=tol)


def test_gradients_through_a_schedule(rng):
    """The derivative is that of the limit of the steps."""
    torch = pytest.importorskip("torch")
    a = torch.from_numpy(spectrum(rng, 8, 4, [1, 0.8, 0.6, 0.5])).requires_grad_()
    (rough,) = torch.autograd.grad((msign(a, steps=8, tol=1e-3) ** 3).sum(), a)
    (fine,) = torch.autograd.grad((msign(a) ** 3).sum(), a)
    torch.testing.assert_close(rough, fine, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("condition", [3, 100, 1000])
@pytest.mark.parametrize("shape", [(4, 4), (6, 4), (4, 6)])
def test_gradients_through_few_steps_are_those_of_msign(shape, condition, rng):
    torch = pytest.importorskip("torch")
    a = torch.from_numpy(spectrum(rng, *shape, np.geomspace(1, 1 / condition, 4))).requires_grad_()
    weight = torch.from_numpy(gaussian(rng, *shape))
    (rough,) = torch.autograd.grad((msign(a, steps=4) * weight).sum(), a)
    (fine,) = torch.autograd.grad((msign(a) * weight).sum(), a)
    torch.testing.assert_close(rough, fine, rtol=1e-8, atol=1e-8 * float(fine.abs().max()))


def test_certificate_of_few_steps_says_how_rough_they_are(rng):
    a = gaussian(rng, 30, 30)
    for count in (3, 5, 9):
        x, certificate = matsign.certify(msign)(a, steps=count)
        exact = msign(a)
        error = np.linalg.norm(x - exact) / np.linalg.norm(exact)
        assert error / 5 < certificate.forward_error < 5 * error + 1e-14 or certificate.forward_error > 0.1


# Large enough for `msign` to estimate the smallest singular value before it chooses the number of steps.
@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
@pytest.mark.parametrize("shape", [(128, 128), (240, 100), (100, 180)])
@pytest.mark.parametrize("method", ["auto", "polynomial", "svd", "gram"])
def test_every_tolerance_that_a_dtype_holds(method, shape, dtype, eager, rng):
    for lower in (0.3, 0.04, 2e-3):
        a = spectrum(rng, *shape, np.geomspace(1, lower, min(shape)), dtype).astype(dtype)
        for tol in (0.3, 0.1, 1e-2, 1e-3, 2e-6 if "32" in dtype or dtype == "complex64" else 1e-14):
            values = values_of(eager(msign, a, tol=tol, rtol=lower / 2, method=method))
            assert abs(values - 1).max() <= tol


def test_few_steps_where_few_are_enough(eager, rng):
    """A matrix far from singular takes fewer steps than an arbitrary one."""
    easy, hard = (spectrum(rng, 128, 128, np.geomspace(1, low, 128)) for low in (0.3, 1e-6))
    steps = [matsign.certify(msign)(eager.array(m), tol=0.1)[1].iterations for m in (easy, hard)]
    assert steps[0] <= 4
    assert steps[1] >= 20


def test_single_precision_has_all_its_digits(eager, rng):
    """LAPACK's single precision has ten times the error."""
    for low in (0.1, 1e-3, 1e-4):
        a = spectrum(rng, 200, 200, np.geomspace(1, low, 200)).astype("float32")
        u, _, vh = np.linalg.svd(a.astype("float64"))
        x = eager(msign, a)
        assert abs(values_of(x) - 1).max() < 1e-6
        assert np.linalg.norm(x - u @ vh) < 1e-6 * np.linalg.norm(x)


@pytest.mark.parametrize("rtol", [0.0, 1e-8, 1e-5, 1e-4])
def test_rank_of_a_matrix_in_single_precision(rtol, eager, rng):
    """By every method singular values below `rtol` become zero, and no others."""
    a = spectrum(rng, 60, 40, [1.0] * 20 + [3e-4] * 10 + [0.0] * 10).astype("float32")
    values = values_of(eager(msign, a, rtol=rtol))
    assert abs(values[:30] - 1).max() < 1e-5
    if rtol >= 1e-5:
        assert values[30:].max() < 1e-5


@pytest.mark.parametrize("shape", [(6, 6), (3, 20, 5), (2, 5, 16)])
@pytest.mark.parametrize("options", [{"steps": 4}, {"schedule": "muon"}, {"tol": 0.05, "rtol": 1e-3}])
def test_nothing_looks_at_a_value_while_a_cuda_graph_is_recorded(options, shape, monkeypatch, rng):
    """A copy of a number from the device to Python, or from Python to the device, would end the recording."""
    torch = pytest.importorskip("torch")
    from torch.utils._python_dispatch import TorchDispatchMode

    aten = torch.ops.aten
    copies = (aten._local_scalar_dense.default, aten.nonzero.default, aten.lift_fresh.default)

    class NoValues(TorchDispatchMode):
        def __torch_dispatch__(self, f, types, args=(), kwargs=None):
            assert f not in copies
            return f(*args, **(kwargs or {}))

    m = torch.from_numpy(gaussian(rng, *shape))
    expected = msign(m, **options)
    with NoValues(), pytest.raises(AssertionError):
        msign(m, **options)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with NoValues():
        found, bad = msign(m, **options), msign(m * torch.nan, **options)
    torch.testing.assert_close(found, expected)
    assert bad.isnan().all()  # an error cannot be raised there either


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((512, 500), "float32"),
        *((s, t) for s in [(150, 150), (310, 310), (600, 300), (1, 700), (3000, 40)] for t in ["float32", "float64"]),
    ],
)
@pytest.mark.parametrize("options", [{"tol": 1e-2}, {"tol": 1e-3, "method": "polynomial"}, {"steps": 4}, {"steps": 10}])
def test_equal_entries_do_not_explode(options, shape, dtype, eager):
    """At rank one the singular value is where polynomials are steepest, and rounding errors of equal terms add up."""
    rng = np.random.default_rng(5)
    signs = np.outer(*(np.sign(rng.standard_normal(k)) for k in shape))
    for m in (np.ones(shape), signs, np.outer(np.arange(1, shape[0] + 1), np.arange(1, shape[1] + 1))):
        x = eager(msign, m.astype(dtype), **options)
        x = x.astype(float)
        gram = x.T @ x if shape[0] > shape[1] else x @ x.T
        assert abs(np.linalg.eigvalsh(gram)[-1] ** 0.5 - 1) < options.get("tol", 0.21)


def test_coefficients_of_any_size(eager, rng):
    """c = 0 is allowed, and coefficients that are not finite are refused."""
    m = gaussian(rng, 6, 6)
    cubic = eager(msign, m, schedule=[(1.5, -0.5)], steps=25)
    for c in (1e-6, 1e-9, 1e-12, 1e-15):
        quintic = eager(msign, m, schedule=np.array([(1.5, -0.5, c)]), steps=np.int64(25))
        assert np.isfinite(msign(m, schedule=[(1.5, 0.0, c**20)], steps=2)).all()
        assert np.linalg.norm(quintic - cubic) < 10 * c + 1e-13
    for wrong in ([(np.nan, 1.0, 1.0)], [(1.0, np.inf)]):
        with pytest.raises(ValueError, match="rows of two or three"):
            msign(m, schedule=wrong)
    with pytest.raises(ValueError, match="positive whole number"):
        msign(m, steps=True)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((128256, 16), {"tol": 1e-2}),
        ((16, 14336), {"tol": 1e-3, "method": "polynomial"}),
        ((9, 9000), {"steps": 6, "tol": 1e-4}),
        ((300000, 2), {"tol": 1e-3, "method": "polynomial"}),
        ((1, 70000), {"steps": 9, "tol": 1e-3}),
    ],
)
def test_long_matrices_in_single_precision(shape, options, eager):
    """Shapes of language models, with random and with equal entries, which give the largest rounding errors of long sums."""
    rng = np.random.default_rng(0)
    for m in (rng.standard_normal(shape), np.ones(shape), np.outer(*(np.sign(rng.standard_normal(k)) for k in shape))):
        values = values_of(eager(msign, m.astype("float32"), **options))
        rank = np.linalg.matrix_rank(m)
        assert abs(values[:rank] - 1).max() <= options["tol"]
        assert (values[rank:] < 1e-2).all()


def test_sums_in_pieces_are_the_sums(eager, rng):
    """Long columns are summed in pieces: any length, also between two multiples of a piece, with and without a shift."""
    backend = backends.load(eager.name)
    for n in (1, 4096, 4097, 6144, 10000):
        m = gaussian(rng, 2, n, 3, dtype="complex128")
        for shift in (0.0, -1.5):
            found = np.asarray(_gram(backend, eager.array(m), shift))
            np.testing.assert_allclose(found, m.conj().mT @ m + shift * np.eye(3), atol=1e-14 * n)
