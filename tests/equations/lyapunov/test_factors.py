"""Factors of Gramians: against the factor of the exact solution, low ranks, wide inputs, unstable systems."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import matsign
import truth
from matrices import DTYPES, adjoint, contraction, gaussian, similar, splitting, stable
from matsign import certify, discrete_lyapunov_factor, lyapunov_factor

EPS = {"float32": 1.2e-7, "float64": 2.3e-16, "complex64": 1.2e-7, "complex128": 2.3e-16}
KINDS = {
    "continuous": (lyapunov_factor, lambda rng, n, dtype: -stable(rng, n, dtype)),
    "discrete": (discrete_lyapunov_factor, contraction),
}
both = pytest.mark.parametrize("kind", KINDS)


def gap(kind, a, z, b):
    """The relative residual of z zᴴ."""
    x, q = z @ adjoint(z), b @ adjoint(b)
    if kind == "continuous":
        return np.linalg.norm(a @ x + x @ adjoint(a) + q) / (
            2 * np.linalg.norm(a) * np.linalg.norm(x) + np.linalg.norm(q)
        )
    return np.linalg.norm(a @ x @ adjoint(a) - x + q) / ((np.linalg.norm(a) ** 2 + 1) * np.linalg.norm(x))


@both
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "m"), [(1, 1), (2, 5), (3, 1), (20, 2), (63, 70), (64, 1), (90, 100), (130, 3)])
def test_solves_the_equation(kind, dtype, n, m, eager, rng):
    f, make = KINDS[kind]
    a, b = make(rng, n, dtype), gaussian(rng, n, m, dtype=dtype)
    z = eager(f, a, b)
    assert z.dtype == dtype
    assert z.shape[-2] == n
    assert z.shape[-1] <= n
    assert gap(kind, a, z, b) < 10 * EPS[dtype] * np.sqrt(n)


@both
@pytest.mark.parametrize("n", [5, 80])
def test_columns_are_orthogonal_and_descend(kind, n, eager, rng):
    f, make = KINDS[kind]
    z = eager(f, make(rng, n, "complex128"), gaussian(rng, n, 2, dtype="complex128"))
    gram = adjoint(z) @ z
    sizes = np.sqrt(np.diag(gram).real)
    assert (np.diff(sizes) <= 0).all()
    assert np.abs(gram - np.diag(np.diag(gram))).max() < 1e-14 * sizes[0] ** 2
    top = z[np.abs(z).argmax(axis=0), range(z.shape[1])]
    assert (top.real > 0).all()
    assert np.abs(top.imag).max() < 1e-14 * sizes[0]


@both
def test_equals_the_factor_of_the_exact_solution_column_by_column(kind, rng):
    """Small columns too, which a factorisation of the computed x would lose."""
    f = KINDS[kind][0]
    a = np.diag([-1.0, -2.0, -3.0, -4.0, -5.0]) if kind == "continuous" else np.diag([0.5, 0.4, 0.3, 0.2, 0.1])
    a = a + np.eye(5, k=1)
    b = np.ones((5, 1))
    exact = (truth.lyapunov_factor if kind == "continuous" else truth.stein_factor)(a, b)
    z = f(a, b)
    largest = float(truth.size(exact[:, 0]))
    for k in range(z.shape[1]):
        assert truth.size(truth.exact(z[:, k]) - exact[:, k]) < 1e-14 * largest


@pytest.mark.parametrize("n", [40, 200])
def test_few_columns_for_few_inputs(n, eager, rng):
    a = np.diag(-np.linspace(1, 2, n)) + 0.1 * gaussian(rng, n, n) / np.sqrt(n)
    b = gaussian(rng, n, 1)
    z = eager(lyapunov_factor, a, b)
    assert z.shape[1] < 25
    assert gap("continuous", a, z, b) < 1e-14


@both
def test_a_batch_is_as_wide_as_its_widest_member(kind, eager, rng):
    f, make = KINDS[kind]
    a = np.stack([make(rng, 4, "float64") for _ in range(3)])
    b = gaussian(rng, 3, 4, 1)
    b[0] = 0
    a[1] = 0.5 * np.eye(4) * (-1 if kind == "continuous" else 1)
    z = eager(f, a[:2], b[:2])
    assert z.shape == (2, 4, 1)  # of ranks 0 and 1
    assert not z[0].any()
    assert eager(f, a, b).shape == (3, 4, 4)


@both
@given(seed=st.integers(0, 2**32 - 1), dtype=st.sampled_from(DTYPES))
def test_a_member_has_the_bits_that_it_has_alone(kind, seed, dtype):
    rng = np.random.default_rng(seed)
    f, make = KINDS[kind]
    n, m = int(rng.integers(1, 7)), int(rng.integers(1, 4))
    a, b = np.stack([make(rng, n, dtype) for _ in range(5)]), gaussian(rng, 5, n, m, dtype=dtype)
    units = 2.0 ** rng.integers(-20, 20, n)
    a[2] = units[:, None] * a[2] / units
    z = f(a, b)
    for k in range(5):
        alone = f(a[k], b[k])
        np.testing.assert_array_equal(z[k][:, : alone.shape[1]], alone)
        assert not z[k][:, alone.shape[1] :].any()


def test_large_members_have_the_bits_that_they_have_alone(rng):
    a = np.stack([np.diag(-np.linspace(1, 2 + 5 * k, 70)) for k in range(3)])
    b = gaussian(rng, 3, 70, 1)
    z = lyapunov_factor(a, b)
    for k in range(3):
        alone = lyapunov_factor(a[k], b[k])
        np.testing.assert_array_equal(z[k][:, : alone.shape[1]], alone)


@pytest.mark.parametrize("n", [4, 70])
def test_what_is_not_stable_is_an_error(n, on, rng):
    if on.name == "jax" and n > 4:
        pytest.skip("compiles the same again, for a quarter of a minute")
    b = gaussian(rng, n, 1)
    for f, a in (
        (lyapunov_factor, splitting(rng, n)),
        (lyapunov_factor, stable(rng, n)),
        (lyapunov_factor, np.diag(-np.arange(n, dtype=float))),
        (discrete_lyapunov_factor, contraction(rng, n, radius=1.3)),
        (discrete_lyapunov_factor, np.eye(n)),
    ):
        with pytest.raises(matsign.SpectrumError, match="not stable"):
            on(f, a, b)


@pytest.mark.parametrize("distance", [0.0, 1e-18, 1e-17])
def test_what_rounding_alone_keeps_stable_is_an_error(distance, eager, rng):
    for f, values in (
        (lyapunov_factor, [-distance, -1.0, -2.0]),
        (discrete_lyapunov_factor, [1 - distance, 0.5, 0.2]),
    ):
        a = np.stack([similar(rng, np.diag(values), 10) for _ in range(20)])
        with pytest.raises(matsign.SpectrumError, match="not stable") as error:
            eager(f, a, gaussian(rng, 3, 1))
        assert len(error.value.members) == len(a)


@pytest.mark.parametrize("exponent", [-300, -155, 155, 300])
@pytest.mark.filterwarnings("error")
def test_the_whole_range_of_numbers(exponent, eager, rng):
    a, c, b, s = -stable(rng, 3), contraction(rng, 3), gaussian(rng, 3, 2), 4.0 ** round(exponent * 1.66)
    z, y = lyapunov_factor(a, b), discrete_lyapunov_factor(c, b)
    for f, arguments, exact in (
        (lyapunov_factor, (a, s * b), s * z),
        (lyapunov_factor, (s * a, b), z / np.sqrt(s)),
        (discrete_lyapunov_factor, (c, s * b), s * y),
    ):
        value, certificate = eager(certify(f), *arguments)
        assert np.linalg.norm((value - exact) / np.abs(exact).max()) < 1e-13
        assert 0 < certificate.forward_error < 1e-13
        assert certificate.backward_error < 1e-14
    if exponent == -300:
        with pytest.raises(matsign.SpectrumError, match="larger than the largest number"):
            eager(lyapunov_factor, s * a, b / s)


def test_an_unstable_member_leaves_the_others_right(on, rng):
    a, b = np.stack([-stable(rng, 3), splitting(rng, 3), -stable(rng, 3)]), gaussian(rng, 3, 3, 2)
    z = on(lyapunov_factor, a, b, errors="nan")
    assert np.isnan(z[1]).all()
    for k in (0, 2):
        assert gap("continuous", a[k], z[k], b[k]) < 1e-14


def test_units_of_the_states_do_not_matter(rng):
    a, b = -stable(rng, 6), gaussian(rng, 6, 2)
    units = 2.0 ** np.array([-40, 30, 0, 13, -22, 38])
    z, y = lyapunov_factor(a, b), lyapunov_factor(units[:, None] * a / units, units[:, None] * b) / units[:, None]
    assert np.linalg.norm(z @ z.T - y @ y.T) < 1e-14 * np.linalg.norm(z @ z.T)


@pytest.mark.parametrize("distance", [1e-3, 1e-6, 1e-9])
def test_certificate_sees_what_is_near_the_axis(distance, rng):
    a, b = similar(rng, np.diag([-distance, -1.0, -2.0])), gaussian(rng, 3, 1)
    z, certificate = certify(lyapunov_factor)(a, b)
    error = truth.error(z @ z.T, truth.lyapunov(a, -truth.exact(b) @ truth.exact(b).T)) / 2
    assert error < 30 * certificate.forward_error
    assert certificate.forward_error < 1e3 * error + 1e-13


def test_nothing_in_gives_nothing_out(on):
    assert on(lyapunov_factor, np.zeros((0, 0)), np.zeros((0, 2))).shape[-2] == 0
    assert on(discrete_lyapunov_factor, np.zeros((0, 3, 3)), np.zeros((0, 3, 2))).shape[:2] == (0, 3)


SYSTEM = (
    np.array([[-2.0, 0.5, 0.1], [0.3, -1.5, 0.2], [0.0, 0.4, -1.0]]),
    np.array([[1.0, 0.2], [0.3, 1.0], [-1.0, 0.5]]),
    np.array([[0.5, 1.0, -0.3]]),
)


@pytest.mark.parametrize("size", [1e-300, 1e-200, 1e200, 1e300])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_condition_does_not_depend_on_the_unit(size, which):
    """Products with Gramians may overflow or underflow where answers and derivatives do not."""
    scaled = [x * size if k == which else x for k, x in enumerate(SYSTEM)]
    for f, count in (
        (matsign.lyapunov_factor, 2),
        (matsign.hankel_singular_values, 3),
        (matsign.balanced_truncation, 3),
    ):
        order = {"order": 2} if f is matsign.balanced_truncation else {}
        if which < count:
            wanted = matsign.condition(f)(*SYSTEM[:count], **order)
            np.testing.assert_allclose(matsign.condition(f)(*scaled[:count], **order), wanted, rtol=1e-6)
    if which == 1:
        a = SYSTEM[0] / 4
        wanted = matsign.condition(matsign.discrete_lyapunov_factor)(a, SYSTEM[1])
        np.testing.assert_allclose(matsign.condition(matsign.discrete_lyapunov_factor)(a, scaled[1]), wanted, rtol=1e-6)


@pytest.mark.parametrize("f", [matsign.lyapunov_factor, matsign.discrete_lyapunov_factor])
def test_gramian_of_a_moved_factor_in_any_units(f):
    """For states in units so different that the columns of z are parallel to rounding, the derivative of z zᴴ is right."""
    torch = pytest.importorskip("torch")
    units = np.array([2.0**40, 1.0, 2.0**-20])
    a, b = SYSTEM[0] / (4 if f is matsign.discrete_lyapunov_factor else 1), SYSTEM[1]

    def moved(s):
        arrays, tangents = (a * s / s.T, b * s), (np.cos(np.arange(9.0)).reshape(3, 3) * s / s.T, np.ones((3, 2)) * s)
        z, dz = f(*arrays), matsign.frechet(f)(*arrays, *tangents)
        weight = torch.from_numpy(np.sin(np.arange(9.0)).reshape(3, 3) / s / s.T)
        given = [torch.from_numpy(x).requires_grad_() for x in arrays]
        factor = f(*given)
        pulled = torch.autograd.grad((factor @ factor.mT * weight).sum(), given)
        along = sum((x.numpy() * y).sum() for x, y in zip(pulled, tangents, strict=True))
        return (dz @ z.T + z @ dz.T) / s / s.T, along

    (dx, along), (wanted, wanted_along) = moved(units[:, None]), moved(np.ones((3, 1)))
    np.testing.assert_allclose(dx, wanted, rtol=1e-9, atol=1e-9 * abs(wanted).max())
    np.testing.assert_allclose(along, wanted_along, rtol=1e-9)
