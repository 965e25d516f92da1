"""Dask arrays: lazy results in the chunks of the arguments, with the bits, errors and dtypes of NumPy arrays."""

import pickle

import numpy as np
import pytest

import matrices
import matsign
from keyword_arrays import by_position
from problems import BY_NAME, PROBLEMS, bound

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")

ROTATION = np.array([[0.0, 1.0], [-1.0, 0.0]])  # has no sign: its eigenvalues are ±i


@pytest.fixture(autouse=True)
def one_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


def compute_nothing(*args, **kwargs):
    raise AssertionError("a Dask array was computed")


def chunked(x, *chunks):
    """A Dask array in these chunks along its leading axes."""
    return da.from_array(x, chunks=(*chunks, *x.shape[len(chunks) :]))


def arrays_of(value):
    """The arrays in nested tuples and dictionaries."""
    if isinstance(value, dict):
        return [x for part in value.values() for x in arrays_of(part)]
    return [x for part in value for x in arrays_of(part)] if isinstance(value, tuple) else [value]


def assert_same(lazy, plain):
    """The Dask arrays in `lazy` are the NumPy arrays in `plain`, bit for bit, and their dtypes and shapes are known before."""
    assert type(lazy) is (type(plain) if isinstance(plain, tuple) else da.Array)
    for x, y in zip(arrays_of(lazy), arrays_of(plain), strict=True):
        assert isinstance(x, da.Array)
        y, computed = np.asarray(y, None if isinstance(y, np.ndarray) else x.dtype), x.compute()
        if x.shape != y.shape:  # a factor whose zero columns only NumPy leaves out
            np.testing.assert_array_equal(computed[..., y.shape[-1] :], 0)
            computed = computed[..., : y.shape[-1]]
        assert x.dtype == computed.dtype == y.dtype
        np.testing.assert_array_equal(computed, y)


def regulator(count):
    def stacked(rng):
        a, b, q, r, *_ = BY_NAME["solve_continuous_are"].stacked(rng, count)
        return a, b, q, r

    return stacked


def noisy(count):
    """a, g, c, qn, rn."""
    return lambda rng: (*rng.standard_normal((3, count, 4, 4)), *np.broadcast_to(np.eye(4), (2, count, 4, 4)))


def model(count):
    return lambda rng: (
        np.stack([-matrices.stable(rng, 4, "float64") for _ in range(count)]),
        rng.standard_normal((count, 4, 1)),
        rng.standard_normal((count, 1, 4)),
    )


def discrete_model(count):
    """a, b, c, d."""
    return lambda rng: (*rng.standard_normal((3, count, 4, 4)) / 5, rng.standard_normal((count, 4, 4)))


def covariances(count):
    return lambda rng: BY_NAME["geometric_mean"].stacked(rng, count)


def gaussians(count):
    """Means, which are vectors, and covariances."""

    def stacked(rng):
        a, b = covariances(count)(rng)
        mu1, mu2 = rng.standard_normal((2, count, 4))
        return mu1, a, mu2, b

    return stacked


def factors(count):
    return lambda rng: (rng.standard_normal((count, 4, 2)), rng.standard_normal((count, 4, 3)))


def samples(count):
    return lambda rng: (rng.standard_normal((count, 3, 4)), rng.standard_normal((count, 5, 4)))


def weighted_points(count):
    """p, q and weights, which are vectors."""
    return lambda rng: (*rng.standard_normal((2, count, 5, 3)), rng.random((count, 5)))


def moving(rng):
    """Matrices, and states of near ones."""
    m = rng.standard_normal((15, 4, 3))
    return m, matsign.warm_msign(m + 1e-6 * rng.standard_normal(m.shape)).state


def leading(rng):
    """Matrices with one singular value above 1, and states of near ones."""
    m = rng.standard_normal((15, 4, 3)) / 4 + np.outer([2, 0, 0, 0], [1, 0, 0])
    return m, matsign.warm_mclip(m + 1e-6 * rng.standard_normal(m.shape), rank=2).state


def weights_and_gradients(rng):
    """Orthonormal columns, and gradients."""
    return np.linalg.qr(rng.standard_normal((15, 4, 2)))[0], rng.standard_normal((15, 4, 2))


def collections(count):
    """Three covariance matrices and their weights, which are vectors."""

    def stacked(rng):
        members = [covariances(count)(rng)[0] for _ in range(3)]
        return np.stack(members, axis=1), 1 + rng.random((count, 3))

    return stacked


FUNCTIONS = [(p.name, p.f, lambda rng, p=p: p.stacked(rng, 15)) for p in PROBLEMS] + [
    ("lqr", matsign.lqr, regulator(15)),
    ("dlqr", matsign.dlqr, regulator(15)),
    ("lqr_finite_horizon", bound(matsign.lqr_finite_horizon, t=0.5), lambda rng: regulator(15)(rng)[:4]),
    ("dlqr_finite_horizon", bound(matsign.dlqr_finite_horizon, steps=2), lambda rng: regulator(15)(rng)[:4]),
    (
        "dlqr_time_varying",
        matsign.dlqr_time_varying,
        lambda rng: [np.stack([x] * 2, 1) for x in regulator(15)(rng)[:4]],
    ),
    ("lqe", matsign.lqe, noisy(15)),
    ("dlqe", matsign.dlqe, noisy(15)),
    ("h2_norm", matsign.h2_norm, model(15)),
    ("discrete_h2_norm", matsign.discrete_h2_norm, discrete_model(15)),
    ("fermi_occupation", bound(matsign.fermi_occupation, kT=0.5, electrons=1.5), lambda rng: covariances(15)(rng)[:1]),
    ("bures_distance", matsign.bures_distance, covariances(15)),
    ("fidelity", matsign.fidelity, covariances(15)),
    ("frechet_distance", matsign.frechet_distance, gaussians(15)),
    ("bures_distance_of_factors", matsign.bures_distance_of_factors, factors(15)),
    ("fidelity_of_factors", matsign.fidelity_of_factors, factors(15)),
    ("frechet_distance_of_samples", matsign.frechet_distance_of_samples, samples(15)),
    ("riemannian_distance", matsign.riemannian_distance, covariances(15)),
    ("kabsch", matsign.kabsch, weighted_points(15)),
    ("warm_msign", matsign.warm_msign, moving),
    ("warm_svd", bound(by_position(matsign.warm_svd), k=2), leading),
    ("warm_mclip", by_position(matsign.warm_mclip), leading),
    ("warm_soft_threshold", bound(by_position(matsign.warm_soft_threshold), t=0.5), leading),
    ("stiefel_step", matsign.stiefel_step, weights_and_gradients),
    ("spectral_sphere_step", matsign.spectral_sphere_step, weights_and_gradients),
    ("karcher_mean", matsign.karcher_mean, collections(15)),
    ("bures_mean", matsign.bures_mean, collections(15)),
    ("hinf_norm", matsign.hinf_norm, model(15)),
    ("discrete_hinf_norm", matsign.discrete_hinf_norm, discrete_model(15)),
    ("minimal_realization", matsign.minimal_realization, model(15)),
    ("hankel_singular_values", matsign.hankel_singular_values, model(15)),
    ("lqg_balanced_truncation", bound(matsign.lqg_balanced_truncation, order=2), model(15)),
    (
        "bounded_real_balanced_truncation",
        bound(matsign.bounded_real_balanced_truncation, order=2, gamma=1e3),
        model(15),
    ),
    ("balanced_truncation", bound(matsign.balanced_truncation, order=2), model(15)),
]


def test_every_function_is_here():
    assert {name for name, _, _ in FUNCTIONS} == {n for n in matsign.__all__ if hasattr(getattr(matsign, n), "spec")}


@pytest.mark.parametrize(("name", "f", "make"), FUNCTIONS, ids=[name for name, _, _ in FUNCTIONS])
def test_every_function_in_uneven_chunks(name, f, make, rng):
    """Two leading axes, chunks of different sizes, one of them of size 0; one chunk; no member; a single matrix."""
    plain = [x.reshape(3, 5, *x.shape[1:]) for x in make(rng)]
    with dask.config.set(scheduler=compute_nothing):
        lazy = f(*(chunked(x, (2, 0, 1), (2, 2, 1)) for x in plain))
        one_chunk = f(*map(da.from_array, plain))
        none = f(*(chunked(x, (2, 1), (2, 2, 1))[:, :0] for x in plain))
        single = f(*(chunked(x, (2, 1), (2, 2, 1))[2, 3] for x in plain))
    assert_same(lazy, f(*plain))
    assert arrays_of(lazy)[0].chunks[:2] == ((2, 0, 1), (2, 2, 1))
    assert_same(one_chunk, f(*plain))
    assert [x.shape[:2] for x in map(da.compute, arrays_of(none)) for x in x] == [(3, 0)] * len(arrays_of(none))
    assert_same(single, f(*(x[2, 3] for x in plain)))


@pytest.mark.parametrize("dtype", ["float32", "complex64", "complex128", "int64", "float16"])
def test_dtypes_are_known_before(dtype, rng):
    m = (10 * rng.standard_normal((5, 4, 3))).astype(dtype)
    assert_same(matsign.msign(chunked(m, (2, 3))), matsign.msign(m))


def test_complex_poles_and_real_singular_values(rng):
    a, b, c = (x.astype("complex64") for x in model(4)(rng))
    assert_same(
        matsign.hankel_singular_values(*(chunked(x, 3) for x in (a, b, c))), matsign.hankel_singular_values(a, b, c)
    )


def test_methods_chosen_by_the_size_of_a_batch(rng):
    """The bits are those of the batch if the method is given."""
    m = np.stack([matrices.splitting(rng, 4, "float64") for _ in range(60)])
    for f in (matsign.mcsgn, matsign.spectral_projector, matsign.matrix_abs):
        assert_same(f(chunked(m, 7), method="newton"), f(m, method="newton"))
        np.testing.assert_allclose(f(chunked(m, 7)), f(m), rtol=1e-9, atol=1e-9)


def test_chunks_of_size_0_along_an_axis_of_size_1(rng):
    """As after a selection by a mask. Dask cannot broadcast such an axis."""
    a, b, q = BY_NAME["solve_sylvester"].stacked(rng, 3)
    one = da.from_array(np.array([False, True, False]), chunks=1)
    a_one, b_one = (chunked(x, 1)[one].compute_chunk_sizes() for x in (a, b))
    assert a_one.chunks[0] == (0, 1, 0)
    assert_same(matsign.solve_sylvester(a_one, b_one, chunked(q, 2)), matsign.solve_sylvester(a[1:2], b[1:2], q))
    assert_same(matsign.sqrtm(a_one), matsign.sqrtm(a[1:2]))


def test_arguments_broadcast(rng):
    """Among Dask arrays in different chunks, and with NumPy arrays, lists and numbers."""
    a = np.stack([matrices.stable(rng, 3, "float64") for _ in range(6)])
    b, q = matrices.stable(rng, 2, "float64"), rng.standard_normal((4, 1, 3, 2))
    for arguments in (
        (chunked(a, (1, 3, 2)), b, q),
        (chunked(a, 4), b.tolist(), chunked(q, 3, 1)),
        (a, da.from_array(b), chunked(q, 2, 1)),
        (chunked(a, 4), b, da.broadcast_to(da.from_array(q, chunks=(2, 1, 3, 2)), (4, 6, 3, 2), chunks=(2, 5, 3, 2))),
    ):
        assert_same(matsign.solve_sylvester(*arguments), matsign.solve_sylvester(a, b, q))
    assert_same(matsign.solve_sylvester(da.ones((3, 1, 1), chunks=2), 1.0, da.from_array(4.0)), 2 * np.ones((3, 1, 1)))


def test_optional_arguments(rng):
    a, b, q, r, e, s = BY_NAME["solve_continuous_are"].stacked(rng, 5)
    lazy = [chunked(x, (2, 3)) for x in (a, b, q, r, e, s)]
    assert_same(matsign.solve_continuous_are(*lazy[:4], s=lazy[5]), matsign.solve_continuous_are(a, b, q, r, s=s))
    assert_same(matsign.lqr(*lazy[:4], e=e), matsign.lqr(a, b, q, r, e=e))


def test_thresholds(rng):
    m, t = rng.standard_normal((3, 5, 4, 3)), rng.uniform(0, 1, 5)
    lazy = chunked(m, (2, 1), (3, 2))
    assert_same(matsign.soft_threshold(lazy, 0.5), matsign.soft_threshold(m, 0.5))
    assert_same(matsign.soft_threshold(lazy, da.from_array(t, chunks=2)), matsign.soft_threshold(m, t))
    assert_same(matsign.soft_threshold(m, da.from_array(t, chunks=2)), matsign.soft_threshold(m, t))
    assert_same(matsign.mclip(lazy, t, 2.0, rtol=1e-3), matsign.mclip(m, t, 2.0, rtol=1e-3))
    with pytest.raises(matsign.SpectrumError, match=r"batch members \(2, 4\): a threshold is -1"):
        matsign.soft_threshold(lazy, da.asarray([0, 0, 0, 0, -1.0]))[2:].compute()


def test_members_without_an_answer():
    """They are NaN, or an error names them by their indices in the whole batch; it can be pickled."""
    m = np.tile(np.diag([1.0, -2.0]), (3, 5, 1, 1))
    m[2, 3], m[2, 4], m[0, 1, 0, 0] = ROTATION, ROTATION, np.nan
    lazy = chunked(m, (2, 1), (1, 2, 2))
    assert_same(matsign.mcsgn(lazy, errors="nan"), matsign.mcsgn(m, errors="nan"))
    with pytest.raises(matsign.SpectrumError, match=r"batch members \(2, 3\), \(2, 4\): an eigenvalue") as caught:
        matsign.mcsgn(lazy)[1:].compute()
    again = pickle.loads(pickle.dumps(caught.value))
    assert again.members == caught.value.members == [(2, 3), (2, 4)]
    assert str(again) == str(caught.value)
    with pytest.raises(matsign.SpectrumError, match=r"mcsgn: an eigenvalue"):
        matsign.mcsgn(da.from_array(ROTATION)).compute()


def test_transformations(rng):
    m, dm = rng.standard_normal((2, 3, 5, 4, 3))
    lazy, change = chunked(m, (2, 1), (3, 2)), chunked(dm, (2, 1), (3, 2))
    assert_same(matsign.certify(matsign.polar)(lazy), matsign.certify(matsign.polar)(m))
    assert_same(matsign.certify(matsign.msign)(lazy[0, 0]), matsign.certify(matsign.msign)(m[0, 0]))
    assert_same(matsign.condition(matsign.msign)(lazy), matsign.condition(matsign.msign)(m))
    assert_same(matsign.frechet(matsign.msign)(lazy, change), matsign.frechet(matsign.msign)(m, dm))
    plain, derivative = (m, 0.5, 1.0, dm, None, np.ones((3, 5))), matsign.frechet(matsign.mclip)
    assert_same(derivative(lazy, 0.5, 1.0, change, None, da.ones((3, 5), chunks=2)), derivative(*plain))
    tree = matsign.each(matsign.msign)({"x": lazy, "y": [lazy, m]})
    assert_same(tree["x"], matsign.msign(m))
    np.testing.assert_array_equal(tree["y"][1], matsign.msign(m))


def test_bad_input_is_refused_before_anything_is_computed(rng):
    m = da.from_array(rng.standard_normal((6, 4, 4)), chunks=(2, 4, 4))
    refused = [
        (
            lambda: matsign.msign(m.rechunk((2, 2, 4))),
            ValueError,
            r"M has several chunks .* M.rechunk\(\{-2: -1, -1: -1\}\)",
        ),
        (lambda: matsign.msign(m[m[:, 0, 0] > 0]), ValueError, r"M has chunks of unknown size; .* compute_chunk_sizes"),
        (lambda: matsign.mcsgn(m[:, :3]), ValueError, r"M has shape \(6, 3, 4\), expected \(..., n, n\)"),
        (lambda: matsign.msign(m[0, 0]), ValueError, r"M has shape \(4,\), expected \(..., n, m\)"),
        (
            lambda: matsign.solve_sylvester(m, m[:3], m),
            ValueError,
            r"leading axes do not broadcast: a \(6, 4, 4\), b \(3, 4, 4\)",
        ),
        (
            lambda: matsign.solve_sylvester(m, m, np.ones((3, 4))),
            ValueError,
            r"q has shape \(3, 4\), expected \(..., n, m\)",
        ),
        (lambda: matsign.msign(m, method="best"), ValueError, r"method must be one of .* got 'best'"),
        (lambda: matsign.msign(m, errors="no"), ValueError, "errors must be one of"),
        (lambda: matsign.msign(m, tol=1e-30), ValueError, "cannot hold tol"),
        (lambda: matsign.msign(m, schedule="fast"), ValueError, "schedule"),
        (lambda: matsign.msign(m, steps=-1), ValueError, "steps"),
        (lambda: matsign.balanced_truncation(m, m, m, 9), ValueError, "order must be a whole number from 1 to 4"),
        (lambda: matsign.soft_threshold(m, -1.0), ValueError, "t must be a number of at least 0"),
        (lambda: matsign.soft_threshold(m, None), ValueError, "t must be a number of at least 0"),
        (lambda: matsign.solve_sylvester(m, None, m), TypeError, "b is of type NoneType|b is None"),
        (lambda: matsign.msign([m[0], m[1]]), TypeError, "M is a list of dask arrays; stack them"),
        (lambda: matsign.msign(da.ma.masked_less(m, 0)), TypeError, "M holds arrays of type MaskedArray"),
        (
            lambda: matsign.solve_sylvester(m, np.ma.masked_less(np.eye(4), 1), m),
            TypeError,
            "b is not .* masked entries",
        ),
        (lambda: matsign.mclip(m, 2.0, 1.0), ValueError, "lower must be at most upper"),
        (lambda: matsign.msign(m.astype(object)), TypeError, "M has dtype object; convert"),
        (lambda: matsign.msign(m.astype("longdouble")), TypeError, "M has dtype float128|longdouble"),
        (lambda: matsign.solve_sylvester(m, [["x"]], m), TypeError, "b holds text"),
    ]
    with dask.config.set(scheduler=compute_nothing):
        for call, kind, text in refused:
            with pytest.raises(kind, match=text):
                call()


def test_a_dtype_that_the_chunks_do_not_have():
    lying = da.ones((2, 2, 2), chunks=(1, 2, 2)).map_blocks(lambda x: 1j * x, dtype=float, meta=np.empty((0, 0, 0)))
    with pytest.raises(TypeError, match="a chunk of M has dtype complex128, and the Dask array has dtype float64"):
        matsign.msign(lying).compute()


def test_a_shape_that_the_chunks_do_not_have():
    """Smaller matrices, or fewer members, as of a file that is shorter than it was said to be."""
    m = chunked(np.tile(np.eye(3), (4, 1, 1)), 2)
    for part in (np.s_[:, :2, :2], np.s_[:1]):
        lying = m.map_blocks(lambda x, part=part: x[part], dtype=float)
        for call in (lambda x: matsign.solve_sylvester(np.eye(3), m, x), lambda x: matsign.lyapunov_factor(-m, x)):
            with pytest.raises(
                ValueError, match=r"a chunk of . has shape .*, and the Dask array has \(2, 3, 3\) there"
            ):
                call(lying).compute()


def test_factors_have_all_columns(rng):
    """NumPy leaves out columns that are zero in every member, which here depend on the chunk."""
    a, b = model(4)(rng)[:2]
    a[3] = -a[3]
    z = matsign.lyapunov_factor(chunked(a, 1), chunked(np.concatenate([b, 0 * b], -1), 2), errors="nan")
    assert z.shape == (4, 4, 4)
    x = z.compute()
    np.testing.assert_allclose(
        (x @ x.mT)[:3], matsign.solve_continuous_lyapunov(a, -b @ b.mT)[:3], rtol=1e-10, atol=1e-14
    )
    assert np.isnan(x[3]).all()


def test_tensors_beside_dask_arrays_are_refused():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="one library; b is torch, others are dask"):
        matsign.solve_sylvester(da.ones((2, 1, 1)), torch.ones(1, 1), da.ones((2, 1, 1)))


def test_the_same_call_has_the_same_name(rng):
    """So that Dask computes it once."""
    m = da.from_array(rng.standard_normal((4, 3, 3)), chunks=(2, 3, 3))
    assert matsign.msign(m, steps=3).name == matsign.msign(m, steps=3).name != matsign.msign(m, steps=4).name
