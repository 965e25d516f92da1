"""hinf_norm and discrete_hinf_norm: known peaks, dense grids, many peaks, infinity, all-pass models, certified bounds."""

import numpy as np
import pytest

import matsign
from matrices import DTYPES, adjoint, contraction, gaussian, stable, unitary
from matsign import SpectrumError, certify, discrete_hinf_norm, hinf_norm
from matsign.direct import peak_gain

both = pytest.mark.parametrize("discrete", [False, True], ids=["continuous", "discrete"])
EPS = {"float32": 1.2e-7, "float64": 2.3e-16, "complex64": 1.2e-7, "complex128": 2.3e-16}


def function(discrete):
    return discrete_hinf_norm if discrete else hinf_norm


def model(rng, discrete, n=5, m=2, p=3, dtype="float64"):
    a = contraction(rng, n, dtype) if discrete else -stable(rng, n, dtype)
    return a, gaussian(rng, n, m, dtype=dtype), gaussian(rng, p, n, dtype=dtype), gaussian(rng, p, m, dtype=dtype)


def gain(a, b, c, d, frequency, discrete=False):
    frequency = np.asarray(frequency)
    s = np.asarray(np.exp(1j * frequency) if discrete else 1j * frequency)
    x = np.linalg.solve(s[..., None, None] * np.eye(len(a)) - a, b.astype(complex))
    return np.linalg.svd(c @ x + d, compute_uv=False)[..., 0]


def grid(a, discrete):
    if discrete:
        return np.linspace(-np.pi, np.pi, 4001)
    return np.concatenate([s * np.geomspace(1e-3, 1e3, 2001) for s in (-1, 1)] + [[0.0]])


@both
@pytest.mark.parametrize("dtype", DTYPES)
def test_attained_and_nowhere_exceeded(discrete, dtype, eager, rng):
    for n in (1, 2, 5, 40):
        arrays = model(rng, discrete, n, dtype=dtype)
        (norm, frequency), certificate = eager(certify(function(discrete)), *arrays)
        assert norm.dtype == frequency.dtype == np.dtype(dtype).type(0).real.dtype
        wide = [x.astype("complex128") for x in arrays]
        if np.isfinite(frequency):
            assert gain(*wide, np.float64(frequency), discrete) == pytest.approx(norm, rel=50 * EPS[dtype])
        assert gain(*wide, grid(arrays[0], discrete), discrete).max() <= norm * (1 + 50 * EPS[dtype])
        assert certificate.backward_error < 4 * EPS[dtype]
        assert norm < certificate.measures["upper_bound"] < norm * (1 + EPS[dtype] ** 0.5)
        assert np.isrealobj(arrays[0]) <= (frequency >= 0)


def test_many_peaks_of_nearly_the_same_height(eager):
    """Twelve lightly damped oscillators: their peaks differ by the tails of the others."""
    n, damping, resonances = 12, 1e-3, np.linspace(1, 4, 12)
    a, b, c = np.zeros((2 * n, 2 * n)), np.zeros((2 * n, 1)), np.zeros((1, 2 * n))
    for k, w in enumerate(resonances):
        a[2 * k : 2 * k + 2, 2 * k : 2 * k + 2] = [[-damping, w], [-w, -damping]]
        b[2 * k], c[0, 2 * k + 1] = 1, 1
    (norm, frequency), certificate = eager(certify(hinf_norm), a, b, c)
    near = (resonances[:, None] + np.linspace(-2e-5, 2e-5, 401)).ravel()
    values = gain(a, b, c, 0, near)
    assert norm >= values.max() * (1 - 1e-14)
    assert norm == pytest.approx(values.max(), rel=1e-8)
    assert abs(frequency - near[values.argmax()]) < 1e-6
    assert certificate.iterations < 4


def test_a_peak_between_the_poles_that_no_pole_announces():
    """A notch at the pole, a maximum beside it."""
    poles, zeros = np.array([-0.5 + 1j, -0.5 - 1j, -0.3 + 2j, -0.3 - 2j]), np.array([1j, -1j, 2j, -2j])
    num, den = np.poly(zeros).real - np.poly(poles).real, np.poly(poles).real
    a = np.vstack([-den[1:], np.eye(3, 4)])
    norm, _ = hinf_norm(a, np.eye(4, 1), num[None, 1:], np.eye(1))
    w = np.linspace(0, 10, 200001)
    values = np.abs(np.polyval(np.poly(zeros), 1j * w) / np.polyval(den, 1j * w))
    assert norm >= values.max() * (1 - 1e-14)
    assert norm == pytest.approx(max(values.max(), 1), rel=1e-8)


def test_the_norm_of_the_direct_term_is_attained_at_infinity(everywhere):
    a, b, c, d = -np.eye(1), np.eye(1), -np.eye(1), np.full((1, 1), 2.0)  # 2 - 1 / (s + 1)
    (norm, frequency), certificate = everywhere(certify(hinf_norm), a, b, c, d)
    assert norm == 2
    assert frequency == np.inf
    assert certificate.forward_error < 1e-14
    assert everywhere(matsign.condition(hinf_norm), a, b, c, d) == pytest.approx(1, abs=0.2)


@both
def test_an_all_pass_model(discrete, eager, rng):
    """The gain is 1 everywhere, and the frequency not determined."""
    a = np.array([[-0.5, 1.0], [-1.0, -0.5]])
    a = np.linalg.solve(np.eye(2) * 2 - a, np.eye(2) * 2 + a) if discrete else a
    if discrete:
        b = np.linalg.cholesky(np.eye(2) - a @ a.T)
        u = np.linalg.svd(np.hstack([a, b]))[2][2:]
        c, d = u[:, :2], u[:, 2:]
    else:
        b = np.eye(2)
        c, d = -b.T, np.eye(2)
    (norm, _), certificate = eager(certify(function(discrete)), a, b, c, d)
    assert norm == pytest.approx(1, rel=1e-12)
    assert certificate.backward_error < 1e-14
    assert certificate.measures["norm_error"] < 1e-12


@both
def test_the_dual_model_and_a_phase(discrete, eager, rng):
    f, arrays = function(discrete), model(rng, discrete, dtype="complex128")
    norm, frequency = eager(f, *arrays)
    a, b, c, d = map(adjoint, arrays)
    dual, mirrored = eager(f, a, c, b, d)
    assert dual == pytest.approx(norm, rel=1e-12)
    assert mirrored == pytest.approx(-frequency, rel=1e-7)


@both
@pytest.mark.parametrize("scale", [1e-150, 1e150])
def test_units(discrete, scale, eager, rng):
    f, (a, b, c, d) = function(discrete), model(rng, discrete)
    norm, frequency = f(a, b, c, d)
    scaled, same = eager(f, a, scale * b, c, scale * d)
    assert scaled == pytest.approx(scale * norm, rel=1e-13)
    assert same == pytest.approx(frequency, rel=1e-9)
    states = 2.0 ** np.array([0, 40, -60, 100, 0])
    moved, _ = eager(f, a * states[:, None] / states, b * states[:, None], c / states, d)
    assert moved == pytest.approx(norm, rel=1e-12)
    if not discrete:
        faster = eager(f, scale * a, b, scale * c, d)
        assert faster[0] == pytest.approx(norm, rel=1e-13)
        assert faster[1] == pytest.approx(scale * frequency, rel=1e-9)


@both
def test_members_and_what_has_no_norm(discrete, eager, rng):
    f, models = function(discrete), [model(rng, discrete) for _ in range(4)]
    a, b, c, d = (np.stack(x) for x in zip(*models, strict=True))
    a[1], c[2, 0, 0] = 2 * np.eye(5), np.nan
    norm, frequency = eager(f, a, b, c, d, errors="nan")
    assert np.isnan(norm).tolist() == np.isnan(frequency).tolist() == [False, True, True, False]
    assert [(norm[k], frequency[k]) for k in (0, 3)] == [f(*models[k]) for k in (0, 3)]
    with pytest.raises(SpectrumError, match="1: a is not stable, so the norm of the model is infinite"):
        eager(f, a, b, c, d)
    barely = np.array([[1 - 2.0**-52 if discrete else -1e-17, 1e3], [0, 0.5 if discrete else -1]])
    with pytest.raises(SpectrumError, match="not stable to working precision"):
        eager(f, barely, b[0, :2], c[0, :, :2])
    with pytest.raises(SpectrumError, match="larger than the largest"):
        eager(f, a[0], 1e200 * b[0], 1e200 * c[0])


@both
def test_nothing_in_nothing_out(discrete, everywhere):
    f, stable_one = function(discrete), -0.5 * np.eye(2)
    for a, b, c in (
        (np.zeros((0, 0)), np.zeros((0, 2)), np.zeros((3, 0))),
        (stable_one, np.zeros((2, 0)), np.eye(2)),
        (stable_one, np.zeros((2, 2)), np.eye(2)),
    ):
        (norm, frequency), certificate = everywhere(certify(f), a, b, c)
        assert norm == frequency == certificate.forward_error == 0
    d = np.array([[3.0, 4.0]])
    assert f(np.zeros((0, 0)), np.zeros((0, 2)), np.zeros((1, 0)), d)[0] == pytest.approx(5, rel=1e-15)


def test_a_wrong_norm_is_seen(rng):
    arrays = model(rng, False)
    norm, frequency = hinf_norm(*arrays)
    residual = hinf_norm.spec.residual
    stacks = [x[None] for x in arrays]
    lower = gain(*arrays, 5.0 + frequency)  # attained, but not the largest
    for claimed, at in ((lower, 5.0 + frequency), (1.01 * norm, frequency)):
        seen = residual(matsign.backends.load("numpy"), (np.array([claimed]), np.array([at])), *stacks)
        assert seen.correction[0][0] > 0.009 * norm
    assert np.isfinite(seen.measures[0]).all()


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_gradients_of_a_unique_peak_and_at_zero(name, rng):
    library = pytest.importorskip(name)
    a, b, c = np.array([[-0.1, 1.0], [-1.0, -0.1]]), np.eye(2, 1), np.eye(1, 2)
    for outputs in (c, 0 * c):
        if name == "torch":
            arrays = [library.tensor(x, requires_grad=True) for x in (a, b, outputs)]
            hinf_norm(*arrays)[0].backward()
            gradients = [x.grad.numpy() for x in arrays]
        else:
            gradients = library.grad(lambda *x: hinf_norm(*x)[0], argnums=(0, 1, 2))(
                a, b, library.numpy.asarray(outputs)
            )
        if not outputs.any():
            assert all(not np.asarray(x).any() for x in gradients)
            continue
        norm, w = hinf_norm(a, b, c)
        r = np.linalg.inv(1j * w * np.eye(2) - a)
        u = c @ r @ b / norm
        assert np.allclose(gradients[0], (adjoint(c @ r) @ u @ adjoint(r @ b)).real, rtol=1e-9, atol=1e-12)


@both
def test_second_derivatives_in_torch(discrete):
    torch = pytest.importorskip("torch")
    a = np.array([[-0.5, 3.0], [-3.0, -0.5]])
    a = np.linalg.solve(4 * np.eye(2) - a, 4 * np.eye(2) + a) if discrete else a
    arrays = [torch.tensor(x, requires_grad=True) for x in (a, np.eye(2, 1), np.ones((1, 2)))]
    assert torch.autograd.gradcheck(function(discrete), arrays)
    assert torch.autograd.gradgradcheck(lambda *x: function(discrete)(*x)[0], arrays)


@both
def test_with_a_descriptor(discrete, eager, rng):
    """A well-conditioned e: as for the model in standard form. An ill-conditioned one: attained and nowhere exceeded."""
    for n in (1, 4, 40 if eager.name == "numpy" else 5):
        a, b, c, d = model(rng, discrete, n)
        e = np.eye(n) + gaussian(rng, n, n) / (5 * n**0.5)
        norm, frequency = eager(function(discrete), e @ a, e @ b, c, d, e=eager.array(e))
        expected, at = function(discrete)(a, b, c, d)
        assert norm == pytest.approx(expected, rel=1e-12)
        assert frequency == pytest.approx(at, rel=1e-5, abs=1e-7)
        e = unitary(rng, n) @ np.diag(np.geomspace(1, 1e-8, n)) @ unitary(rng, n)
        norm, frequency = eager(function(discrete), e @ a, b, c, d, e=eager.array(e))
        at = np.append(grid(a, discrete), frequency if np.isfinite(frequency) else 0)
        s = np.exp(1j * at) if discrete else 1j * at
        x = np.linalg.solve(s[:, None, None] * e - e @ a, b.astype(complex))
        values = np.linalg.svd(c @ x + d, compute_uv=False)[:, 0]
        assert values[:-1].max() <= norm * (1 + 1e-7)
        assert not np.isfinite(frequency) or values[-1] == pytest.approx(norm, rel=1e-7)
    with pytest.raises(
        SpectrumError, match="e is singular to working precision, its reciprocal condition number being"
    ):
        eager(function(discrete), a, b, c, d, e=eager.array(0 * e))


def test_a_plateau_between_poles_far_apart_is_tried():
    """Beside a large direct term, level sets do not tell a gain that is higher by 1e-13: some frequency there must be tried."""
    poles = np.array([[-1e-10, -1.0]]) + 0j
    model = peak_gain.Model(*(np.ones((1, 2, 2), complex) for _ in range(4)), None, False)
    _, tried = peak_gain._first_frequencies(model, peak_gain._without_infinity(model, poles), poles)
    assert ((tried > 1e-6) & (tried < 1e-4)).any()
