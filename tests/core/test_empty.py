"""Arrays without entries, as sums without terms: values, derivatives and certificates of each function."""

import itertools

import numpy as np
import pytest
import scipy.linalg as sl

import matsign
import truth
from matrices import contraction, definite, gaussian, stable
from matsign import SpectrumError
from problems import as_tuple

REGULATORS = (matsign.solve_continuous_are, matsign.solve_discrete_are, matsign.lqr, matsign.dlqr)
BOTH = pytest.mark.parametrize("f", REGULATORS, ids=lambda f: f.__name__)


def model(f, rng, n=3, dtype="float64", extras=False):
    """(a, b, q, r, and then e and s or s and e) without inputs, stable."""
    discrete = f in (matsign.solve_discrete_are, matsign.dlqr)
    a, e = contraction(rng, n, dtype) if discrete else -stable(rng, n, dtype), None
    none = np.zeros((n, 0), dtype)
    if extras:
        e = (np.eye(n) + 0.1 * gaussian(rng, n, n, dtype=dtype)).astype(dtype)
        a = a @ e
    others = (none, e) if f in (matsign.lqr, matsign.dlqr) else (e, none)
    return a, none, definite(rng, n, dtype=dtype), np.zeros((0, 0), dtype), *(others if extras else (None, None))


def lyapunov_of(f, a, q, e):
    """The equation that remains of `f`, in 80 digits."""
    back = truth.eye(len(a)) if e is None else truth.inverse(truth.exact(e))
    a, q = truth.exact(a) @ back, truth.adjoint(back) @ truth.exact(q) @ back
    if f in (matsign.solve_discrete_are, matsign.dlqr):
        return truth.stein(truth.adjoint(a), q)
    return truth.sylvester(truth.adjoint(a), a, -q)


@BOTH
@pytest.mark.parametrize("dtype", ["float32", "complex128"])
@pytest.mark.parametrize("extras", [False, True])
def test_without_inputs_a_lyapunov_equation_is_left(f, dtype, extras, eager, rng):
    plant = model(f, rng, dtype=dtype, extras=extras)
    given = [x for x in plant if x is not None]
    value, certificate = eager(matsign.certify(f), *given)
    x = as_tuple(value)[1 if len(as_tuple(value)) > 1 else 0]
    a, _, q, _, *rest = plant
    e = next((y for y in rest if y is not None and y.size), None)
    bound = 1e3 * np.finfo(dtype).eps
    assert truth.error(x, lyapunov_of(f, a, q, e)) < bound
    assert certificate.converged
    assert certificate.backward_error < bound
    assert 0 < certificate.forward_error < bound
    if len(as_tuple(value)) == 3:
        assert value.gain.shape == (0, 3)
        own = np.linalg.eigvals(a if e is None else np.linalg.solve(e, a))
        assert max(abs(own - pole).min() for pole in value.poles) < bound


@BOTH
@pytest.mark.parametrize("method", ["auto", "doubling", "sign", "qz"])
@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_without_inputs_any_scale_of_the_cost(f, method, scale, rng):
    a, b, q, r, *_ = model(f, rng)
    x = as_tuple(f(a, b, scale * q, r, method=method))[1 if f in (matsign.lqr, matsign.dlqr) else 0]
    assert truth.error(x / scale, lyapunov_of(f, a, q, None)) < 1e-12


@BOTH
def test_without_inputs_an_unstable_model_stays_so(f, eager, rng):
    _, b, q, r, *_ = model(f, rng)
    a = np.diag([3.0, -0.5, -0.25])
    batch = [np.stack([x, x]) for x in (a, b, q, r)]
    batch[0][1, 0, 0] = -0.75
    with pytest.raises(SpectrumError, match=r"batch members 0: .*not stabilisable"):
        eager(f, *batch)
    values = as_tuple(eager(f, *batch, errors="nan"))
    for x in values:
        assert np.isnan(x[0]).all()
        assert np.isfinite(x[1]).all()


@BOTH
def test_without_inputs_derivatives_are_those_of_the_lyapunov_equation(f, rng):
    torch = pytest.importorskip("torch")
    a, b, q, r, *_ = map(torch.from_numpy, model(f, rng)[:4])

    def by_lyapunov(a, q):
        if f in (matsign.solve_discrete_are, matsign.dlqr):
            return matsign.solve_discrete_lyapunov(a.mT, q)
        return matsign.solve_continuous_lyapunov(a.mT, -q)

    def by_regulator(a, q):
        found = as_tuple(f(a, b, q, r))
        return found[1] if len(found) > 1 else found[0]

    found, wanted = (torch.func.jacrev(g, (0, 1))(a, q) for g in (by_regulator, by_lyapunov))
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found[1], (wanted[1] + wanted[1].mT) / 2, rtol=1e-10, atol=1e-12)
    assert matsign.condition(f)(a, b, q, r) > 0.3 or f in (matsign.lqr, matsign.dlqr)


@BOTH
def test_without_states(f, on):
    r = np.eye(2)
    for x in as_tuple(on(f, np.zeros((0, 0)), np.zeros((0, 2)), np.zeros((0, 0)), r)):
        assert x.size == 0


@pytest.mark.parametrize("f", [matsign.lyapunov_factor, matsign.discrete_lyapunov_factor], ids=lambda f: f.__name__)
def test_factors_without_columns(f, everywhere):
    """The integral of zero, if the integral exists."""
    a, none = np.diag([-0.5, -0.25]), np.zeros((2, 0))
    z = everywhere(f, a, none)
    assert z.shape[0] == 2
    assert not z.any()
    if not everywhere.jit:
        with pytest.raises(SpectrumError, match="not stable"):
            everywhere(f, a + 2 * np.eye(2), none)


@pytest.mark.parametrize(("inputs", "outputs"), [(0, 2), (1, 0), (0, 0)])
def test_models_without_inputs_or_outputs(inputs, outputs, eager, rng):
    """Without inputs or outputs: the results for a zero input or output."""
    a, b, c = -stable(rng, 3), gaussian(rng, 3, inputs), gaussian(rng, outputs, 3)
    np.testing.assert_array_equal(eager(matsign.hankel_singular_values, a, b, c), np.zeros(3))
    reduced = eager(matsign.balanced_truncation, a, b, c, order=2)
    assert [x.shape for x in reduced] == [(2, 2), (2, inputs), (outputs, 2), (outputs, inputs), (3,)]
    assert (np.linalg.eigvals(reduced.a).real < 0).all()
    assert not reduced.b.any()
    assert not reduced.c.any()
    _, certificate = eager(lambda *xs: matsign.certify(matsign.balanced_truncation)(*xs, order=2), a, b, c)
    assert np.isfinite([certificate.backward_error, certificate.forward_error]).all()
    assert np.isinf(eager(matsign.hankel_singular_values, -a, b, c)).all()


def test_an_empty_batch_of_models_has_the_shapes_of_one(on):
    a, b, c = np.zeros((0, 3, 3)), np.zeros((0, 3, 1)), np.zeros((0, 2, 3))
    reduced = on(matsign.balanced_truncation, a, b, c, order=2)
    assert [x.shape for x in reduced] == [(0, 2, 2), (0, 2, 1), (0, 2, 2), (0, 2, 1), (0, 3)]
    with pytest.raises(ValueError, match="order must be"):
        matsign.balanced_truncation(a, b, c, 4)


def test_sylvester_without_rows_or_columns(on, rng):
    """Without equations and unknowns, only nonfinite entries are failures."""
    a = gaussian(rng, 2, 2)
    nothing = np.zeros((0, 0))
    assert on(matsign.solve_sylvester, a, nothing, np.zeros((2, 0))).shape == (2, 0)
    assert on(matsign.solve_sylvester, nothing, a, np.zeros((0, 2))).shape == (0, 2)


@pytest.mark.parametrize("half_plane", ["right", "left"])
def test_riccati_without_unknowns(half_plane, on):
    """An empty solution exists if the spectra of a and b lie on their sides."""
    side = 1 if half_plane == "right" else -1
    nothing, m = np.zeros((0, 0)), side * np.array([[1.0, 5.0], [0.0, 2.0]])
    wide, tall = np.zeros((0, 2)), np.zeros((2, 0))

    def solved(a, b, c, d):
        return on(matsign.solve_riccati, a, b, c, d, half_plane=half_plane)

    assert solved(-m, nothing, tall, wide).shape == (2, 0)
    assert solved(nothing, m, wide, tall).shape == (0, 2)
    assert solved(nothing, nothing, nothing, nothing).shape == (0, 0)
    for arguments, count in (((m, nothing, tall, wide), 2), ((nothing, -m, wide, tall), 0)):
        with pytest.raises(SpectrumError, match=f"has {count} eigenvalues"):
            solved(*arguments)
    with pytest.raises(SpectrumError, match="imaginary axis"):
        solved(np.array([[0.0, 1.0], [-1.0, 0.0]]), nothing, tall, wide)


@pytest.mark.parametrize("name", ["msign", "polar", "mclip", "soft_threshold"])
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (2, 0, 3)])
def test_rectangles_without_entries(name, shape, everywhere):
    options = {"mclip": {"lower": 0.5, "upper": 2.0}, "soft_threshold": {"t": 0.5}}.get(name, {})
    value = as_tuple(everywhere(getattr(matsign, name), np.zeros(shape), **options))
    assert value[0].shape == shape
    if name == "polar":
        assert value[1].shape == (*shape[:-2], shape[-1], shape[-1])
        assert not value[1].any()


@pytest.mark.compiles
def test_mapped_over(rng):
    """Sizes of zero under vmap."""
    jax, torch = pytest.importorskip("jax"), pytest.importorskip("torch")
    a, b, q, r, *_ = model(matsign.dlqr, rng)
    expected = sl.solve_discrete_lyapunov(a.T, q)
    for library, array in ((jax.vmap, jax.numpy.asarray), (torch.func.vmap, torch.from_numpy)):
        fixed = [array(x) for x in (b, q, r)]
        found = library(lambda a, fixed=fixed: matsign.dlqr(a, *fixed))(array(np.stack([a, a])))
        assert found.gain.shape == (2, 0, 3)
        for k, member in itertools.product(range(2), [np.asarray(found.solution)]):
            np.testing.assert_allclose(member[k], expected, rtol=1e-12)
